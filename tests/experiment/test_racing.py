"""Races of a file on a plant: run, killed, gone on with, shipped, and replayed from what was shipped."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest

from steerlib.experiment import race_effort, racing, runners
from steerlib.experiment.calibrate import Status
from steerlib.experiment.race_effort import Pace, effort_of
from steerlib.experiment.race_files import plan_hash, read_shipped_race
from steerlib.experiment.race_plan import RacePlan, RacePlanError
from steerlib.experiment.race_records import adopt, due_calibrations, replay, ship_race, shipped_race
from steerlib.experiment.racing import by_seed, kept_ready, run_course, run_race
from steerlib.experiment.recompute import Reference
from steerlib.experiment.selecting import RaceError
from steerlib.experiment.shipped import ShippedError, shipped
from steerlib.experiment.slices import law_of
from steerlib.experiment.store import Store
from steerlib.experiment.verification import DriftError, Verification
from tests.experiment.racetrack import measure
from tests.experiment.racetrack import method as toy_method
from tests.experiment.test_race_plan import MINI, SOURCE


@pytest.fixture(scope="module")
def race(tmp_path_factory):
    """A small race on a seedling, its course, the store in which it was run, and the outcome."""
    from steerlib.world.grow import grow

    folder = tmp_path_factory.mktemp("race")
    plant = grow("almanac-seedling", folder / "seedling", device="cpu", progress=False)
    plan = RacePlan.model_validate(
        MINI
        | {
            "validation": 3, "test": 4, "keep": 0.0,
            "budget": {"amount": 0.02, "prompts": 3, "max_new_tokens": 4, "tolerance": 0.2, "most": 12},
            "grounds": [{"plants": [str(plant)], "tasks": ["truth"], "seeds": [0, 1]}],
            "methods": [
                *MINI["methods"],
                {
                    "name": "heads", "law": "iti", "layers": [1.0], "source": SOURCE, "options": {"num_heads": 999},
                    "strengths": [1.0],
                },
            ],
        }
    )  # fmt: skip
    (course,) = plan.courses()
    store = Store(folder / "store")
    known, outcome = run_course(plan, course, store)
    return plan, course, store, known, outcome


def unable(*_args, **_options):
    raise AssertionError("computed again")


def test_lengths_follow_the_states_and_what_cannot_be_fitted_is_said(race):
    plan, course, _, known, outcome = race
    from steerlib.plant import Plant
    from steerlib.tasks.truth import Truth

    (place,) = known.norms
    contrast = Truth(Plant.load(course.plant)).contrast(layer=plan.lengths(known.depth)[place][1], n=10)
    mean = sum(states.norm(dim=1).mean().item() for states in contrast) / 2
    assert known.norms[place] == pytest.approx(mean, rel=0.06)
    strengths = {
        r.cell.law.strength for e in outcome.entries if (e.name, e.setting) == ("probe", "own") for r in e.records
    }
    assert strengths == {float(f"{0.1 * known.norms[place]:.3g}")}
    assert list(known.barred) == ["heads"] and "999" in known.barred["heads"]
    assert [(e.setting, e.note, e.records) for e in outcome.entries if e.name == "heads"] == [
        (setting, known.barred["heads"], ()) for setting in ("own", "budget")
    ]


def test_a_race_that_was_killed_goes_on_without_computing_again(race, monkeypatch):
    plan, course, store, known, outcome = race
    monkeypatch.setattr("steerlib.experiment.running.run_cell", unable)
    monkeypatch.setattr(runners, "cost_of", unable)
    monkeypatch.setattr(racing, "ready", unable)
    again_known, again = run_course(plan, course, store)
    assert again_known == known and again.table().equals(outcome.table())


def test_estimates_count_what_is_done(race):
    plan, course, store, known, _ = race
    effort = effort_of(plan, course, Pace(exact=1.0, sampled=0.0, fit=0.0), depth=known.depth)
    cells = [record.cell for record in store.records()]
    done = {split: sum(cell.split == split for cell in cells) for split in ("validation", "test")}
    assert 0 < done["validation"] <= effort.validation + 1 and 0 < done["test"] <= effort.test
    assert 0 < len(list((store.folder / "calibrations").rglob("*.json"))) <= effort.calibrations
    assert effort.seconds == effort.validation * plan.validation + effort.test * plan.test
    slower = effort_of(plan, course, Pace(exact=1.0, sampled=2.0, fit=0.0), depth=known.depth)
    # At one seed the places: two each of push and the controls, one each of probe and heads; then a method each.
    searched = 10 * race_effort.EVALUATIONS + 6 * race_effort.EVALUATIONS_NEAR
    assert slower.seconds == pytest.approx(effort.seconds + searched * plan.budget.prompts * 2.0)


def test_cells_are_measured_in_order_of_their_seeds_and_given_back_in_their_own():
    from steerlib.experiment.cells import Cell
    from steerlib.experiment.methods import seeded

    law = toy_method().laws[0]
    cells = [Cell(plant="p", task="truth", law=seeded(law, seed)) for seed in (2, 0, 1, 0)]
    cells.append(Cell(plant="p", task="truth"))
    seen = []

    def run(given):
        seen.extend(given)
        return [measure(cell) for cell in given]

    assert [record.cell for record in by_seed(run)(cells)] == cells
    assert [cell.law and cell.law.fit.seed for cell in seen] == [None, 0, 0, 1, 2]


def test_a_course_that_fails_costs_the_others_nothing(race, capsys):
    plan, course, store, *_ = race
    lost = course.model_copy(update={"plant": "nowhere"})
    ran = run_race(plan, [lost, course], store)
    assert ran.done == [course] and list(ran.failed) == [lost] and "nowhere" in ran.failed[lost]
    assert "[race] nowhere/truth:" in capsys.readouterr().err


# ---- shipped -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sent(race, tmp_path_factory):
    plan, course, store, *_ = race
    folder = tmp_path_factory.mktemp("sent")
    records, races = folder / "toy.jsonl.gz", folder / "toy.json.gz"
    ship_race(plan, [course], store, records=records, races=races)
    return records, races


def given(sent) -> Reference:
    found = shipped(sent[0])
    assert not found.stale
    return Reference("toy", found.records, (), Verification((), len(found.records), 1), found)


def test_a_shipped_race_is_replayed_to_the_same_table(race, sent, monkeypatch):
    plan, course, store, known, outcome = race
    monkeypatch.setattr("steerlib.experiment.running.run_cell", unable)
    monkeypatch.setattr(runners, "cost_of", unable)
    found = replay("toy", profile="tiny", plan=plan, records=given(sent), path=sent[1], measure=0)
    assert list(found.courses) == [course.title] and found.absent == () and found.ready[course.title] == known
    mine, theirs = found.courses[course.title].table(), outcome.table()
    assert list(mine["note"]) == list(theirs["note"])
    numbers = ["value", "low", "high", "spent", "strength", "difference", "p"]
    assert mine[numbers].to_numpy(float) == pytest.approx(theirs[numbers].to_numpy(float), abs=2e-6, nan_ok=True)
    assert given(sent).source.header.race, "a build draws one cell of each law"
    first = sent[1].read_bytes()
    ship_race(plan, [course], store, records=sent[0], races=sent[1])
    assert sent[1].read_bytes() == first, "equal races are equal files"


def test_calibrations_are_measured_again(race, sent, tmp_path, monkeypatch):
    plan = race[0]
    options = {"profile": "tiny", "plan": plan, "records": given(sent), "measure": 2}
    count, worst = replay("toy", path=sent[1], seed=1, **options).measured
    assert count == 2 and worst < 1e-3
    body = gzip.decompress(sent[1].read_bytes()).decode().partition("\n")[2]
    raw = json.loads(body)
    for one in raw["spent"]:
        one["cost"] *= 1.5
    write(tmp_path / "toy.json.gz", raw)
    monkeypatch.setenv("STEERLIB_SLICE_SEED", "17")
    with pytest.raises(DriftError, match="which is more than 0.2 of the budget away.*STEERLIB_SLICE_SEED=17"):
        replay("toy", path=tmp_path / "toy.json.gz", **options)


def test_a_false_calibration_is_found_within_as_many_builds_as_there_are(race, sent, tmp_path, monkeypatch):
    options = {"profile": "tiny", "plan": race[0], "records": given(sent)}
    spent = read_shipped_race(sent[1]).spent
    true = {one.cell: one.cost for one in spent}
    monkeypatch.setattr(runners.Spending, "cost", lambda _self, cell: lambda _strength: true[cell])
    reached = [n for n, one in enumerate(spent) if one.status is Status.REACHED and one.target > 0]
    assert len(reached) > 2
    for false in (reached[0], reached[len(reached) // 2], reached[-1]):  # what a rotation is, tests of slices ask
        raw = json.loads(gzip.decompress(sent[1].read_bytes()).decode().partition("\n")[2])
        raw["spent"][false]["cost"] *= 1.5
        write(tmp_path / "toy.json.gz", raw)
        found = []
        for seed in range(1000, 1000 + len(reached)):
            try:
                replay("toy", path=tmp_path / "toy.json.gz", seed=seed, **options)
            except DriftError as error:
                found.append(str(error))
        assert len(found) == 1 and spent[false].cell.title in found[0], "one a build, each once"


def test_laws_that_take_long_are_measured_again_less_often_and_none_is_left_out(sent):
    reached = [one for one in read_shipped_race(sent[1]).spent if one.status is Status.REACHED and one.target > 0]
    laws = sorted({law_of(one.cell) for one in reached})
    assert len(laws) > 1
    slow = [one for one in reached if law_of(one.cell) == laws[0]]
    for first in (0, 17, 1002):
        most = max(4 * len(slow), 4 * (len(reached) - len(slow)) // 3 + 2)
        drawn = [due_calibrations(reached, {laws[0]}, count=1, seed=seed) for seed in range(first, first + most)]
        assert {one.cell for part in drawn for one in part} == {one.cell for one in reached}
        assert all(len(part) == 1 for part in drawn)
        was_slow = [part[0] in slow for part in drawn]
        assert sum(was_slow[:4]) == 1 and all(was_slow[n] == was_slow[n % 4] for n in range(most))
    for dear in (set(), set(laws)):
        drawn = [due_calibrations(reached, dear, count=1, seed=seed)[0] for seed in range(len(reached))]
        assert {one.cell for one in drawn} == {one.cell for one in reached}, "where there is one kind, nothing rests"


def test_a_page_asks_for_the_courses_that_it_shows(race, sent, monkeypatch, tmp_path):
    plan, course, *_ = race
    options = {"profile": "tiny", "plan": plan, "records": given(sent), "path": sent[1], "measure": 0}
    monkeypatch.setattr(runners, "cost_of", unable)
    found = replay("toy", only=["another/course"], **options)
    assert found.courses == {} and found.absent == (), "it is shipped, but was not asked for"
    assert list(replay("toy", only={course.title: None}, **options).courses) == [course.title]
    assert "calibrations" not in found.line
    told = replace(found, measured=(1, 0.0123)).line
    assert told.endswith(" Of its calibrations 1 was measured again, and moved by 1.2 % of the budget.")
    assert "*" not in told and "`" not in told
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("STEERLIB_ROOT", str(tmp_path))
    assert shipped_race("toy", profile="tiny") == (None, "Of the race `toy` nothing is shipped for the profile tiny.")


def test_a_replay_refuses_what_does_not_belong_to_it(race, sent):
    plan, course, _, _, _ = race
    options = {"profile": "tiny", "records": given(sent), "path": sent[1]}
    with pytest.raises(ShippedError, match="shipped for another plan"):
        replay("toy", plan=plan.model_copy(update={"keep": 0.5}), **options)
    few = Reference("toy", options["records"].records[1:], (), Verification((), 1, 1), options["records"].source)
    with pytest.raises(RaceError, match="have no record among"):
        replay("toy", plan=plan, **options | {"records": few})
    wider = plan.model_copy(update={"grounds": (*plan.grounds, plan.grounds[0].model_copy(update={"plants": ("b",)}))})
    assert plan_hash(wider) != plan_hash(plan)


def test_a_calibration_whose_key_is_not_the_present_one_is_stale(race, sent, tmp_path):
    plan = race[0]
    head, _, body = gzip.decompress(sent[1].read_bytes()).decode().partition("\n")
    raw = json.loads(body)
    raw["spent"][0]["key"] = "0" * 64
    other = tmp_path / "toy.json.gz"
    write(other, raw)
    with pytest.raises(RaceError, match="calibration is stale"):
        replay("toy", profile="tiny", plan=plan, records=given(sent), path=other)
    del raw["spent"][0]
    write(other, raw)
    with pytest.raises(RaceError, match="no calibration is shipped"):
        replay("toy", profile="tiny", plan=plan, records=given(sent), path=other)


def write(file, raw):
    import hashlib

    body = json.dumps(raw)
    file.write_bytes(gzip.compress(f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n".encode()))


def test_a_race_goes_on_from_what_is_shipped(race, sent, tmp_path, monkeypatch):
    plan, course, store, _, outcome = race
    fresh = Store(tmp_path / "fresh")
    records, calibrations = adopt(plan, fresh, records=sent[0], races=sent[1])
    assert records == len(store.keys()) and calibrations == len(list((store.folder / "calibrations").rglob("*.json")))
    monkeypatch.setattr("steerlib.experiment.running.run_cell", unable)
    monkeypatch.setattr(runners, "cost_of", unable)
    again = run_course(plan, course, fresh)[1]
    assert list(again.table()["note"]) == list(outcome.table()["note"])
    assert adopt(plan, fresh, records=sent[0], races=sent[1]) == (0, 0), "what is there is left"
    dearer = plan.model_copy(update={"budget": plan.budget.model_copy(update={"amount": 0.03})})
    assert adopt(dearer, Store(tmp_path / "other"), records=sent[0], races=sent[1]) == (records, 0)


def test_damaged_files_are_named(race, sent, tmp_path):
    other = tmp_path / "toy.json.gz"
    with pytest.raises(ShippedError, match=r"no shipped race at .*toy\.yml --ship"):
        read_shipped_race(other)
    other.write_bytes(sent[1].read_bytes()[:-20])
    with pytest.raises(ShippedError, match="truncated or damaged"):
        read_shipped_race(other)
    body = gzip.decompress(sent[1].read_bytes())
    other.write_bytes(gzip.compress(body.replace(b'"reached"', b'"unreached"')))
    with pytest.raises(ShippedError, match="was altered"):
        read_shipped_race(other)
    write(other, {"schema_version": 9})
    with pytest.raises(ShippedError, match="schema 9, expected 1"):
        read_shipped_race(other)


def test_a_course_that_is_not_whole_is_not_shipped(race, tmp_path):
    plan, course, store, *_ = race
    paths = {"records": tmp_path / "r.jsonl.gz", "races": tmp_path / "r.json.gz"}
    with pytest.raises(ShippedError, match="not whole.*not been begun"):
        ship_race(plan, [course], Store(tmp_path / "empty"), **paths)
    with pytest.raises(ShippedError, match="no course"):
        ship_race(plan, [], store, **paths)
    assert not any(tmp_path.glob("r.*"))
    assert kept_ready(plan.model_copy(update={"fit": 11}), course, store) is None, "another plan looks for itself"
    with pytest.raises(RacePlanError):
        plan.courses(["nowhere"])
