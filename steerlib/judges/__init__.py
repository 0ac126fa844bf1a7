"""Judges of answers behind one interface: the exact oracle, a local model, a model behind an API.

Names are loaded when first used, so that an oracle needs no model library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

_EXPORTS: dict[str, str] = {
    "Agreement": "steerlib.judges.comparing",
    "ApiJudge": "steerlib.judges.api",
    "BaseJudge": "steerlib.judges.base",
    "ClassifierJudge": "steerlib.judges.classifier",
    "Journal": "steerlib.judges.journal",
    "Judge": "steerlib.judges.base",
    "JudgeError": "steerlib.judges.base",
    "Judgement": "steerlib.judges.base",
    "OracleJudge": "steerlib.judges.oracle",
    "Patience": "steerlib.judges.endpoint",
    "RewardJudge": "steerlib.judges.classifier",
    "agreement": "steerlib.judges.comparing",
    "ranking": "steerlib.judges.comparing",
}

__all__ = [
    "Agreement", "ApiJudge", "BaseJudge", "ClassifierJudge", "Journal", "Judge", "JudgeError", "Judgement",
    "OracleJudge", "Patience", "RewardJudge", "agreement", "ranking",
]  # fmt: skip

if TYPE_CHECKING:
    from steerlib.judges.api import ApiJudge
    from steerlib.judges.base import BaseJudge, Judge, JudgeError, Judgement
    from steerlib.judges.classifier import ClassifierJudge, RewardJudge
    from steerlib.judges.comparing import Agreement, agreement, ranking
    from steerlib.judges.endpoint import Patience
    from steerlib.judges.journal import Journal
    from steerlib.judges.oracle import OracleJudge


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'steerlib.judges' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
