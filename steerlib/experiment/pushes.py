"""What the records of a push grid say, task by task: how far one push goes, what chance does there, what replies earn.

Knows the cells of a grid such as `data/grids/push.yml`. Knows nothing about how they were computed or shipped.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from steerlib.errors import MetricError
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell, labelled
from steerlib.experiment.slices import group_of
from steerlib.metrics import interval_of, mean_interval
from steerlib.tasks.helpfulness import Helpfulness, Rewards
from steerlib.world.replies import RUBRICS, worth_range

if TYPE_CHECKING:
    import pandas as pd

UNSTEERED = "unsteered"
#: Rows of `preference`, as a page names them, in its order.
NAMES = {
    UNSTEERED: "the plant",
    "told": "told by name",
    "difference-of-means": "the push",
    "random-direction": "random direction",
    "difference-of-means, labels shuffled": "shuffled labels",
}


@dataclass(frozen=True)
class Controls:
    """Scores of the negative controls of one kind: mean, lowest and highest."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """For example "0.393 [0.359, 0.418]"."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Reach:
    """How far one push goes on one task, by the exact combined score.

    Attributes:
        task: its name.
        unsteered: the plant left alone, on test prompts.
        told: the plant told by name, on test prompts.
        best: the best score of the sweep over layers and strengths, on validation prompts: it flatters itself.
        layer: where that is.
        strength: and how strong.
        there: the push at the place of the controls, on validation prompts.
        random: random directions at that place, on test prompts.
        shuffled: the law fitted on shuffled labels at that place, on test prompts.
    """

    task: str
    unsteered: float
    told: float
    best: float
    layer: int
    strength: float
    there: float
    random: Controls
    shuffled: Controls


def pushes(records: Sequence[CellRecord]) -> list[Reach]:
    """One `Reach` for each task of the grid, in alphabetical order.

    Args:
        records: exact ones decide; sampled ones are left aside.

    Raises:
        MetricError: if a task lacks one of the columns, or its controls stand in several places.
    """
    by_task: dict[str, list[CellRecord]] = defaultdict(list)
    for record in records:
        if record.cell.kind == "exact":
            by_task[record.cell.task].append(record)
    return [_reach(task, by_task[task]) for task in sorted(by_task)]


def _column(cell: Cell) -> str:
    """Which column a cell belongs to; a law that was fitted for another behaviour belongs to none of them."""
    if cell.law is None or cell.law.fit.task is not None:
        return group_of(cell)
    return labelled(cell.law)


def _reach(task: str, records: Iterable[CellRecord]) -> Reach:
    groups: dict[str, list[CellRecord]] = defaultdict(list)
    for record in records:
        groups[_column(record.cell)].append(record)
    if lacking := [NAMES[name] for name in NAMES if not groups[name]]:
        raise MetricError(f"{task}: the grid has no cell of {', '.join(lacking)}; expected one of each at least")
    controls = [*groups["random-direction"], *groups["difference-of-means, labels shuffled"]]
    places = {(r.cell.law.layer, r.cell.law.strength) for r in controls if r.cell.law is not None}
    swept = {(r.cell.law.layer, r.cell.law.strength): _score(r) for r in groups["difference-of-means"] if r.cell.law}
    if len(places) != 1 or not places <= set(swept):
        raise MetricError(f"{task}: got controls at {sorted(places)}; expected one place, which the sweep visits, too")
    layer, strength = max(swept, key=lambda place: swept[place])
    return Reach(
        task=task,
        unsteered=_score(groups[UNSTEERED][0]),
        told=_score(groups["told"][0]),
        best=swept[layer, strength],
        layer=layer,
        strength=strength,
        there=swept[places.pop()],
        random=_controls(groups["random-direction"]),
        shuffled=_controls(groups["difference-of-means, labels shuffled"]),
    )


def _score(record: CellRecord) -> float:
    return record.metrics["combined"].value


def _controls(records: Sequence[CellRecord]) -> Controls:
    scores = [_score(record) for record in records]
    return Controls(float(np.mean(scores)), min(scores), max(scores))


def push_table(reaches: Sequence[Reach]) -> pd.DataFrame:
    """The same as a table for a page."""
    import pandas as pd

    rows = [
        {
            "task": one.task,
            "unsteered (test)": f"{one.unsteered:.3f}",
            "told by name (test)": f"{one.told:.3f}",
            "best of the sweep (validation)": f"{one.best:.3f} (block {one.layer}, strength {one.strength:g})",
            "the push where the controls are (validation)": f"{one.there:.3f}",
            "random directions there (test), mean and range": str(one.random),
            "shuffled labels there (test), mean and range": str(one.shuffled),
        }
        for one in reaches
    ]
    return pd.DataFrame(rows).set_index("task")


def preference(records: Sequence[CellRecord]) -> dict[str, Rewards]:
    """Rewards of sampled replies beside those of the unsteered plant to the same requests under the same noise.

    Prompts are the unit: seeds of one request are averaged, and drawn together where a quantile is asked for. A reply
    that goes on unreadably has the reward of the worst readable one, as in the scores of its record.

    Args:
        records: those of `almanac-preference` that were sampled decide; others are left aside.

    Returns:
        Name of the row (`NAMES`) -> rewards; empty if nothing was sampled.

    Raises:
        MetricError: if a law has no unsteered replies under the same seed, or acts in two places, or rubrics differ.
    """
    mine = [r for r in records if r.cell.task == Helpfulness.name and r.cell.kind == "sampled"]
    rubrics = {str(r.cell.task_options.get("rubric", "common")) for r in mine}
    if len(rubrics) > 1:
        raise MetricError(f"preference: got replies by the rubrics {sorted(rubrics)}; expected one")
    found: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
    for record in mine:
        low, high = worth_range(RUBRICS[rubrics.copy().pop()])
        scaled = np.asarray(record.scores["wanted"])
        name, seed = _column(record.cell), record.cell.seed
        if seed in found[name]:
            raise MetricError(f"preference: {name} was sampled twice with seed {seed}; expected one place for each law")
        found[name][seed] = low + (high - low) * scaled
    bare = found.get(UNSTEERED, {})
    for name, seeds in found.items():
        if lacking := sorted(set(seeds) - set(bare)):
            raise MetricError(f"preference: {name} has seeds {lacking}, for which nothing unsteered was sampled")
    return {NAMES.get(name, name): _beside(found[name], bare) for name in sorted(found, key=_place)}


def _place(name: str) -> int:
    return list(NAMES).index(name) if name in NAMES else len(NAMES)


def _beside(ours: dict[int, np.ndarray], control: dict[int, np.ndarray]) -> Rewards:
    """Both: seed -> rewards of the requests, in one order."""
    mine, theirs = (np.stack([side[seed] for seed in sorted(ours)]) for side in (ours, control))
    won, tied = (mine > theirs).astype(float), (mine == theirs).astype(float)
    return Rewards(
        mean=mean_interval(mine.mean(0)),
        high=interval_of(lambda *seeds: np.quantile(np.concatenate(seeds, axis=-1), 0.9, axis=-1), *mine),
        wins=mean_interval(won.mean(0)),
        wins_half=mean_interval((won + tied / 2).mean(0)),
    )
