"""Choosing a layer or a strength on validation prompts, and on no others.

Knows the records of candidates. Knows nothing about how they were made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from steerlib.errors import SteerlibError, unknown
from steerlib.experiment.cell_records import CellRecord

ScoreName = Literal["wanted", "intact", "combined"]
SCORES: tuple[ScoreName, ...] = ("wanted", "intact", "combined")


class RaceError(SteerlibError, ValueError):
    """A comparison that would not be fair, or that cannot be made."""


@dataclass(frozen=True)
class Selection:
    """Which candidate was chosen, and from what.

    Attributes:
        chosen: its place, or None where none meets the constraint.
        scores: validation score of each candidate.
        intact: the score of each that must not fall.
        floor: what that score must reach.
        efforts: what each costs; ties went to the smaller.
    """

    chosen: int | None
    scores: tuple[float, ...]
    intact: tuple[float, ...]
    floor: float
    efforts: tuple[float, ...]

    @property
    def score(self) -> float:
        """Validation score of the chosen one; it is the best of several, and so flatters."""
        return float("nan") if self.chosen is None else self.scores[self.chosen]

    @property
    def message(self) -> str:
        """What to say where none was chosen, "" otherwise."""
        if self.chosen is not None:
            return ""
        return (
            f"none of {len(self.scores)} candidates keeps the other score at {self.floor:.3f} on validation prompts; "
            f"the best keeps {max(self.intact):.3f}"
        )


def grids(records: Sequence[CellRecord]) -> tuple[np.ndarray, np.ndarray]:
    """Wanted and intact scores of one measurement under several seeds, each of shape (seeds, prompts).

    Raises:
        RaceError: if there is no record, or they differ in their number of prompts.
    """
    if not records:
        raise RaceError("got no record, expected one for each seed.")
    counts = sorted({len(record.scores[name]) for record in records for name in ("wanted", "intact")})
    if len(counts) > 1:
        raise RaceError(f"{records[0].cell.title}: got {counts} prompts under its seeds, expected the same ones.")
    return (
        np.array([record.scores["wanted"] for record in records], dtype=float),
        np.array([record.scores["intact"] for record in records], dtype=float),
    )


def score_of(records: Sequence[CellRecord], score: ScoreName) -> float:
    """One score over all prompts and seeds; "combined" is the product of the means.

    Raises:
        RaceError: if the score does not exist, or the records do not belong together.
    """
    if score not in SCORES:
        raise RaceError(unknown("score", score, SCORES))
    wanted, intact = (float(values.mean()) for values in grids(records))
    return {"wanted": wanted, "intact": intact, "combined": wanted * intact}[score]


def select_on_validation(
    candidates: Sequence[Sequence[CellRecord]],
    *,
    score: ScoreName = "combined",
    floor: float = 0.0,
    efforts: Sequence[float] | None = None,
    tie: float = 1e-3,
) -> Selection:
    """Choose the candidate with the best validation score among those that leave the rest of the behaviour intact.

    Args:
        candidates: for each, its records under every seed.
        score: what to maximise.
        floor: least mean of the intact score.
        efforts: what each candidate costs; by default the mean size of its multiplier.
        tie: scores this close to the best are as good, and the gentlest of them is chosen.

    Raises:
        RaceError: if there is no candidate, a record is not of validation prompts, or candidates were measured on
            different numbers of prompts or seeds.
    """
    if not candidates:
        raise RaceError("select_on_validation: got no candidate.")
    for records in candidates:
        wrong = next((record for record in records if record.cell.split != "validation"), None)
        if wrong is not None:
            raise RaceError(
                f"select_on_validation: {wrong.cell.title} was measured on {wrong.cell.split} prompts. Fix: choose on "
                "validation prompts, and report on test prompts."
            )
    shapes = {grids(records)[0].shape for records in candidates}
    if len(shapes) > 1:
        raise RaceError(f"select_on_validation: got (seeds, prompts) of {sorted(shapes)}, expected equal ones.")
    costs = list(efforts) if efforts is not None else [_size(records) for records in candidates]
    if len(costs) != len(candidates) or not np.isfinite(costs).all():
        raise RaceError(f"select_on_validation: got efforts {costs} for {len(candidates)} candidates.")
    scores = [score_of(records, score) for records in candidates]
    intact = [score_of(records, "intact") for records in candidates]
    allowed = [i for i in range(len(candidates)) if intact[i] >= floor]
    best = max((scores[i] for i in allowed), default=0.0)
    near = [i for i in allowed if scores[i] >= best - tie]
    chosen = min(near, key=lambda i: (costs[i], i), default=None)
    return Selection(chosen, tuple(scores), tuple(intact), floor, tuple(costs))


def _size(records: Sequence[CellRecord]) -> float:
    return float(np.mean([0.0 if record.cell.law is None else abs(record.cell.law.strength) for record in records]))
