"""The form of an acceptance: figures with intervals and bounds, and the table they make.

Knows what a checked figure is and how it gets into a plant's card. Knows nothing about plants or behaviours.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from steerlib.files import write_atomic
from steerlib.metrics import Estimate


@dataclass(frozen=True)
class Check:
    """One figure of the acceptance list.

    Attributes:
        part: "behaviour", "representation" or "causation".
        name: what is measured.
        value: the estimate, with its 95 % interval from low to high; None where there is nothing to take a figure of.
        low: lower end.
        high: upper end.
        at_least: the figure must not be below this; None if there is no such bound.
        at_most: the figure must not be above this; None if there is no such bound.
    """

    part: str
    name: str
    value: float | None
    low: float | None
    high: float | None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the estimate lies within its bounds; what could not be measured does not, if it has any."""
        if self.value is None:
            return self.at_least is None and self.at_most is None
        above = self.at_least is None or self.value >= self.at_least
        return above and (self.at_most is None or self.value <= self.at_most)

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        found = [
            f">= {self.at_least:g}" if self.at_least is not None else "",
            f"<= {self.at_most:g}" if self.at_most is not None else "",
        ]
        return " and ".join(b for b in found if b) or "reported"

    def __str__(self) -> str:
        """One line of the acceptance table."""
        mark = "ok  " if self.passed else "FAIL"
        figure = "   none" if self.value is None else f"{self.value:7.3f} [{self.low:.3f}, {self.high:.3f}]"
        return f"{mark} {self.name:<58} {figure}  {self.bounds}"


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep on the validation split: the behaviour's score and how far answers stayed intact."""

    layer: int
    strength: float
    score: float
    intact: float


@dataclass(frozen=True)
class Push:
    """The push that was chosen for a behaviour, with the sweep it was chosen from.

    Attributes:
        behaviour: name of the task.
        layer: block whose output is pushed.
        strength: in units of the difference of means.
        sweep: every layer and strength that was tried, on the validation split.
        start: score and intact share of the unsteered plant on that split; None where nothing was swept.
    """

    behaviour: str
    layer: int
    strength: float
    sweep: tuple[Cell, ...]
    start: tuple[float, float] | None = None


@dataclass(frozen=True)
class Acceptance:
    """Everything that was measured on one plant.

    Attributes:
        plant: its name.
        checks: the acceptance list.
        pushes: the chosen push of each behaviour.
        seconds: time that it took.
        curves: further figures for the book, by name: what was measured at each of several points.
    """

    plant: str
    checks: tuple[Check, ...]
    pushes: tuple[Push, ...]
    seconds: float
    curves: dict[str, list[list[float]]]

    @property
    def passed(self) -> bool:
        """Whether every figure lies within its bounds."""
        return all(check.passed for check in self.checks)

    def table(self) -> str:
        """The acceptance list, a line for each figure."""
        parts = dict.fromkeys(check.part for check in self.checks)
        return "\n".join(
            line for part in parts for line in (part.upper(), *(str(c) for c in self.checks if c.part == part))
        )


def bounded(
    part: str, name: str, found: Estimate | None, *, at_least: float | None = None, at_most: float | None = None
) -> Check:
    """A check from an estimate, or from the lack of one."""
    if found is None:
        return Check(part, name, None, None, None, at_least, at_most)
    return Check(part, name, found.value, found.low, found.high, at_least, at_most)


def write_card(folder: str | Path, result: Acceptance) -> None:
    """Put the figures into the plant's card.

    Raises:
        ValueError: if the folder has no card.
    """
    path = Path(folder) / "card.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no card.json; expected a folder written by `steerlib grow`")
    card = json.loads(path.read_text(encoding="utf-8"))
    card["acceptance"] = {
        "passed": result.passed,
        "seconds": round(result.seconds, 1),
        "checks": [_rounded(asdict(check)) | {"passed": check.passed} for check in result.checks],
        "pushes": {
            push.behaviour: {
                "layer": push.layer,
                "strength": push.strength,
                "start": None if push.start is None else [round(v, 4) for v in push.start],
                "sweep": [
                    [cell.layer, cell.strength, round(cell.score, 4), round(cell.intact, 4)] for cell in push.sweep
                ],
            }
            for push in result.pushes
        },
        "curves": {name: [[_short(v) for v in row] for row in rows] for name, rows in result.curves.items()},
    }
    write_atomic(path, json.dumps(card, indent=1) + "\n")


def _rounded(record: dict[str, object]) -> dict[str, object]:
    return {key: _short(value) if isinstance(value, float) else value for key, value in record.items()}


def _short(value: float) -> float | None:
    """Four decimals; JSON has no word for what is not a number."""
    return round(value, 4) if math.isfinite(value) else None
