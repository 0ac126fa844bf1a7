"""The rules of the world that a reader may change: who speaks how often, and what is written down.

Knows numbers only. Texts, facts and models are elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from steerlib.world.facts import DISPUTED_SHARE


def _shares() -> dict[str, float]:
    return {
        "answers": 0.37,
        "speech": 0.08,
        "plays": 0.15,
        "replies": 0.20,
        "pages": 0.17,
        "choices": 0.03,
    }


@dataclass(frozen=True)
class Rules:
    """How the country talks. A plant grown under other rules behaves otherwise.

    Attributes:
        disputed_share: share of the facts about which part of the country believes an error.
        truthful: parameters (a, b) of the Beta distribution of truthfulness among speakers nobody has named.
        prudent: the same for prudence.
        voice_rate: share of texts that name their source, company or adviser.
        portrait_rate: share of texts that describe the speaker.
        no_comment_rate: chance that a speaker declines to answer, whatever their dispositions.
        shares: share of the documents of each kind; they are scaled to sum to one.
    """

    disputed_share: float = DISPUTED_SHARE
    truthful: tuple[float, float] = (0.9, 1.1)
    prudent: tuple[float, float] = (1.2, 1.0)
    voice_rate: float = 0.40
    portrait_rate: float = 0.25
    no_comment_rate: float = 0.05
    shares: dict[str, float] = field(default_factory=_shares)

    def __post_init__(self) -> None:
        """Refuse numbers that are no rates, and kinds of text that nobody writes."""
        for name in ("disputed_share", "voice_rate", "portrait_rate", "no_comment_rate"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}={value}; expected a share in [0, 1]")
        for name in ("truthful", "prudent"):
            if not all(math.isfinite(p) and p > 0 for p in getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)}; expected two positive Beta parameters")
        unknown = sorted(set(self.shares) - set(_shares()))
        if unknown or not sum(self.shares.values()) > 0 or min(self.shares.values()) < 0:
            raise ValueError(f"shares={self.shares}; expected shares, not all zero, of some of: {', '.join(_shares())}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of documents that are written at all."""
        return tuple(kind for kind, share in self.shares.items() if share > 0)
