"""The joint shares beside the main table of chapter 44: of its very rows, within the bounds that its columns leave."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from steerlib.experiment.cells import Cell, Fit, LawSpec
from steerlib.experiment.grid import GridError, read_grid
from steerlib.experiment.race_joined import beside, on_shared_seeds
from steerlib.experiment.race_records import replay
from steerlib.experiment.race_tables import scores
from steerlib.experiment.races import Entry, Race
from steerlib.experiment.read_out import raced_cells, scored_on
from steerlib.experiment.shipped import ShippedError, shipped, shipped_path
from steerlib.experiment.verification import EXACT
from steerlib.files import data_folder

COURSES = [f"{plant}/truth" for plant in ("almanac-llama", "almanac-falcon", "almanac-gemma")]
GRID = data_folder() / "grids" / "joint.yml"


@pytest.fixture(scope="module")
def rows() -> list[Entry]:
    """Rows of the main table on truth, joined as the chapter joins them, at every setting."""

    def run(name: str) -> dict[str, Race]:
        known: Any = SimpleNamespace(records=shipped(shipped_path(name, profile="tiny")).records, plain="")
        return replay(name, profile="tiny", records=known, only=COURSES, measure=0).courses

    ours, others = run("barriers"), run("open_loop")
    assert set(ours) == set(others) == set(COURSES)
    found: list[Entry] = []
    for title, course in ours.items():
        plain = replace(
            course, entries=tuple(replace(e, name=e.name.removesuffix(", 100 texts")) for e in course.entries)
        )
        names = list(dict.fromkeys(e.name for e in others[title].entries if e.setting != "none"))
        found += beside(on_shared_seeds(plain, others[title]), others[title], names).entries
    return [entry for entry in found if entry.records]


def test_the_grid_has_the_laws_of_the_table_and_no_others(rows: list[Entry]) -> None:
    """Same laws, options, blocks, strengths, prompts and seeds: a race that is run anew asks for the grid anew."""
    wanted = [scored_on(record.cell, "truth-joint") for row in rows for record in row.records]
    assert set(wanted) == set(read_grid(GRID))
    assert {row.setting for row in rows} == {"none", "own", "budget"}


def test_shipped_joint_shares_are_of_the_laws_of_the_races(rows: list[Entry]) -> None:
    """True and Info were measured again beside them, and the joint share lies where these two say (Fréchet)."""
    measured = {r.cell: r for r in shipped(shipped_path("joint", profile="tiny")).records}
    for row in rows:
        found = [measured[scored_on(record.cell, "truth-joint")] for record in row.records]
        both = np.array([record.scores["wanted"] for record in found])
        true, info = (np.array([record.more[name] for record in found], dtype=float) for name in ("true", "info"))
        assert np.abs(true - scores(row, "wanted")).max() < EXACT, row.name
        assert np.abs(info - scores(row, "intact")).max() < EXACT, row.name
        rounding = 2e-6
        assert (both >= np.maximum(0, true + info - 1) - rounding).all(), row.name
        assert (both <= np.minimum(true, info) + rounding).all(), row.name
        assert all(set(record.scores["intact"]) == {1} for record in found)


def test_a_law_stays_fitted_for_the_task_that_it_was_fitted_for() -> None:
    law = LawSpec(name="odesteer", layer=2, strength=3.0, fit=Fit(seed=4))
    raced = Cell(plant="almanac-llama", task="truth", law=law, limit=50)
    found = scored_on(raced, "truth-joint")
    assert found.fitted_for == ("truth", {}) and found.task == "truth-joint" and found.limit == 50
    assert found.law is not None and (found.law.strength, found.law.fit.seed) == (3.0, 4)
    assert Cell.model_validate(found.model_dump()) == found, "it is what its record says"
    elsewhere = raced.model_copy(update={"law": law.model_copy(update={"fit": Fit(task="toxicity")})})
    assert scored_on(elsewhere, "truth-joint").fitted_for == ("toxicity", {})
    assert scored_on(Cell(plant="p", task="truth", told=True), "utility") == Cell(plant="p", task="utility", told=True)


def test_cells_of_one_race_are_those_of_its_table_on_test_prompts() -> None:
    raced = raced_cells(["barriers"], "truth", profile="tiny")
    assert {(cell.task, cell.split) for cell in raced} == {("truth", "test")} and len(raced) == len(set(raced))
    assert any(cell.law is None for cell in raced) and raced_cells(["barriers"], "refusal", profile="tiny") == []
    with pytest.raises(ShippedError, match=r"steerlib run data/races/absent.yml --ship tiny"):
        raced_cells(["absent"], "truth", profile="tiny")


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("{rows_of: [barriers], raced: truth, task: truth-joined}", r"block 0:\n  task: .*truth-joint"),
        ("{rows_of: [barriers], raced: truth}", "task: Field required"),
        ("{rows_of: [barriers], raced: refusal, task: utility}", "expected at least one cell"),
    ],
)
def test_what_is_wrong_with_such_a_block_is_said(tmp_path: Any, block: str, message: str) -> None:
    (tmp_path / "g.yml").write_text(f"blocks:\n  - {block}\n")
    with pytest.raises(GridError, match=message):
        read_grid(tmp_path / "g.yml")
