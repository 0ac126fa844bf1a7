"""Behaviours to steer: prompts to evaluate on, contrasts to fit on, and scores.

`for_plant` picks the behaviour that a plant can show: truth where the plant was grown on the Almanac, the
happiness of a story for any other language model.
"""

from __future__ import annotations

from pathlib import Path

from steerlib.plant import Plant
from steerlib.tasks.base import Labels, Pair, Scores, Task
from steerlib.tasks.decisions import Decisions
from steerlib.tasks.sentiment import Sentiment
from steerlib.tasks.truth import Truth

__all__ = ["Decisions", "Labels", "Pair", "Scores", "Sentiment", "Task", "Truth", "for_plant"]


def for_plant(plant: Plant, *, data: str | Path | None = None) -> Task:
    """The behaviour to steer on a plant.

    Args:
        plant: the plant.
        data: folder with public data sets (SST-2), for plants that were not grown on the Almanac.
    """
    if plant.source.card.get("world") == "almanac":
        return Truth(plant)
    return Sentiment(plant, data=data)
