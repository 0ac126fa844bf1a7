"""Cells on a real, tiny plant: the numbers are those of the task, and the command line keeps them."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from steerlib.errors import SteerlibError
from steerlib.experiment import running
from steerlib.experiment.answered import _sectioned, effort, variety
from steerlib.experiment.cell_records import dump, parse
from steerlib.experiment.cells import Cell, Fit, LawSpec, Sampling, key_from
from steerlib.experiment.grid import missing, run_grid
from steerlib.experiment.keys import files_hash, key_of, keys_of, present_parts
from steerlib.experiment.recompute import reference
from steerlib.experiment.running import CellError, run_cell
from steerlib.experiment.store import Store
from steerlib.experiment.verification import DriftError
from steerlib.files import data_folder
from steerlib.laws.additive import DifferenceOfMeans, shuffled
from steerlib.metrics import METRICS, dist_n, diversity, input_energy, kl_per_token
from steerlib.plant import Plant
from steerlib.registry import task_class
from steerlib.tasks import Truth
from steerlib.tasks.base import spread
from steerlib.tasks.real import Requests
from steerlib.world.grow import grow
from tests.data import sets
from tests.experiment import toys
from tests.typed import typed

PUSH = LawSpec(name="difference-of-means", layer=0, strength=2.0, fit=Fit(n=12))


@pytest.fixture(scope="module")
def seedling(tmp_path_factory):
    return grow("almanac-seedling", tmp_path_factory.mktemp("seedling"), device="cpu", progress=False)


@pytest.fixture(scope="module")
def task(seedling):
    return Truth(Plant.load(str(seedling), device="cpu"))


def cell(seedling, **more):
    return Cell(**{"plant": str(seedling), "task": "truth", "limit": 5, **more})


def test_a_cell_holds_what_the_task_says(seedling, task):
    bare = run_cell(cell(seedling))
    assert bare.scores["wanted"] == pytest.approx(task.exact(limit=5).wanted.tolist())
    law = DifferenceOfMeans().fit(task.contrast(layer=0, n=12)).at(2.0)
    with task.plant.under(law):
        expected = task.exact(limit=5)
    steered = run_cell(cell(seedling, law=PUSH))
    assert steered.scores["wanted"] == pytest.approx(expected.wanted.tolist())
    assert steered.scores["wanted"] != bare.scores["wanted"]
    assert steered.metrics["combined"].value == pytest.approx(expected.combined_mean)
    assert steered.answers == () and bare.memory_mb > 50 and bare.provenance.dtype == "float32"


def test_one_fitted_law_serves_a_sweep_without_leaking_its_strength(seedling):
    strengths = (0.0, 2.0, 0.0)
    zero, strong, again = (run_cell(cell(seedling, law=PUSH.model_copy(update={"strength": s}))) for s in strengths)
    assert zero.scores == again.scores == run_cell(cell(seedling)).scores
    assert strong.scores != zero.scores


@pytest.mark.parametrize("scored", ["utility", "toxicity"])
def test_a_law_fitted_for_truth_is_scored_on_another_behaviour(seedling, task, scored):
    law = DifferenceOfMeans().fit(task.contrast(layer=0, n=12)).at(2.0)
    other = task_class(scored)(task.plant)
    with task.plant.under(law):
        expected = other.exact(limit=5)
    pushed = PUSH.model_copy(update={"fit": Fit(n=12, task="truth")})
    found = run_cell(cell(seedling, task=scored, law=pushed))
    assert found.scores["wanted"] == pytest.approx(expected.wanted.tolist())
    assert found.scores["intact"] == pytest.approx(expected.intact.tolist())
    assert found.scores != run_cell(cell(seedling, task=scored)).scores
    if scored == "toxicity":
        own = run_cell(cell(seedling, task=scored, law=PUSH))
        assert own.scores["wanted"] != found.scores["wanted"] and own.key != found.key


def test_the_key_follows_the_data_that_a_law_is_fitted_on(seedling, tmp_path):
    law = PUSH.model_copy(update={"fit": Fit(task="sentiment", task_options={"data": str(tmp_path)})})
    absent = key_of(cell(seedling, law=law))
    file = tmp_path / "sst2" / "train.tsv"
    file.parent.mkdir()
    file.write_text("a fine film\t1\n")
    assert key_of(cell(seedling, law=law)) != absent
    several = [cell(seedling, law=law), cell(seedling, law=PUSH)]
    assert keys_of(several) == [key_of(one) for one in several]


def test_shuffled_labels_are_the_control_that_they_claim_to_be(seedling, task):
    spec = PUSH.model_copy(update={"fit": Fit(n=12, labels="shuffled", seed=3)})
    contrast = shuffled(task.contrast(layer=0, n=12, seed=3), seed=3)
    with task.plant.under(DifferenceOfMeans(strength=2.0).fit(contrast)):
        expected = task.exact(limit=5).wanted
    assert run_cell(cell(seedling, law=spec)).scores["wanted"] == pytest.approx(expected.tolist())


def test_laws_of_one_place_share_the_states_they_are_fitted_on(seedling, monkeypatch):
    asked = []
    measure = Truth.contrasts
    monkeypatch.setattr(
        Truth, "contrasts", lambda task, sites, **what: asked.append((sites, what)) or measure(task, sites, **what)
    )
    fit = Fit(n=11)
    specs = [LawSpec(name="random-direction", layer=0, options={"seed": k}, fit=fit) for k in range(3)]
    fits = [fit, fit.model_copy(update={"labels": "shuffled"})]
    specs += [PUSH.model_copy(update={"fit": one}) for one in fits]
    found = [run_cell(cell(seedling, law=spec)).scores["wanted"] for spec in specs]
    assert len(asked) == 1 and asked[0][1]["n"] == 11
    assert len(set(found)) == len(specs)
    run_cell(cell(seedling, law=PUSH.model_copy(update={"fit": fit, "layer": 1})))
    run_cell(cell(seedling, law=PUSH.model_copy(update={"fit": fit.model_copy(update={"seed": 5})})))
    assert [([s.layer for s in sites], what["seed"]) for sites, what in asked] == [([0], 0), ([1], 0), ([0], 5)]


def test_states_of_another_position_are_not_shared(seedling, monkeypatch):
    asked = []
    measure = Truth.contrasts
    monkeypatch.setattr(Truth, "contrasts", lambda task, s, **what: asked.append(what) or measure(task, s, **what))
    where = [{"position": position} for position in ("mean", "last", "mean")]
    specs = [LawSpec(name="mean-act", layer=0, strength=3.0, options=each, fit=Fit(n=13)) for each in where]
    found = [run_cell(cell(seedling, law=spec)).scores["wanted"] for spec in specs]
    assert [what["position"] for what in asked] == ["mean", "last"]
    assert found[0] == found[2] != found[1]


def test_told_and_sampled_cells(seedling, task):
    told = run_cell(cell(seedling, told=True))
    assert told.scores["wanted"] == pytest.approx(task.reference(limit=5).wanted.tolist())
    said = run_cell(cell(seedling, kind="sampled", seed=4))
    scores, texts = task.sampled(seed=4, limit=5)
    assert said.answers == tuple(texts) and np.allclose(said.scores["intact"], scores.intact)
    assert said.answers_sha256 and said.without_answers().answers == ()


@pytest.mark.parametrize("told", [False, True])
def test_sampled_answers_are_measured_besides_their_scores(seedling, task, told):
    pushed = run_cell(cell(seedling, kind="sampled", seed=4, limit=10, law=PUSH, told=told))
    bare = run_cell(cell(seedling, kind="sampled", seed=4, limit=10, told=told))
    texts, base = pushed.answers, {"wanted", "intact", "combined"}
    varied = {"diversity", "dist-1", "dist-2", "dist-3"}
    assert set(bare.metrics) == base | varied and set(pushed.metrics) == base | varied | {"kl", "kl-p95", "energy"}
    assert set(pushed.metrics) - base <= set(METRICS)
    assert set(run_cell(cell(seedling, law=PUSH)).metrics) == base
    assert pushed.metrics["diversity"].value == pytest.approx(diversity(texts))
    for n in (1, 2, 3):
        assert pushed.metrics[f"dist-{n}"].value == pytest.approx(dist_n(texts, n))
    law = DifferenceOfMeans().fit(task.contrast(layer=0, n=12)).at(2.0)
    asked = [item.text for item in spread(task.items("test", told=told), 10)]
    kl = kl_per_token(task.plant, task.plant.under(law), asked, texts)
    energy = input_energy(task.plant, task.plant.under(law), asked, texts)
    assert pushed.metrics["kl"].value == pytest.approx(kl.mean, rel=1e-4) and kl.mean > 0
    assert pushed.metrics["kl-p95"].value == pytest.approx(kl.p95, rel=1e-4)
    assert pushed.metrics["energy"].value == pytest.approx(energy.per_token, rel=1e-4)
    for name in ("kl", "kl-p95"):
        assert pushed.metrics[name].low < pushed.metrics[name].value < pushed.metrics[name].high
    none = run_cell(cell(seedling, kind="sampled", seed=4, limit=10, law=PUSH.model_copy(update={"strength": 0.0})))
    assert none.metrics["kl"].value == pytest.approx(0.0, abs=1e-6) and none.metrics["energy"].value == 0.0


def test_settings_reach_the_sampling_and_do_not_stay(seedling, task):
    before = run_cell(cell(seedling, kind="sampled", seed=4))
    settings = Sampling(max_new_tokens=6, temperature=0.0)
    greedy = [run_cell(cell(seedling, kind="sampled", seed=s, settings=settings)) for s in (4, 5)]
    out = task.plant.generate(spread(task.prompts(), 5), max_new_tokens=6, temperature=0.0, seed=0)
    assert greedy[0].answers == greedy[1].answers == tuple(text.partition("\n")[0] for text in out.texts)
    assert greedy[0].key != before.key
    assert run_cell(cell(seedling, kind="sampled", seed=4)).answers == before.answers != greedy[0].answers


def test_settings_have_one_place_where_a_task_has_its_own(monkeypatch, seedling):
    monkeypatch.setattr(Truth, "settings", "odesteer", raising=False)
    with pytest.raises(CellError, match=r"settings of its own. Fix: give {'top_p': 0.5} as task_options.settings"):
        run_cell(cell(seedling, kind="sampled", settings=Sampling(top_p=0.5)))


@pytest.mark.parametrize(("device", "begun"), [("cuda", 1), ("cpu", 0)])
def test_the_peak_of_a_gpu_begins_anew_with_each_cell(monkeypatch, device, begun):
    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    anew = []
    monkeypatch.setattr(running, "plant_of", lambda *_: SimpleNamespace(device=torch.device(device)))
    monkeypatch.setattr(running, "_task", lambda *_: SimpleNamespace(exact=lambda **_: stop()))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", anew.append)
    with pytest.raises(Stop):
        run_cell(Cell(plant="p", task="truth"), device=device)
    assert len(anew) == begun


def test_a_record_states_what_its_key_is_made_of(seedling):
    record = run_cell(cell(seedling, law=PUSH))
    assert set(record.parts) == {"weights", "data", "code", "versions"}
    assert key_from(record.cell, record.parts) == record.key == key_of(record.cell)
    assert parse(dump(record).encode(), key=record.key, name="x") == record


def test_a_record_without_what_came_later_is_written_as_before():
    old = toys.record(Cell(plant="p", task="truth"))
    assert not {'"parts"', '"missing"', '"more"'} & set(re.findall(r'"\w+"', dump(old)))
    assert (old.missing, old.more) == ({}, {})
    assert parse(dump(old).encode(), key=old.key, name="x") == old and old.parts is None


def test_intervals_of_sections_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        sections = rng.normal(5.0, 1.0, size=8)
        found = _sectioned(float(sections.mean()), sections.tolist(), 80)
        held += found.low <= 5.0 <= found.high
    assert 0.92 < held / 400 < 0.98


def test_silence_earns_no_variety_and_every_answer_is_counted():
    answers = ["a b a", "", "c"]
    found = variety(answers)
    assert {name: metric.value for name, metric in found.items() if name != "diversity"} == pytest.approx(
        {"dist-1": (2 / 3 + 0 + 1) / 3, "dist-2": 1 / 3, "dist-3": 1 / 3}
    )
    assert {metric.n for metric in found.values()} == {3}


def test_what_blank_answers_leave_out_is_said(task):
    asked, said = ["x", "y", "z", "x"], [" a", "", "\n", " b"]
    law = DifferenceOfMeans().fit(task.contrast(layer=0, n=12)).at(2.0)
    found = effort(task.plant, lambda: task.plant.under(law), asked, said)
    assert {metric.n for metric in found.values()} == {2}
    kl, energy = (of(task.plant, task.plant.under(law), asked, said) for of in (kl_per_token, input_energy))
    spoken = kl_per_token(task.plant, task.plant.under(law), ["x", "x"], [" a", " b"])
    assert (kl.blank, energy.blank, spoken.blank) == (2, 2, 0) and kl.mean == pytest.approx(spoken.mean)


def test_answers_that_say_too_little_have_no_effort(task):
    assert effort(task.plant, lambda: task.plant.under(None), ["x", "y"], ["", " z"]) == {}


def test_the_key_follows_the_weights_and_not_the_card(seedling, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(seedling, copy)
    assert key_of(cell(copy)) == key_of(cell(seedling))
    before = files_hash(str(copy))
    card = json.loads((copy / "card.json").read_text())
    (copy / "card.json").write_text(json.dumps(card | {"remark": "x"}))
    assert files_hash(str(copy)) == before
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert files_hash(str(copy)) != before


def test_many_keys_are_those_of_each(seedling):
    several = [
        cell(seedling), cell(seedling, law=PUSH), cell(seedling, task="toxicity"), cell(seedling, task="sentiment"),
        Cell(plant="almanac-llama", task="truth"),
        cell(seedling, task="concept", task_options={"concept": "the sea"}),
    ]  # fmt: skip
    found = keys_of(several)
    assert found == [key_of(one) for one in several] and len(set(found)) == len(several)
    assert [key_from(one, present_parts()(one)) for one in several] == found


def test_the_key_follows_the_data_that_a_task_reads(seedling, tmp_path, monkeypatch):
    shutil.copytree(data_folder() / "contrasts", tmp_path / "data" / "contrasts")
    (tmp_path / "requirements.lock").touch()
    monkeypatch.setenv("STEERLIB_ROOT", str(tmp_path))
    happy, truth = cell(seedling, task="sentiment"), cell(seedling)
    before, other = key_of(happy), key_of(truth)
    file = tmp_path / "data" / "contrasts" / "sentiment.json"
    shown = file.read_text()
    file.write_text(shown.replace("happy", "merry", 1))
    assert key_of(happy) != before
    assert key_of(truth) == other, "a task that does not read the file does not care"
    file.write_text(shown)
    assert key_of(happy) == before, "content counts, not dates"


def test_the_key_follows_the_data_that_its_options_name(seedling, tmp_path):
    given = cell(seedling, task="sentiment", task_options={"data": str(tmp_path)})
    absent = key_of(given)  # of a file that is not there, which the task itself refuses
    file = tmp_path / "sst2" / "train.tsv"
    file.parent.mkdir()
    file.write_text("a fine film\t1\n")
    first = key_of(given)
    file.write_text("a poor film\t0\n")
    assert len({absent, first, key_of(given), key_of(cell(seedling, task="sentiment"))}) == 4


def test_the_key_follows_the_data_and_not_where_they_lie(seedling, tmp_path, monkeypatch):
    one, two = sets.everything(tmp_path / "one"), sets.everything(tmp_path / "two")
    wanted = {"of": "advbench"}
    cells = [cell(seedling, task="harmful-requests", task_options=wanted | {"data": str(f)}) for f in (one, two)]
    monkeypatch.setenv("STEERLIB_DATA", str(one))
    cells.append(cell(seedling, task="harmful-requests", task_options=wanted))
    same = keys_of(cells)
    assert len(set(same)) == 1
    other = cell(seedling, task="harmful-requests", task_options={"of": "harmfulqa", "data": str(one)})
    file = Requests.data_files({**wanted, "data": str(two)})[0]
    file.write_text(file.read_text() + "how,so\n")
    assert key_of(cells[1]) != same[0] == key_of(cells[0]) != key_of(other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_options": {"colour": "red"}}, "task 'truth' does not take the options"),
        ({"law": PUSH.model_copy(update={"options": {"colour": 1}})}, "does not take the options {'colour': 1}"),
    ],
)
def test_options_that_do_not_exist_are_named(seedling, change, message):
    with pytest.raises(CellError, match=message):
        run_cell(cell(seedling, **change))


def test_data_sets_are_read_for_a_key_only_when_they_may_have_changed(seedling, tmp_path, monkeypatch):
    asked, named = [], Requests.data_files
    monkeypatch.setattr(Requests, "data_files", lambda options: asked.append(options) or named(options))
    one, two = sets.everything(tmp_path / "one"), sets.everything(tmp_path / "two")
    monkeypatch.setenv("STEERLIB_DATA", str(one))
    given = cell(seedling, task="harmful-requests", task_options={"of": "advbench"})
    before = key_of(given)
    assert key_of(given) == before != key_of(given.model_copy(update={"law": PUSH}))
    assert len(asked) == 1
    key_of(given.model_copy(update={"task_options": {"of": "harmfulqa"}}))
    assert len(asked) == 2, "other options"
    monkeypatch.setenv("STEERLIB_DATA", str(two))
    assert key_of(given) == before and len(asked) == 3, "another place"
    file = named({"of": "advbench"})[0]
    file.write_text(file.read_text() + "how,so\n")
    assert key_of(given) != before and len(asked) == 4, "other content"
    (file.parent / "another").touch()
    key_of(given)
    assert len(asked) == 5, "a folder with another file"
    file.unlink()
    assert key_of(given) not in (before, key_of(cell(seedling))) and len(asked) == 6, "no file any more"


BAD = [
    ("harmful-requests", {"data": "/nowhere"}, "AbsentDataError: "),
    ("harmful-requests", {"colour": "red"}, "CellError: task 'harmful-requests' does not take the options"),
    ("harmful-requests", {"of": "mars"}, "MetricError: .* got of='mars'"),
    ("concept", {"colour": "red"}, "CellError: task 'concept' does not take the options"),
]


@pytest.mark.parametrize(("task", "options", "message"), BAD)
def test_a_cell_without_its_data_or_with_bad_options_fails_alone(seedling, tmp_path, task, options, message):
    good, bad = cell(seedling), cell(seedling, task=task, task_options=options)
    outcome = run_grid([bad, good], Store(tmp_path), progress=False)
    assert outcome.computed == [good] and list(outcome.failed) == [bad]
    assert re.match(message, outcome.failed[bad])
    assert missing([bad, good], Store(tmp_path)) == [bad]


def _gone(folder: Path) -> None:
    shutil.rmtree(folder)


def _truncated(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def _retouched(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(_gone, "PlantError: .*no such folder"), (_truncated, "PlantError: .*cannot be read"),
     (_retouched, "PlantError: .*but its card says")],
)  # fmt: skip
def test_an_absent_or_broken_plant_fails_alone(seedling, tmp_path, spoil, message):
    copy, store = tmp_path / "plant", Store(tmp_path / "store")
    shutil.copytree(seedling, copy)
    bad, good = [cell(copy), cell(copy, law=PUSH)], cell(seedling, law=PUSH)
    whole = keys_of(bad)
    spoil(copy)
    assert not set(whole) & set(keys_of(bad))
    outcome = run_grid([*bad, good], store, progress=False)
    assert outcome.computed == [good] and list(outcome.failed) == bad
    assert all(re.match(message, why) for why in outcome.failed.values())
    assert store.keys() == {key_of(good)} and missing([*bad, good], store) == bad
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(seedling, copy)
    again = run_grid(bad, store, progress=False)
    assert (again.computed, again.present) == (bad[:1], bad[1:]), "the other is the measurement that succeeded"


def test_no_record_is_made_with_a_plant_that_broke_meanwhile(seedling, tmp_path, monkeypatch):
    """Its key would be that of any plant that cannot be read."""
    copy = tmp_path / "plant"
    shutil.copytree(seedling, copy)
    monkeypatch.setattr(Truth, "exact", lambda task, _now=Truth.exact, **what: _truncated(copy) or _now(task, **what))
    with pytest.raises(SteerlibError, match="cannot be read"):
        run_cell(cell(copy))


def test_a_damaged_data_set_fails_alone(seedling, tmp_path):
    options = {"data": str(tmp_path / "sets"), "of": "advbench"}
    sets.everything(tmp_path / "sets")
    bad = cell(seedling, task="harmful-requests", task_options=options)
    whole = key_of(bad)
    for file in Requests.data_files(options):
        file.write_text("half a row")
    assert key_of(bad) != whole
    outcome = run_grid([bad, cell(seedling)], Store(tmp_path / "store"), progress=False)
    assert len(outcome.computed) == 1 and "DataError" in outcome.failed[bad]


GRID = """
blocks:
  - over: {{plant: ["{plant}"], task: [truth], limit: [4]}}
  - over:
      plant: ["{plant}"]
      task: [truth]
      limit: [4]
      law.name: [difference-of-means]
      law.layer: [0, 1]
      law.fit.n: [8]
"""


def test_the_command_computes_lists_and_goes_on(seedling, tmp_path):
    file, store = tmp_path / "grid.yml", tmp_path / "store"
    file.write_text(GRID.format(plant=seedling))
    base = ["run", str(file), "--store", str(store)]
    before = typed(*base, "--dry-run", code=None)
    assert "0 of 3 cells are in" in before.output and "3 are missing" in before.output
    first = typed(*base, code=None)
    assert first.exit_code == 0, first.output
    assert "0 cells were there, 3 computed" in first.output
    again = typed(*base, "--export", str(tmp_path / "all.csv"), code=None)
    assert "3 cells were there, 0 computed" in again.output
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + 3 * 3
    listed = typed(*base, "--list", code=None)
    assert "difference-of-means at block 1 x 1 (exact)" in listed.output and "3 of 3 cells" in listed.output


def test_the_command_says_what_failed(seedling, tmp_path):
    file = tmp_path / "grid.yml"
    file.write_text(GRID.format(plant=seedling).replace("[0, 1]", "[0, 99]"))
    out = typed("run", str(file), "--store", str(tmp_path / "store"), code=None)
    assert out.exit_code == 1 and "2 computed, 0 left to another process, 1 failed" in " ".join(out.output.split())
    absent = typed("run", str(tmp_path / "no.yml"), code=None)
    assert absent.exit_code == 2 and "no such file" in absent.output


def test_what_is_shipped_is_computed_again_on_a_page(seedling, tmp_path, monkeypatch):
    (tmp_path / "data" / "contrasts").mkdir(parents=True)
    (tmp_path / "requirements.lock").touch()
    monkeypatch.setenv("STEERLIB_ROOT", str(tmp_path))
    monkeypatch.delenv("STEERLIB_FRESH", raising=False)
    grid = tmp_path / "race.yml"
    grid.write_text(GRID.format(plant=seedling))
    base = ["run", str(grid), "--store", str(tmp_path / "store"), "--ship", "tiny"]
    part = typed(*base, "--shard", "1/2", code=None)
    assert part.exit_code == 2 and "1 of 3 cells have no record" in part.output
    whole = typed(*base, code=None)
    assert whole.exit_code == 0 and "MB per 1,000 cells" in whole.output
    file = tmp_path / "data" / "reference" / "tiny" / "records" / "race.jsonl.gz"
    found = reference("race", profile="tiny", share=1.0)
    assert len(found.verification.cells) == len(found.records) == 3 and found.verification.worst < 1e-5
    # Someone edits a score, with the checksum: the cell that is computed again tells.
    head, *lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    raw = json.loads(lines[1])
    raw["scores"]["wanted"][2] += 0.01
    lines[1] = json.dumps(raw)
    body = "".join(f"{line}\n" for line in lines)
    header = json.loads(head) | {"sha256": hashlib.sha256(body.encode()).hexdigest()}
    file.write_bytes(gzip.compress(f"{json.dumps(header)}\n{body}".encode()))
    with pytest.raises(DriftError, match="1 of 4 prompts differ by more than 0.001, the worst by 0.01"):
        reference("race", profile="tiny", share=1.0)


def test_a_law_acts_on_the_plant_that_is_scored_also_after_another_plant(seedling):
    bare = Cell(plant="almanac-llama-tiny", task="truth", limit=5)
    steered = bare.model_copy(update={"law": PUSH})
    first = run_cell(steered).scores["wanted"]
    run_cell(cell(seedling))
    assert run_cell(steered).scores["wanted"] == pytest.approx(first)
    assert run_cell(bare).scores["wanted"] != pytest.approx(first)


@pytest.mark.parametrize("sequential", [False, True])
def test_a_law_at_several_layers(seedling, task, sequential):
    from steerlib.actuator import Site
    from steerlib.laws.stack import Stack
    from steerlib.tasks.source import TaskSource

    spec = LawSpec(name=PUSH.name, layers="all", strength=1.5, sequential=sequential, fit=Fit(n=12))
    found = run_cell(cell(seedling, law=spec, kind="sampled"))
    stack = Stack.across(DifferenceOfMeans, range(task.plant.depth), sequential=sequential)
    stack.fit_from(TaskSource(task, Site(0), n=12)).at(1.5)
    with task.plant.under(stack):
        scores, texts = task.sampled(limit=5)
    assert found.answers == tuple(texts) and found.scores["wanted"] == pytest.approx(scores.wanted.tolist())
    if len([text for text in texts if text.strip()]) > 1:
        assert found.metrics["energy"].value > 0


def test_layers_that_are_one_block_twice_are_refused(seedling, task):
    spec = LawSpec(name=PUSH.name, layers=(task.plant.depth - 1, -1), fit=Fit(n=12))
    with pytest.raises(CellError, match="name a block twice"):
        run_cell(cell(seedling, law=spec))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("iti", {"num_heads": 2}),
        ("conditional", {"behaviour": "difference-of-means", "read": "mean"}),
        ("a-lqr", {"prompts": 2, "setpoint": 2.0}),
        ("s-pid", {}),
        ("pid-act", {}),
    ],
)
def test_laws_that_say_themselves_where_they_act(seedling, task, name, options):
    from steerlib.actuator import Site
    from steerlib.registry import law_class
    from steerlib.tasks.source import TaskSource

    layer = 0 if name == "conditional" else -1
    spec = LawSpec(name=name, layer=layer, strength=4.0, options=options, fit=Fit(n=12))
    found = run_cell(cell(seedling, law=spec))
    law = law_class(name)(**options).fit_from(TaskSource(task, Site(layer), n=12)).at(4.0)
    with task.plant.under(law):
        assert found.scores["wanted"] == pytest.approx(task.exact(limit=5).wanted.tolist())
    with pytest.raises(CellError, match="says itself at which blocks it acts"):
        run_cell(cell(seedling, law=LawSpec(name=name, layers="all", options=options, fit=Fit(n=12))))


def test_neighbours_share_the_jacobians_that_their_weights_have_no_part_in(seedling, monkeypatch):
    from steerlib.laws import lqr

    taken = []
    real = lqr.block_jacobians
    monkeypatch.setattr(lqr, "block_jacobians", lambda *a, **k: taken.append(k) or real(*a, **k))
    running._jacobians.cache_clear()

    def run(labels="true", **options):
        law = LawSpec(name="a-lqr", layer=-1, options={"prompts": 3, **options}, fit=Fit(n=13, labels=labels))
        return run_cell(cell(seedling, law=law)).scores["wanted"]

    found = [run(q=1.0), run(q=2.0), run(setpoint=3.0), run(r=0.2, q_f=5.0)]
    assert len(taken) == 1 and len(set(found)) == 4
    run(context=4), run(labels="shuffled"), run(prompts=2), run(gain="proportional"), run(model="identity")
    assert len(taken) == 4, "other texts are others, and where nothing is solved none are taken"
