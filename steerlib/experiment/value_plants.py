"""RE-Control's main table in several settings, a plant and a data set each, and what holds in all of them.

Knows rows of `value_tables`. Knows nothing about how cells were computed, nor about claims: it lays scores out so that
a claim of kind rank, which asks for every difference by itself, says "in every setting" (an intersection-union test).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from steerlib.errors import MetricError
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.value_tables import Row, rows
from steerlib.metrics import Difference, paired_grid_difference

Scores = Float[np.ndarray, "seeds prompts"]


class PlantSet(NamedTuple):
    """One plant on one data set.

    Attributes:
        plant: name of the plant.
        data: name of the data set.
    """

    plant: str
    data: str

    def of(self, row: str) -> str:
        """The key of a row in this setting, as claims name it: "unsteered@almanac-llama/first"."""
        return f"{row}@{self.plant}/{self.data}"


Tables = Mapping[PlantSet, Mapping[str, Row]]


def by_setting(records: Sequence[CellRecord], sets: Mapping[str, dict[str, Any]]) -> dict[PlantSet, dict[str, Row]]:
    """The table of every plant on every data set: plants in the order of the records, settings without rows left out.

    Args:
        records: of one grid or several.
        sets: name of a data set -> its `task_options`.

    Raises:
        MetricError: if a setting's rows do not belong together; see `value_tables.rows`.
    """
    plants = dict.fromkeys(record.cell.plant for record in records)
    found = {
        PlantSet(plant, name): rows([record for record in records if record.cell.plant == plant], options)
        for plant in plants
        for name, options in sets.items()
    }
    return {setting: table for setting, table in found.items() if table}


def changes(table: Mapping[str, Row], column: str, *, over: str = "unsteered") -> dict[str, Difference]:
    """What every other row of a setting changes, paired over seeds and prompts.

    Args:
        table: rows by name.
        column: a score of single answers.
        over: the row that the others are compared with.
    """
    base = table[over].scores[column]
    return {
        name: paired_grid_difference(row.scores[column], base) for name, row in table.items() if name != over
    }  # fmt: skip


def relative(tables: Tables, ours: str, column: str) -> dict[str, Scores]:
    """Scores of all rows of all settings, less those of one row on the same answers: samples of one rank claim.

    Under its own name stands the row itself, which is zero everywhere; every other key is a row in a setting (see
    `PlantSet.of`). Differences between ours and a rival are those of that setting, so that "ours is above every rival"
    says that it is above each in each setting.

    Args:
        tables: see `by_setting`.
        ours: the row.
        column: a score of single answers.

    Returns:
        By key, arrays of shape (seeds, prompts).

    Raises:
        MetricError: no setting, a setting without our row, or settings of different numbers of seeds or prompts.
    """
    if lacking := [setting.of(ours) for setting, table in tables.items() if ours not in table] or not tables:
        raise MetricError(f"relative to {ours!r}: got {lacking if tables else 'no setting'}; expected it in each")
    shapes = {setting: table[ours].scores[column].shape for setting, table in tables.items()}
    if len(set(shapes.values())) > 1:
        raise MetricError(f"{column}: got shapes {shapes}; expected as many seeds and prompts in every setting")
    apart = {
        setting.of(name): row.scores[column] - table[ours].scores[column]
        for setting, table in tables.items()
        for name, row in table.items()
        if name != ours
    }
    return {ours: np.zeros(next(iter(shapes.values()))), **apart}
