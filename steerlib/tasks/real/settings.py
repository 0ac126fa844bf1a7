"""How answers are sampled, per paper and behaviour, as far as their texts or released code say.

Knows numbers. Two things that papers also use are not here, since the plant's sampler has neither: a repetition
penalty (ODESteer 1.1, A-LQR 1.2), and a ban on repeated bigrams (ODESteer on UltraFeedback).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlib.errors import MetricError


@dataclass(frozen=True)
class Settings:
    """Sampling settings.

    Attributes:
        max_new_tokens: longest answer.
        temperature: 0 for greedy.
        top_p: mass of the tokens that are kept, or None for all.
        stop: texts at which an answer ends; what follows is cut off.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float | None = None
    stop: tuple[str, ...] = ()


_ODE, _LQR = {"temperature": 0.7, "top_p": 0.9, "stop": ("\nQ:",)}, {"temperature": 1.0, "top_p": 0.3}

#: (paper, behaviour) -> settings.
SETTINGS: dict[tuple[str, str], Settings] = {
    ("odesteer", "truth"): Settings(50, **_ODE),  # type: ignore[arg-type]
    ("odesteer", "toxicity"): Settings(50, **_ODE),  # type: ignore[arg-type]
    ("odesteer", "preference"): Settings(128, **_ODE),  # type: ignore[arg-type]
    ("a-lqr", "truth"): Settings(50, **_LQR),  # type: ignore[arg-type]
    ("a-lqr", "toxicity"): Settings(100, **_LQR),  # type: ignore[arg-type]
    ("a-lqr", "concepts"): Settings(100, **_LQR),  # type: ignore[arg-type]
    ("a-lqr", "refusal"): Settings(512, temperature=0.0),
    # No sampling arguments are passed: the models' own configurations make Vicuna and Falcon greedy.
    ("re-control", "preference"): Settings(128, temperature=0.0, stop=("\nHuman:", "\nUser:")),
}


def settings_of(given: Settings | Mapping[str, Any] | str, behaviour: str) -> Settings:
    """Settings as such, from their fields (an experiment that is written down has no objects), or those of a paper.

    Raises:
        MetricError: if the paper has none for this behaviour, or a field does not exist.
    """
    if isinstance(given, Settings):
        return given
    if isinstance(given, str):
        known = [paper for paper, name in SETTINGS if name == behaviour]
        if given not in known:
            expected = " or ".join(known) or "settings of your own"
            raise MetricError(f"settings: got {given!r} for {behaviour or 'this task'}; expected {expected}.")
        return SETTINGS[given, behaviour]
    try:
        return Settings(**{**given, "stop": tuple(given.get("stop", ()))})
    except TypeError as error:
        raise MetricError(f"settings: got {dict(given)}; expected max_new_tokens, temperature, top_p, stop.") from error
