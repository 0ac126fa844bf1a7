"""Two races in one table: only where both asked the same; and grids as entries, seeds in order."""

from __future__ import annotations

import numpy as np
import pytest

from steerlib.experiment import race_tables
from steerlib.experiment.cells import Cell, Fit, LawSpec
from steerlib.experiment.methods import controls_of
from steerlib.experiment.race_joined import beside, grouped, on_shared_seeds, seed_of
from steerlib.experiment.races import Race, horse_race
from steerlib.experiment.selecting import RaceError
from tests.experiment.racetrack import Runner, method, spend
from tests.experiment.toys import record


def race(name: str, seeds: tuple[int, ...], **more) -> Race:
    methods = [method(name), *controls_of(method(name))]
    settings = {"plant": "toy", "task": "truth", "limit": 30, "keep": 0.85, **more}
    return horse_race(methods, run=Runner(), spend=spend(0.05), seeds=seeds, **settings)


def test_methods_of_another_race_come_on_the_seeds_of_this_one() -> None:
    ours, theirs = race("push", (2, 0)), race("shove", (0, 1, 2, 3))
    names = ["shove", "shove: shuffled labels"]
    both = beside(ours, theirs, names)
    assert [e.name for e in both.entries[: len(ours.entries)]] == [e.name for e in ours.entries]
    for setting in ("own", "budget"):
        entry, whole = (race_tables.entry_of(one, "shove", setting) for one in (both, theirs))
        assert [seed_of(r.cell) for r in entry.records] == [2, 0]
        expected = race_tables.scores(whole, "wanted")[[2, 0]]
        np.testing.assert_array_equal(race_tables.scores(entry, "wanted"), expected)
        assert len({map(tuple, expected)}) == 1 and not np.array_equal(expected[0], expected[1])
    spent = race_tables.entry_of(both, "shove", "budget").calibrations
    assert spent == tuple(race_tables.entry_of(theirs, "shove", "budget").calibrations[i] for i in (2, 0))
    assert race_tables.entry_of(both, names[1], "own").control
    against = race_tables.gain(race_tables.entry_of(both, "shove", "own"), race_tables.entry_of(both, "push", "own"))
    assert against.value == pytest.approx(0, abs=1e-12), "one law under two names"
    assert "shove" in race_tables.paper_table(both, "budget").index


@pytest.mark.parametrize("kind", ["exact", "sampled"])
def test_a_race_can_be_cut_to_the_seeds_that_another_has(kind: str) -> None:
    whole, theirs = race("push", (3, 2, 0), kind=kind), race("shove", (0, 1, 3), kind=kind)
    cut = on_shared_seeds(whole, theirs)
    for entry, full in zip(cut.entries, whole.entries, strict=True):
        assert entry.records == tuple(full.records[place] for place in (0, 2))
        assert entry.calibrations == tuple(full.calibrations[place] for place in (0, 2) if full.calibrations)
    assert [seed_of(r.cell) for r in race_tables.entry_of(cut, "push", "own").records] == [3, 0]
    both = beside(cut, theirs, ["shove"])
    assert [seed_of(r.cell) for r in race_tables.entry_of(both, "shove", "own").records] == [3, 0]
    assert on_shared_seeds(theirs, theirs) == theirs
    with pytest.raises(RaceError, match=r"share no seed: got \[3, 2, 0\] and \[1\]"):
        on_shared_seeds(whole, race("shove", (1,), kind=kind))


@pytest.mark.parametrize(
    ("other", "names", "words"),
    [
        (race("shove", (0, 1)), ["shave"], "shave.*mean shove"),
        (race("push", (0, 1)), ["push"], "'push' in both races"),
        (race("shove", (0, 1), limit=20), ["shove"], "lacks the unsteered cell"),
        (race("shove", (0, 1), task="toxicity"), ["shove"], "lacks the unsteered cell"),
        (race("shove", (0, 1), kind="sampled"), ["shove"], "lacks the unsteered cell"),
        (race("shove", (0, 3)), ["shove"], "was not run under seed 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(other: Race, names: list[str], words: str) -> None:
    with pytest.raises(RaceError, match=words):
        beside(race("push", (0, 1)), other, names)


def test_a_method_that_did_not_run_comes_with_its_reason() -> None:
    theirs = race("shove", (0, 1), keep=1.0)
    both = beside(race("push", (0,)), theirs, ["shove"])
    entry = race_tables.entry_of(both, "shove", "own")
    assert not entry.records and entry.note.startswith("none of 6 candidates keeps")


def cell(seed: int, setpoint: float | None = 1.0, labels: str = "true") -> Cell:
    law = None
    if setpoint is not None:
        fit = Fit(n=10, seed=seed, labels=labels)  # type: ignore[arg-type]
        law = LawSpec(name="a-lqr", layer=-1, options={"setpoint": setpoint}, fit=fit)
    return Cell(plant="toy", task="truth", kind="sampled", seed=seed, law=law)


def named(one: Cell) -> str:
    if one.law is None:
        return "unsteered"
    return f"λ {one.law.options['setpoint']:g}" + (", shuffled" if one.law.fit.labels != "true" else "")


def test_cells_of_a_grid_become_entries_in_the_order_of_seeds() -> None:
    cells = [cell(1), cell(0), cell(0, None), cell(1, None), cell(0, 2.0, "shuffled"), cell(1, 2.0, "shuffled")]
    made = [record(c, scores={"wanted": (0.1 * seed_of(c), 1.0), "intact": (1.0, 1.0)}) for c in cells]
    found = grouped(made, named)
    assert list(found) == ["λ 1", "unsteered", "λ 2, shuffled"]
    np.testing.assert_allclose(race_tables.scores(found["λ 1"], "wanted"), [[0.0, 1.0], [0.1, 1.0]])
    assert [found[n].setting for n in found] == ["own", "none", "own"] and found["λ 2, shuffled"].control
    assert list(grouped(made, lambda c: "" if c.law else "unsteered")) == ["unsteered"]


def test_grids_with_holes_or_doubles_are_refused() -> None:
    with pytest.raises(RaceError, match="two records under seed 0"):
        grouped([record(cell(0)), record(cell(0, 2.0))], lambda _: "all")
    with pytest.raises(RaceError, match="other seeds for other names"):
        grouped([record(cell(0)), record(cell(1)), record(cell(0, 2.0))], named)
