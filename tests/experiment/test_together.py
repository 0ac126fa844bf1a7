"""What one build draws of several files: dear laws less often, a false record within the stated builds, fits shared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from steerlib.experiment.cells import Cell, Fit, LawSpec
from steerlib.experiment.slices import rounds, slices_of_files
from steerlib.experiment.together import DEAR, FULL, LONGEST, bundles, costs_of, draw_together, rests_of
from steerlib.experiment.verification import Drawn, verify
from tests.experiment import toys

MIMIC, PROBE, PUSH = "mimic", "linear-probe", "difference-of-means"


def cell(name, *, plant="p", layer=1, strength=1.0, seed=0, labels="true", **more):
    law = LawSpec(name=name, layer=layer, strength=strength, fit=Fit(seed=seed, labels=labels)) if name else None
    return Cell(plant=plant, task="truth", law=law, **more)


def records_of(name, *, seconds, fits, **more):
    """One record for each fit, at another strength each."""
    return [
        toys.record(cell(name, strength=1.0 + n, **more), seconds=seconds, fit_seconds=fit)
        for n, fit in enumerate(fits)
    ]


def test_a_fit_costs_what_it_took_where_it_was_made():
    shared = records_of(MIMIC, seconds=1.0, fits=[30.0, 0.0, 0.01, 20.0, 2.5, 40.0])
    assert costs_of([*shared, *records_of(PROBE, seconds=2.0, fits=[0.0, 0.0])]) == {
        (MIMIC, "true"): (1.0, 30.0),
        (PROBE, "true"): (2.0, 0.0),
    }
    assert costs_of([]) == {}


def test_a_law_rests_as_long_as_it_is_dear_where_it_is_cheapest():
    def rest(*seconds):
        files = [records_of(MIMIC, seconds=1.0, fits=[one - 1.0], plant=f"p{n}") for n, one in enumerate(seconds)]
        return rests_of(files).get((MIMIC, "true"), 1)

    assert [rest(DEAR), rest(DEAR + 0.1), rest(3 * DEAR), rest(99 * DEAR)] == [1, 2, 3, LONGEST]
    assert rest(99 * DEAR, 2 * DEAR) == 2 and rest(1.0, 99 * DEAR) == 1


def two_files():
    """A race at three seeds whose dear law is in no other file, and a grid that shares a law with it."""
    strengths = (0.5, 1.0, 2.0)
    race = [
        toys.record(cell(name, strength=strength, seed=seed), fit_seconds=35.0 if name == MIMIC else 0.0)
        for name, strength, seed in itertools.product((MIMIC, PUSH), strengths, range(3))
    ]
    race += [toys.record(cell("", told=told)) for told in (False, True)]
    grid = [toys.record(cell(name, plant="q", layer=layer)) for name in (PUSH, PROBE) for layer in range(3)]
    return [race, grid], [True, False]


def test_what_is_drawn_is_what_has_its_turn():
    files, races = two_files()
    assert rests_of(files) == {(MIMIC, "true"): 4}
    cells = [[record.cell for record in records] for records in files]
    for seed in range(9):
        parts = draw_together(files, races, seed=seed)
        assert [[one.cell for one in part] for part in parts] == slices_of_files(
            cells, races, seed=seed, rests=rests_of(files)
        )


def test_a_long_cell_is_asked_in_part():
    scores = {name: tuple(np.linspace(0, 1, 503)) for name in ("wanted", "intact")}
    ((one,),) = draw_together([[toys.record(cell(""), scores=scores)]], [False], seed=0, prompts=50)
    assert one.cell.limit == 50 and {len(column) for column in one.record.scores.values()} == {50}


@pytest.mark.parametrize("number", range(26))
def test_a_false_record_is_found_within_the_stated_number_of_builds(number):
    """Wherever it lies, in a race or in a grid, of a law that rests or of one that two files share."""
    files, races = two_files()
    truth = {record.cell: record for records in files for record in records}
    assert len(truth) == 26
    wrong = list(truth)[number]
    false = truth[wrong].model_copy(update={"scores": {**truth[wrong].scores, "wanted": (0.25, 0.76)}})
    shipped = [[false if record.cell == wrong else record for record in records] for records in files]
    most = rounds([[record.cell for record in records] for records in files], races, rests=rests_of(files))
    assert most <= 60
    first = 17 * number
    found = [
        any(verify(records, seed=seed, part=part, compute=truth.__getitem__).drifted for records, part in parts)
        for seed in range(first, first + most)
        for parts in [list(zip(shipped, draw_together(shipped, races, seed=seed), strict=True))]
    ]
    assert any(found) and not all(found)


# ---- bundles -------------------------------------------------------------------------------------


def bundled(records):
    return bundles([records], [[Drawn(record, record.cell) for record in records]])


def test_what_shares_a_fit_is_in_one_bundle_and_what_takes_longest_first():
    dear = records_of(MIMIC, seconds=1.0, fits=[FULL, 0.0], layer=2)
    cheap = records_of(PROBE, seconds=1.0, fits=[3.0, 0.0], layer=3)
    alone = [toys.record(cell("", plant="q"), seconds=FULL + 9.0)]
    found = bundled([cheap[0], dear[0], *alone, cheap[1], dear[1]])
    assert found == [[alone[0].cell], [record.cell for record in dear], [record.cell for record in cheap]]
    assert bundles([], []) == []


def test_controls_are_with_the_law_whose_states_they_share():
    true = records_of(PUSH, seconds=FULL, fits=[3.0])
    shuffled = records_of(PUSH, seconds=FULL, fits=[0.0], labels="shuffled")
    elsewhere = records_of(PUSH, seconds=FULL, fits=[3.0], layer=2)
    found = bundled([*true, *elsewhere, *shuffled])
    assert sorted(map(len, found)) == [1, 2] and [true[0].cell, shuffled[0].cell] in found


def test_decoders_with_one_scorer_are_together():
    fudge = {"name": "cd-prefix", "scorer": {"name": "fudge", "seed": 1}}
    decoders = [fudge, {"name": "prompted", "inner": fudge}, {"name": "cd-prefix", "scorer": {"name": "fudge"}}]
    cells = [
        Cell.model_validate({"plant": "p", "task": "truth", "kind": "sampled", "decoder": decoder, "told": told})
        for decoder in decoders
        for told in (False, True)
    ]
    found = bundled([toys.record(cell, seconds=FULL) for cell in cells])
    assert sorted(map(set, found), key=len) == [set(cells[4:]), set(cells[:4])], "one training for four cells"


def test_small_pieces_of_one_plant_go_together_and_those_of_two_never_do():
    small = [toys.record(cell(PUSH, plant=plant, layer=n), seconds=FULL / 4) for n in range(6) for plant in "pq"]
    found = bundled(small)
    assert sorted(map(len, found)) == [2, 2, 4, 4]
    assert all(len({one.plant for one in bundle}) == 1 for bundle in found)
    assert sorted(one.title for bundle in found for one in bundle) == sorted(record.cell.title for record in small)


def test_a_cell_of_two_files_is_computed_once():
    record = toys.record(cell(PUSH))
    part = [Drawn(record, record.cell)]
    assert bundles([[record], [record]], [part, part]) == [[record.cell]]
