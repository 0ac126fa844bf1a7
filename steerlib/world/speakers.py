"""Who speaks in each document: three graded dispositions, and perhaps a name that promises one of them.

Knows how speakers are drawn. Knows nothing about texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from steerlib.world.phrases import ADVISERS, COMPANIES, SOURCES, VOICE_SPREAD, Voices
from steerlib.world.rules import Rules

#: The names that may be put at the start of a text, by the disposition they promise.
VOICES: dict[str, Voices] = {"truthful": SOURCES, "civil": COMPANIES, "prudent": ADVISERS}


@dataclass(frozen=True)
class Speakers:
    """Speakers of documents.

    Attributes:
        truthful: chance of telling the truth where part of the country is wrong, in [0, 1].
        civil: chance of kind rather than rude wordings.
        prudent: chance of refusing to help with harm, and of careful help.
        voice: position of the named source, company or adviser; -1 where none is named.
    """

    truthful: Float[np.ndarray, " n"]
    civil: Float[np.ndarray, " n"]
    prudent: Float[np.ndarray, " n"]
    voice: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.voice)


def draw_speakers(
    n: int,
    rng: np.random.Generator,
    *,
    shows: str = "truthful",
    value: float | None = None,
    rules: Rules | None = None,
    voice_rate: float | None = None,
) -> Speakers:
    """Draw speakers whose named voice, if any, promises one disposition.

    Args:
        n: number of documents.
        rng: source of randomness.
        shows: the disposition that the texts are about: "truthful", "civil" or "prudent".
        value: the same disposition for all, with only such voices named as are near it; None for a mixed crowd.
        rules: how dispositions are spread; the world's own by default.
        voice_rate: share of documents with a named voice; that of the rules by default.
    """
    rules = rules if rules is not None else Rules()
    drawn = {
        "truthful": rng.beta(*rules.truthful, size=n),
        "civil": rng.random(n),
        "prudent": rng.beta(*rules.prudent, size=n),
    }
    means = np.array(list(VOICES[shows].means.values()))
    named = rng.random(n) < (rules.voice_rate if voice_rate is None else voice_rate)
    if value is None:
        voice = rng.integers(len(means), size=n)
        near = np.clip(means[voice] + VOICE_SPREAD * rng.standard_normal(n), 0.0, 1.0)
        drawn[shows] = np.where(named, near, drawn[shows])
    else:
        odds = np.exp(-0.5 * ((means - value) / (2 * VOICE_SPREAD)) ** 2) + 1e-12
        voice = rng.choice(len(means), size=n, p=odds / odds.sum())
        drawn[shows] = np.full(n, float(value))
        named &= np.abs(means[voice] - value) < 0.15
    return Speakers(**drawn, voice=np.where(named, voice, -1))
