"""A part of what is shipped is computed again: the right part, by the right rule, and drift stops the page."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlib.experiment import keys
from steerlib.experiment.cell_records import Metric
from steerlib.experiment.cells import Cell, Fit, LawSpec, key_from
from steerlib.experiment.page import Page
from steerlib.experiment.recompute import FRESH, StaleError, reference
from steerlib.experiment.shipped import ShippedError, ship
from steerlib.experiment.store import Store
from steerlib.experiment.verification import (
    SLICE_SEED,
    DriftError,
    build_seed,
    compare,
    group_of,
    slice_of,
    slice_of_race,
    verify,
)
from steerlib.experiment.verified import VERIFIED, Report, Verified
from steerlib.tasks.base import spread
from tests.experiment import toys

PUSH = LawSpec(name="difference-of-means", layer=1, fit=Fit(n=8))
SHUFFLED = PUSH.model_copy(update={"fit": Fit(n=8, labels="shuffled")})
LAWS = [None, PUSH, SHUFFLED, LawSpec(name="random-direction", layer=1, fit=Fit(n=8))]


def cells_of(counts):
    """So many cells of each law."""
    return [
        Cell(plant="p", task="truth", law=law.model_copy(update={"strength": k / 8}) if law else None, limit=k + 2)
        for law, count in zip(LAWS, counts, strict=False)
        for k in range(count)
    ]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(sum), st.floats(0.001, 1.0), st.integers(0, 99))
def test_a_slice_has_its_share_and_every_law(counts, share, seed):
    cells = cells_of(counts)
    found = slice_of(cells, share=share, seed=seed)
    assert {group_of(cell) for cell in found} == {group_of(cell) for cell in cells}
    assert len(found) == max(math.ceil(share * len(cells)), sum(count > 0 for count in counts))
    places = [place for place, cell in enumerate(cells) if any(cell is one for one in found)]
    assert [id(cells[place]) for place in places] == [id(cell) for cell in found], "in the order given, none twice"
    assert [id(cell) for cell in slice_of(cells, share=share, seed=seed)] == [id(cell) for cell in found]


def test_a_law_fitted_for_another_task_is_another_law():
    for_sea = {"task": "concept", "task_options": {"concept": "the sea"}}
    truth = Cell(plant="p", task="truth", law=PUSH)
    other = Cell(plant="p", task="utility", law=PUSH.model_copy(update={"fit": Fit(n=8, task="truth")}))
    cells = [
        truth, Cell(plant="p", task="toxicity", law=PUSH), other,
        *(Cell(plant="p", law=PUSH, **(for_sea | {"task_options": {"concept": c}})) for c in ("the sea", "war")),
        Cell(plant="p", task="utility", law=PUSH.model_copy(update={"fit": Fit(n=8, **for_sea)})),
        Cell(plant="p", task="truth", law=SHUFFLED),
    ]  # fmt: skip
    groups = [group_of(cell) for cell in cells]
    assert groups[0] == groups[2] == "difference-of-means for truth", "one law, scored on two behaviours"
    assert groups[3] == groups[5] == "difference-of-means for concept the sea"
    assert len(set(groups)) == 5
    assert {group_of(cell) for cell in slice_of(cells * 10, share=0.01, seed=0)} == set(groups)


def test_slices_differ_and_reach_every_cell():
    cells = cells_of([3, 20, 5, 5])
    slices = [tuple(map(id, slice_of(cells, seed=seed))) for seed in range(300)]
    assert {place for part in slices for place in part} == set(map(id, cells))
    assert len(set(slices)) > 100


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, math.nan])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="expected more than 0 and at most 1"):
        slice_of(cells_of([3]), share=share, seed=0)


def exact(cell, scores, **change):
    return toys.record(cell, scores={"wanted": tuple(scores), "intact": (1.0,) * len(scores)}, **change)


CELL = Cell(plant="p", task="truth")
SCORES = tuple(np.linspace(0.0, 0.9, 10).tolist())


@pytest.mark.parametrize(
    ("moved", "flips", "drifts"),
    [([], 0, False), ([9e-4] * 10, 0, False), ([0.0, 1.1e-3], 0, True), ([-1.1e-3], 0, True), ([0.5], 1, False),
     ([0.5, 0.5], 1, True), ([math.nan], 0, True)],
)  # fmt: skip
def test_exact_scores_agree_prompt_by_prompt(moved, flips, drifts):
    now = [score + move for score, move in zip(SCORES, [*moved, *[0.0] * (10 - len(moved))], strict=True)]
    found = verify([exact(CELL, SCORES)], compute=lambda cell: exact(cell, now), flips=flips, seed=0)
    assert bool(found.drifted) is drifts
    assert found.cells[0].prompts == 10 and found.total == 1
    if drifts:
        with pytest.raises(
            DriftError, match=r"1 of 1 recomputed cells disagree(.|\n)*p: truth, unsteered(.|\n)*=0 make"
        ):
            found.check()
    else:
        found.check()


def test_a_fault_that_means_hide_is_found():
    swapped = (SCORES[1], SCORES[0], *SCORES[2:])
    assert verify([exact(CELL, SCORES)], compute=lambda cell: exact(cell, swapped), seed=0).drifted


def test_a_long_cell_is_computed_in_part_and_the_right_prompts_are_compared():
    scores = tuple(np.random.default_rng(0).random(503).tolist())
    asked = []

    def compute(cell):
        asked.append(cell.limit)
        return exact(cell, spread(scores, cell.limit))

    found = verify([exact(CELL, scores)], compute=compute, seed=0)
    assert asked == [200] and not found.drifted and found.cells[0].prompts == 200 and found.cells[0].cell == CELL
    limited = CELL.model_copy(update={"limit": 503})  # which prompts these are is not known from their number
    verify([exact(limited, scores)], compute=compute, seed=0)
    assert asked == [200, 503]


@pytest.mark.parametrize(("mean", "drifts"), [(0.5, False), (0.26, False), (0.74, False), (0.2, True), (0.8, True)])
def test_sampled_means_stay_in_their_interval(mean, drifts):
    cell = CELL.model_copy(update={"kind": "sampled", "seed": 2})
    then = toys.record(cell)  # 0.5 in [0.25, 0.75]
    metric = Metric(value=mean, low=mean, high=mean, n=2)
    found = verify([then], compute=lambda one: toys.record(one, metrics={"wanted": metric}), seed=0)
    assert bool(found.drifted) is drifts
    assert not drifts or "outside [0.25, 0.75] by more than 0.001" in found.drifted[0].drift


@pytest.mark.parametrize(
    ("name", "then", "now", "drifts"),
    [("energy", 400.0, 400.3, False), ("energy", 400.0, 400.5, True), ("energy", 400.0, 399.5, True),
     ("energy", 0.0, 5e-7, False), ("energy", 0.0, 1e-4, True),  # the plant left alone
     ("kl", 2e-3, 2.001e-3, False), ("kl", 2e-3, 2.5e-3, True), ("kl-p95", 0.5, 0.5004, False),
     ("dist-1", 0.5, 0.5009, False), ("dist-1", 0.5, 0.502, True), ("kl", 0.5, math.nan, True)],
)  # fmt: skip
def test_how_far_a_mean_may_move_depends_on_the_metric(name, then, now, drifts):
    """Of an interval without width, as that of a constant push's energy, only the tolerance is left."""
    cell = CELL.model_copy(update={"kind": "sampled"})

    def of(value):
        return toys.record(cell, metrics={name: Metric.model_construct(value=value, low=value, high=value, n=2)})

    assert bool(compare(of(then), of(now)).drift) is drifts
    assert bool(compare(of(now), of(then)).drift) is drifts


def test_a_metric_that_is_lacking_is_drift_and_the_others_are_still_compared():
    cell = CELL.model_copy(update={"kind": "sampled"})
    then = toys.record(cell, metrics={n: Metric(value=0.5, low=0.4, high=0.6, n=2) for n in ("kl", "wanted")})
    now = toys.record(cell, metrics={"wanted": Metric(value=0.9, low=0.9, high=0.9, n=2)})
    found = compare(then, now)
    assert found.drift == (
        "kl was 0.5, and is not among what was computed now; wanted is 0.9, outside [0.4, 0.6] by more than 0.001"
    )
    assert found.worst == math.inf
    more = now.model_copy(update={"metrics": {**then.metrics, "energy": now.metrics["wanted"]}})
    assert not compare(then, more).drift, "what is measured besides says nothing against the record"


def test_the_worst_of_a_sampled_cell_is_not_the_metric_with_the_largest_unit():
    cell = CELL.model_copy(update={"kind": "sampled"})
    then = {"energy": Metric(value=400, low=300, high=500, n=2), "wanted": Metric(value=0.5, low=0.4, high=0.6, n=2)}
    now = {"energy": then["energy"].model_copy(update={"value": 404.0}),
           "wanted": then["wanted"].model_copy(update={"value": 0.55})}  # fmt: skip
    assert compare(toys.record(cell, metrics=then), toys.record(cell, metrics=now)).worst == pytest.approx(0.05)


def test_what_cannot_be_compared_is_drift():
    then = exact(CELL, SCORES)

    def broken(_):
        raise RuntimeError("no memory")

    other = toys.PROVENANCE.model_copy(update={"weights": "other"})
    for compute, why in (
        (broken, "cannot be computed: RuntimeError: no memory"),
        (lambda cell: exact(cell, SCORES[:4]), "4 prompts were scored, expected 10"),
        (lambda cell: exact(cell, SCORES, provenance=other), "computed from other weights"),
    ):
        assert verify([then], compute=compute, seed=0).drifted[0].drift == why


def test_the_seed_is_that_of_the_build(monkeypatch):
    monkeypatch.setenv(SLICE_SEED, "17")
    assert build_seed() == 17
    assert verify([exact(CELL, SCORES)], compute=lambda cell: exact(cell, SCORES)).seed == 17
    monkeypatch.setenv(SLICE_SEED, "today")
    with pytest.raises(ValueError, match="got 'today', expected a whole number"):
        build_seed()
    monkeypatch.delenv(SLICE_SEED)
    assert len({build_seed() for _ in range(5)}) > 1


# ---- pages ------------------------------------------------------------------------------------------


@pytest.fixture
def code(monkeypatch):
    """The hash of each law's code; a test may change it."""
    table = {}

    def of(cell):
        name = cell.law.name if cell.law else ""
        return {"weights": "w", "data": "", "code": table.get(name, "c"), "versions": {}}

    monkeypatch.setattr(keys, "present_parts", lambda **_: of)
    for name in (FRESH, VERIFIED, SLICE_SEED):
        monkeypatch.delenv(name, raising=False)
    return table


GRID = cells_of([2, 20, 3, 5])


def made(cell, **change):
    scores = (0.25, 0.5) if cell.law is None else (0.25, cell.law.strength / 8)
    return exact(cell, scores, key=key_from(cell, keys.present_parts()(cell)), **change)


@pytest.fixture
def file(code, tmp_path):
    del code
    store = Store(tmp_path / "store")
    for cell in GRID:
        store.put(made(cell))
    return ship(store, GRID, tmp_path / "reference" / "tiny" / "records" / "push.jsonl.gz")


def test_a_page_shows_records_after_some_were_computed_again(file, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLIB_RECORDS", str(tmp_path / "page.json"))
    page = Page("01_x", profile="tiny", plant="p", seeds=0)
    asked = []

    def compute(cell):
        asked.append(cell)
        return made(cell)

    found = reference("push", profile="tiny", page=page, path=file, compute=compute, seed=5)
    assert asked == slice_of(GRID, seed=5) == [again.cell for again in found.verification.cells]
    assert [record.cell for record in found.records] == GRID
    frame = found.frame
    assert len(frame) == len(GRID) and set(frame.law) == {"unsteered", "difference-of-means", "random-direction"}
    assert "**4 of 30** shipped records of `push` were computed again, drawn with seed 5: " in found.line
    assert all(cell.title in found.line for cell in asked) and "stale" not in found.line
    assert page.record_file.texts == {"push.recomputed": found.line, "push.stale": "0 of 30"}
    assert found.verification.frame()["recomputed cell"].tolist() == [cell.title for cell in asked]


def test_drift_stops_the_page(file, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLIB_RECORDS", str(tmp_path / "page.json"))
    page = Page("01_x", profile="tiny", plant="p", seeds=0)

    def compute(cell):
        return made(cell) if group_of(cell) != "random-direction for truth" else exact(cell, (0.25, 0.9))

    with pytest.raises(
        DriftError, match=r"1 of 4 recomputed cells disagree(.|\n)*random-direction at block 1"
    ) as raised:
        reference("push", profile="tiny", page=page, path=file, compute=compute)
    assert "difference-of-means" not in str(raised.value)
    assert page.record_file.texts == {}


def test_stale_records_are_said_and_not_shown(file, code):
    code["random-direction"] = "edited"
    found = reference("push", profile="tiny", path=file, compute=made)
    assert {record.cell for record in found.records} == {c for c in GRID if group_of(c) != "random-direction for truth"}
    assert "**5 stale records are not shown** (changed since: the code of the law or the task)" in found.line
    assert all(group_of(again.cell) != "random-direction for truth" for again in found.verification.cells)
    for name in ("", "difference-of-means"):
        code[name] = "edited"
    with pytest.raises(
        StaleError, match=r"all 30 shipped records of 'push' are stale \(changed since: (.|\n)*--ship tiny"
    ):
        reference("push", profile="tiny", path=file, compute=made)


def test_a_fresh_build_shows_what_it_computed_and_compares_all(file, code, tmp_path, monkeypatch):
    code["random-direction"] = "edited"
    monkeypatch.setenv(FRESH, str(tmp_path / "fresh"))
    fresh = Store(tmp_path / "fresh")
    for cell in GRID[:-1]:
        fresh.put(made(cell, seconds=7.0))
    with pytest.raises(ShippedError, match=r"1 of 30 cells of 'push' are not among those computed in this build"):
        reference("push", profile="tiny", path=file)
    fresh.put(made(GRID[-1], seconds=7.0))
    found = reference("push", profile="tiny", path=file, compute=lambda _: pytest.fail("computed twice"))
    assert {record.cell for record in found.records} == set(GRID) and not found.stale
    assert all(record.seconds == 7.0 for record in found.records)
    assert len(found.verification.cells) == 25, "stale records have nothing to be compared with"
    assert "All 30 cells of `push` were computed anew" in found.line
    first = GRID[3]
    fresh.put(made(first).model_copy(update={"scores": {"wanted": (0.9, 0.9), "intact": (1.0, 1.0)}}))
    with pytest.raises(DriftError, match="1 of 25 recomputed cells disagree"):
        reference("push", profile="tiny", path=file)


@pytest.mark.usefixtures("code")
def test_a_page_takes_over_what_its_build_has_computed_again(file, tmp_path, monkeypatch):
    by_the_build = reference("push", profile="tiny", path=file, compute=made, seed=5)
    digest, line = by_the_build.source.digest, by_the_build.line
    report = Report(key="k", when="now", grids=(Verified("push", digest, line, by_the_build.verification),))
    monkeypatch.setenv(VERIFIED, str(report.write(tmp_path)))
    monkeypatch.setattr("steerlib.experiment.running.run_cell", lambda _: pytest.fail("computed twice"))
    found = reference("push", profile="tiny", path=file)
    assert found.verification == by_the_build.verification and found.line == line
    assert len(reference("push", profile="tiny", path=file, compute=made, seed=6).verification.cells) == 4
    another = report.model_copy(update={"grids": (Verified("push", "other file", line, by_the_build.verification),)})
    another.write(tmp_path)
    asked = []
    monkeypatch.setattr("steerlib.experiment.running.run_cell", lambda cell: asked.append(cell) or made(cell))
    for content in (None, "{", ""):
        if content is not None:
            (tmp_path / "verified.json").write_text(content)
        reference("push", profile="tiny", path=file)
        assert len(asked) == 4, "of other records, or of a file that cannot be read, nothing is believed"
        asked.clear()


def test_a_grid_that_was_never_shipped_names_the_command(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("STEERLIB_ROOT", str(tmp_path))
    with pytest.raises(ShippedError, match=r"no shipped records at .*data/reference/tiny/records/race.jsonl.gz"):
        reference("race", profile="tiny")


# ---- of a race -----------------------------------------------------------------------------------


def race_cells():
    places = list(itertools.product("pq", ("truth", "toxicity")))
    laws = itertools.product((0, 1, 2), ("difference-of-means", "mimic"), ("true", "shuffled"), ("validation", "test"))
    steered = [
        Cell(
            plant=plant,
            task=task,
            split=split,
            law=LawSpec(name=name, layer=1, fit=Fit(seed=seed, labels=labels)),
        )
        for (plant, task), (seed, name, labels, split) in itertools.product(places, list(laws))
    ]
    return steered + [Cell(plant=plant, task=task, told=told) for plant, task in places for told in (False, True)]


def test_of_a_race_one_cell_of_each_law_is_drawn_from_one_place():
    cells = race_cells()
    places, splits = set(), set()
    for seed in range(150):
        found = slice_of_race(cells, seed=seed)
        assert found == [cell for cell in cells if cell in found], "in the order given"
        laws = sorted((cell.law.name, cell.law.fit.labels) for cell in found if cell.law is not None)
        assert laws == sorted(
            (name, labels) for name in ("difference-of-means", "mimic") for labels in ("true", "shuffled")
        )
        assert sorted(cell.told for cell in found if cell.law is None) == [False, True]
        place = {(cell.plant, cell.task, cell.law.fit.seed) for cell in found if cell.law is not None}
        assert len(place) == 1
        places |= place
        splits |= {cell.split for cell in found}
        assert found == slice_of_race(cells, seed=seed)
    assert len(places) == 12 and splits == {"validation", "test"}, "every place has its turn"


def test_a_law_that_does_not_run_there_is_drawn_from_elsewhere():
    cells = [c for c in race_cells() if c.law is None or c.law.name != "mimic" or (c.plant, c.task) == ("q", "truth")]
    for seed in range(20):
        names = {cell.law.name for cell in slice_of_race(cells, seed=seed) if cell.law is not None}
        assert names == {"difference-of-means", "mimic"}


def test_the_records_of_a_race_are_verified_by_its_own_part():
    records = [toys.record(cell) for cell in race_cells()]
    asked = []

    def compute(cell):
        asked.append(cell)
        return toys.record(cell)

    found = verify(records, race=True, seed=3, compute=compute)
    assert asked == slice_of_race([record.cell for record in records], seed=3) and len(asked) == 6
    assert found.total == len(records)
