"""Behaviours to steer: prompts to evaluate on, contrasts to fit on, and scores.

`for_plant` picks the behaviour that a plant can show: truth where the plant was grown on the Almanac, the
happiness of a story for any other language model.

Names are loaded when first used, so that what one task is made of does not depend on the others.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_EXPORTS: dict[str, str] = {
    "Concept": "steerlib.tasks.concepts",
    "Decisions": "steerlib.tasks.decisions",
    "Helpfulness": "steerlib.tasks.helpfulness",
    "Labels": "steerlib.tasks.base",
    "Pair": "steerlib.tasks.base",
    "Refusal": "steerlib.tasks.refusal",
    "Scores": "steerlib.tasks.base",
    "Sentiment": "steerlib.tasks.sentiment",
    "Task": "steerlib.tasks.base",
    "Toxicity": "steerlib.tasks.toxicity",
    "Truth": "steerlib.tasks.truth",
    "Utility": "steerlib.tasks.utility",
    "for_plant": "steerlib.tasks.choosing",
}

__all__ = [
    "Concept", "Decisions", "Helpfulness", "Labels", "Pair", "Refusal", "Scores", "Sentiment", "Task", "Toxicity",
    "Truth", "Utility", "for_plant",
]  # fmt: skip

if TYPE_CHECKING:
    from steerlib.tasks.base import Labels, Pair, Scores, Task
    from steerlib.tasks.choosing import for_plant
    from steerlib.tasks.concepts import Concept
    from steerlib.tasks.decisions import Decisions
    from steerlib.tasks.helpfulness import Helpfulness
    from steerlib.tasks.refusal import Refusal
    from steerlib.tasks.sentiment import Sentiment
    from steerlib.tasks.toxicity import Toxicity
    from steerlib.tasks.truth import Truth
    from steerlib.tasks.utility import Utility


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'steerlib.tasks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
