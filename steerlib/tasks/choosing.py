"""Which behaviour a plant can show.

Knows the tasks; nothing about how they score.
"""

from __future__ import annotations

from pathlib import Path

from steerlib.plant import Plant
from steerlib.tasks.base import Task
from steerlib.tasks.sentiment import Sentiment
from steerlib.tasks.truth import Truth


def for_plant(plant: Plant, *, data: str | Path | None = None) -> Task:
    """The behaviour to steer on a plant.

    Args:
        plant: the plant.
        data: folder with public data sets (SST-2), for plants that were not grown on the Almanac.
    """
    if plant.source.card.get("world") == "almanac":
        return Truth(plant)
    return Sentiment(plant, data=data)
