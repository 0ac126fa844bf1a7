"""The behaviours on public data sets, with the interface of the Almanac's tasks, so that the same laws run on them.

Each takes a plant and the folder of the data (see `steerlib.data.sources.locate`). Exact scores are teacher-forced
choices among answers that the data set lists; sampled ones need a judge (see `steerlib.judges`), or any object with
``score(prompts, answers)``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_EXPORTS: dict[str, str] = {
    "Concepts": "steerlib.tasks.real.concepts",
    "Judge": "steerlib.tasks.real.judging",
    "Knowledge": "steerlib.tasks.real.utility",
    "Preference": "steerlib.tasks.real.preference",
    "RealTask": "steerlib.tasks.real.base",
    "Requests": "steerlib.tasks.real.refusal",
    "SETTINGS": "steerlib.tasks.real.settings",
    "ToxicPrompts": "steerlib.tasks.real.toxicity",
    "TruthfulQA": "steerlib.tasks.real.truth",
}

__all__ = [
    "Concepts", "Judge", "Knowledge", "Preference", "RealTask", "Requests", "SETTINGS", "ToxicPrompts", "TruthfulQA",
]  # fmt: skip

if TYPE_CHECKING:
    from steerlib.tasks.real.base import RealTask
    from steerlib.tasks.real.concepts import Concepts
    from steerlib.tasks.real.judging import Judge
    from steerlib.tasks.real.preference import Preference
    from steerlib.tasks.real.refusal import Requests
    from steerlib.tasks.real.settings import SETTINGS
    from steerlib.tasks.real.toxicity import ToxicPrompts
    from steerlib.tasks.real.truth import TruthfulQA
    from steerlib.tasks.real.utility import Knowledge


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'steerlib.tasks.real' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
