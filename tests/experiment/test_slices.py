"""Which records are computed again: one of each law each time, and every one within a known number of builds."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlib.experiment.cells import Cell, Fit, LawSpec
from steerlib.experiment.slices import (
    group_of,
    law_of,
    next_ones,
    rounds,
    slice_of,
    slice_of_race,
    slices_of_files,
)
from steerlib.experiment.verification import verify
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


COUNTS = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(sum)


@settings(deadline=None, max_examples=40)
@given(COUNTS, st.floats(0.001, 1.0), st.integers(0, 10**6))
def test_a_slice_has_its_share_and_every_law(counts, share, seed):
    cells = cells_of(counts)
    found = slice_of(cells, share=share, seed=seed)
    assert {group_of(cell) for cell in found} == {group_of(cell) for cell in cells}
    assert len(found) == max(math.ceil(share * len(cells)), sum(count > 0 for count in counts))
    places = [place for place, cell in enumerate(cells) if any(cell is one for one in found)]
    assert [id(cells[place]) for place in places] == [id(cell) for cell in found], "in the order given, none twice"
    assert [id(cell) for cell in slice_of(cells, share=share, seed=seed)] == [id(cell) for cell in found]


@settings(deadline=None, max_examples=30)
@given(COUNTS, st.integers(0, 10**6))
def test_every_cell_of_a_grid_has_its_turn(counts, first):
    """No draw is wasted: of a law with n cells, n builds look at each once."""
    cells = cells_of(counts)
    for count in set(counts):
        drawn = Counter(
            cell
            for seed in range(first, first + count)
            for cell in slice_of(cells, share=1e-9, seed=seed)
            if counts[LAWS.index(cell.law and cell.law.model_copy(update={"strength": 1.0}))] == count
        )
        assert set(drawn.values()) <= {1} and len(drawn) == count * counts.count(count)


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(20)), st.integers(0, 99))
def test_a_part_does_not_depend_on_the_order_in_the_file(order, seed):
    cells = cells_of([5, 6, 7, 2])
    mixed = [cells[n] for n in order]
    assert set(slice_of(mixed, share=0.4, seed=seed)) == set(slice_of(cells, share=0.4, seed=seed))
    assert set(slice_of_race(mixed, seed=seed)) == set(slice_of_race(cells, seed=seed))


def test_the_share_goes_round_with_the_laws():
    cells = cells_of([0, 30, 0, 0])
    drawn = Counter(cell for seed in range(30) for cell in slice_of(cells, share=0.2, seed=seed))
    assert set(drawn) == set(cells) and sum(drawn.values()) == 30 * 6


def test_neighbours_in_a_file_are_not_neighbours_in_time():
    """Fits come seed by seed and strength by strength: a rotation in that order would look at one layer for weeks."""
    cells = [PUSH.model_copy(update={"layer": layer, "strength": k}) for layer in range(5) for k in range(20)]
    cells = [Cell(plant="p", task="truth", law=law) for law in cells]
    layers = [cell.law.layer for seed in range(10) for cell in slice_of(cells, share=1e-9, seed=seed)]
    assert len(set(layers)) > 2


def test_one_cell_of_a_law_is_enough_whatever_it_is_fitted_for():
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
    assert len(set(groups)) == 5, "rows of a table"
    assert len({law_of(cell) for cell in cells}) == 2
    slices = [slice_of(cells, seed=seed) for seed in range(6)]
    assert all([law_of(cell) for cell in part] == [law_of(truth), law_of(cells[-1])] for part in slices)
    assert {cell for part in slices for cell in part} == set(cells), "and every task has its turn"


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, math.nan])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="expected more than 0 and at most 1"):
        slice_of(cells_of([3]), share=share, seed=0)


def test_of_nothing_nothing_is_drawn():
    assert slice_of([], seed=3) == slice_of_race([], seed=3) == next_ones([], 2, seed=3) == []


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 10**6))
def test_the_next_ones_go_round(count, size, first):
    cells = cells_of([0, size, 0, 0])
    parts = [next_ones(cells, count, seed=seed) for seed in range(first, first + math.ceil(size / count))]
    assert all(len(part) == len(set(part)) == min(count, size) for part in parts)
    assert {n for part in parts for n in part} == set(range(size))


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


def place_of(cell):
    return cell.plant, cell.task, cell.law.fit.seed


def test_of_a_race_one_cell_of_each_law_is_drawn_from_one_place():
    cells = race_cells()
    places, splits = [], set()
    for seed in range(24):
        found = slice_of_race(cells, seed=seed)
        assert found == [cell for cell in cells if cell in found], "in the order given"
        steered = [cell for cell in found if cell.law is not None]
        laws = sorted((cell.law.name, cell.law.fit.labels) for cell in steered)
        assert laws == sorted(itertools.product(("difference-of-means", "mimic"), ("true", "shuffled")))
        assert sorted(cell.told for cell in found if cell.law is None) == [False, True]
        (place,) = {place_of(cell) for cell in steered}
        assert {(cell.plant, cell.task) for cell in found} == {place[:2]}, "the unsteered plant's ends are of the place"
        places.append(place)
        splits |= {cell.split for cell in steered}
        assert found == slice_of_race(cells, seed=seed)
    assert len(set(places)) == 12 and places[:12] == places[12:], "every place has its turn, and comes back"
    assert splits == {"validation", "test"}


def test_a_law_that_does_not_run_there_is_drawn_from_elsewhere():
    cells = [c for c in race_cells() if c.law is None or c.law.name != "mimic" or (c.plant, c.task) == ("q", "truth")]
    for seed in range(20):
        names = {cell.law.name for cell in slice_of_race(cells, seed=seed) if cell.law is not None}
        assert names == {"difference-of-means", "mimic"}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_every_cell_of_a_race_has_its_turn(mixed, first):
    """Also where laws and the unsteered plant are missing at some places, and a task is run without any law."""
    rng = np.random.default_rng(mixed)
    whole = [*race_cells(), *(Cell(plant="p", task="concept", kind="sampled", seed=k) for k in range(3))]
    cells = [whole[n] for n in rng.permutation(len(whole))[: int(rng.integers(1, len(whole) + 1))]]
    places = {place_of(cell) for cell in cells if cell.law is not None}
    most = max(Counter((place_of(c), law_of(c)) if c.law else (c.plant, c.task, c.told) for c in cells).values())
    bare = {(cell.plant, cell.task) for cell in cells if cell.law is None} - {place[:2] for place in places}
    builds = range(first, first + (len(places) + len(bare)) * most)
    assert {cell for seed in builds for cell in slice_of_race(cells, seed=seed)} == set(cells)


def test_the_records_of_a_race_are_verified_by_its_own_part():
    records = [toys.record(cell) for cell in race_cells()]
    asked = []

    def compute(cell):
        asked.append(cell)
        return toys.record(cell)

    found = verify(records, race=True, seed=3, compute=compute)
    assert asked == slice_of_race([record.cell for record in records], seed=3) and len(asked) == 6
    assert found.total == len(records)


# ---- of several files ----------------------------------------------------------------------------


def file_of(name, counts, places=1):
    """A file of its own task: so many cells of each law at each of so many seeds of the fit."""
    return [
        Cell(
            plant=name,
            task="truth",
            law=law.model_copy(update={"strength": k / 8, "fit": law.fit.model_copy(update={"seed": place})})
            if law
            else None,
            limit=k + 2,
        )
        for law, count in zip(LAWS, counts, strict=True)
        for place in range(places if law else 1)
        for k in range(count)
    ]


FILES = st.lists(
    st.tuples(st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(sum), st.integers(1, 3), st.booleans()),
    min_size=1,
    max_size=4,
)
RESTS = st.dictionaries(st.sampled_from([law_of(file_of("p", [0, 1, 0, 0])[0]), ("random-direction", "true")]),
                        st.integers(2, 4))  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(FILES, RESTS, st.integers(0, 10**6))
def test_every_cell_of_every_file_has_its_turn_within_the_stated_number_of_builds(told, rests, first):
    files = [file_of(f"p{n}", counts, places) for n, (counts, places, _) in enumerate(told)]
    races = [race for *_, race in told]
    most = rounds(files, races, rests=rests)
    builds = [slices_of_files(files, races, seed=seed, rests=rests) for seed in range(first, first + most)]
    assert {cell for parts in builds for part in parts for cell in part} == {cell for file in files for cell in file}
    for parts in builds[:6]:
        for file, part in zip(files, parts, strict=True):
            assert part == [cell for cell in file if cell in part] and part, "in the order given, and never nothing"


def test_a_law_of_several_files_is_drawn_once_in_a_build_and_the_files_take_turns():
    files = [file_of(name, [2, 3, 1, 2]) for name in "pqr"] + [file_of("s", [1, 0, 0, 4])]
    seen = Counter()
    for seed in range(12):
        parts = slices_of_files(files, [False] * 4, seed=seed)
        laws = [law_of(cell) for part in parts for cell in part if cell.law is not None]
        assert sorted(laws) == sorted({law_of(cell) for file in files for cell in file if cell.law is not None})
        assert [sum(cell.law is None for cell in part) for part in parts] == [1] * 4, "of every file the plant alone"
        seen.update((cell.plant, law_of(cell)) for part in parts for cell in part if cell.law is not None)
        assert len({cell.plant for part in parts for cell in part if cell.law is not None}) > 1, "not all from one file"
    assert seen["s", ("random-direction", "true")] == 3, "one of four files"
    assert all(seen[name, law_of(files[0][3])] == 4 for name in "pqr"), "one of three"


def test_the_bound_by_hand():
    one, other = file_of("p", [1, 2, 0, 0]), file_of("q", [1, 5, 0, 0])
    assert rounds([one], [False]) == 2 and rounds([other], [False]) == 5
    assert rounds([one, other], [False, False]) == 10, "five cells, every second build one of them"
    law = law_of(one[-1])
    assert rounds([one, other], [False, False], rests={law: 3}) == 30
    race = file_of("r", [1, 4, 0, 0], places=3)
    assert rounds([race], [True]) == 12, "three places, four cells at each"
    assert rounds([race], [True], rests={law: 2}) == 12, "a turn in two builds, but two cells then"
    assert rounds([race], [True], rests={law: 3}) == 24, "four steps round three places, since three turns meet two"


def test_a_law_that_rests_comes_back_with_as_many_cells_of_one_place():
    race = file_of("p", [0, 6, 0, 2], places=2)
    dear = law_of(race[0])
    drawn = [slices_of_files([race], [True], seed=seed, rests={dear: 3})[0] for seed in range(30)]
    steered = [[cell for cell in part if law_of(cell) == dear] for part in drawn]
    assert [len(part) for part in steered] == [3, 0, 0] * 10
    assert all(len({cell.law.fit.seed for cell in part}) == 1 for part in steered if part)
    assert all(sum(law_of(cell) != dear for cell in part) == 1 for part in drawn), "the others have theirs in each"


def test_a_file_from_which_nothing_is_due_gives_its_next_cell():
    with_plant, without = file_of("p", [1, 4, 0, 0]), file_of("q", [0, 4, 0, 0])
    parts = [slices_of_files([with_plant, without], [False, False], seed=seed)[1] for seed in range(8)]
    assert [len(part) for part in parts] == [1] * 8
