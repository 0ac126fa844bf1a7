"""Rows of shipped races, to be scored on another task: what a race left unmeasured, of the very laws that it chose.

Knows the cells of a race's file of records. Knows nothing about how they were chosen, or what the other task measures.
No record need count any more for that: the cells of a race are known from its file alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from steerlib.experiment.cells import Cell
from steerlib.experiment.shipped import read_zipped, shipped_path


def raced_cells(races: Sequence[str], task: str, *, profile: str) -> list[Cell]:
    """Cells of the rows of one table: what races measured on test prompts of a task, under the seeds that all have.

    Args:
        races: their names.
        task: the registered one that was scored.
        profile: whose races.

    Raises:
        ShippedError: a race of which nothing is shipped, or a damaged file.
    """
    ran = [
        [cell for cell in _cells(race, profile=profile) if cell.task == task and cell.split == "test"] for race in races
    ]
    seeds = [{cell.law.fit.seed for cell in cells if cell.law is not None} for cells in ran]
    shared = set.intersection(*seeds) if seeds else set()
    rows = [cell for cells in ran for cell in cells if cell.law is None or cell.law.fit.seed in shared]
    return list(dict.fromkeys(rows))


def scored_on(cell: Cell, task: str) -> Cell:
    """The same prompts under the same law, which stays fitted for the task that it was fitted for.

    Args:
        cell: of a race.
        task: the registered one that scores it instead, without options.
    """
    law = cell.law
    if law is not None and cell.fitted_for is not None:
        fitted, options = cell.fitted_for
        law = law.model_copy(update={"fit": law.fit.model_copy(update={"task": fitted, "task_options": options})})
    return cell.model_copy(update={"task": task, "task_options": {}, "law": law})


def _cells(race: str, *, profile: str) -> list[Cell]:
    path = shipped_path(race, profile=profile)
    fix = f"`steerlib run data/races/{race}.yml --ship {profile}` computes and writes them"
    _, *lines = read_zipped(path, what="records", fix=fix).splitlines()
    return [Cell.model_validate(json.loads(line)["cell"]) for line in lines]
