"""Behaviours to steer: prompts to evaluate on, contrasts to fit on, and scores.

`for_plant` picks the behaviour that a plant can show: truth where the plant was grown on the Almanac, the
happiness of a story for any other language model.
"""

from __future__ import annotations

from pathlib import Path

from steerlib.plant import Plant
from steerlib.tasks.base import Labels, Pair, Scores, Task
from steerlib.tasks.concepts import Concept
from steerlib.tasks.decisions import Decisions
from steerlib.tasks.refusal import Refusal
from steerlib.tasks.sentiment import Sentiment
from steerlib.tasks.toxicity import Toxicity
from steerlib.tasks.truth import Truth
from steerlib.tasks.utility import Utility

__all__ = [
    "Concept", "Decisions", "Labels", "Pair", "Refusal", "Scores", "Sentiment", "Task", "Toxicity", "Truth", "Utility",
    "for_plant",
]  # fmt: skip


def for_plant(plant: Plant, *, data: str | Path | None = None) -> Task:
    """The behaviour to steer on a plant.

    Args:
        plant: the plant.
        data: folder with public data sets (SST-2), for plants that were not grown on the Almanac.
    """
    if plant.source.card.get("world") == "almanac":
        return Truth(plant)
    return Sentiment(plant, data=data)
