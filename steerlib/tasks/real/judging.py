"""Sampled answers before a judge: its scores are checked, and an answer that it did not judge stays a stated gap.

Knows what a judge may give back. Knows nothing about how it judges, nor about any one data set.

One answer that is blank, or on which a judge timed out, must not lose the others: it counts as one that shows nothing
of what is wanted (each task says so where it scores), and is named in `Scores.missing`. A judge that gives no score at
all is refused, for then the zeros would be about the judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from steerlib.errors import MetricError
from steerlib.judges.base import BLANK, Judgement


class Judge(Protocol):
    """Whatever scores answers: a judge of `steerlib.judges`, or any classifier, reward model or person."""

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Any:
        """A `Judgement`, or a number for each answer, NaN for none; a probability where the task asks for one."""
        ...


def judged_by(
    judge: Judge, prompts: Sequence[str], texts: Sequence[str], *, what: str, bounded: bool = True
) -> Judgement:
    """What a judge says of each answer; a gap where it says nothing.

    Args:
        judge: gives a `Judgement`, or an array in which NaN stands for no score.
        prompts: one for each answer.
        texts: the answers.
        what: who judges, for messages.
        bounded: whether scores are probabilities, or of any size.

    Raises:
        MetricError: no numbers, another number of them, an infinite one, one outside [0, 1] where a probability is
            asked for, or no score for any of the answers that are not blank.
    """
    found = judge.score(list(prompts), list(texts))
    if not isinstance(found, Judgement):
        found = _of_array(found, texts, judge=type(judge).__name__, what=what)
    if found.scores.shape != (len(texts),):
        raise MetricError(
            f"{what}: got values of shape {found.scores.shape}, expected one for each of {len(texts)} answers."
        )
    # A comparison with NaN is false, so gaps are not among them.
    bad = (found.scores < 0) | (found.scores > 1) if bounded else np.zeros(len(texts), dtype=bool)
    if bad.any():
        raise MetricError(_wrong(what, found.scores, bad, "a probability" if bounded else "a number"))
    said = [i for i, text in enumerate(texts) if text.strip()]
    if said and not np.isfinite(found.scores[said]).any():
        raise MetricError(
            f"{what}: {found.summary()}, none of the {len(said)} that are not blank; expected a score for some. Fix: "
            "see that the judge answers, then score again."
        )
    return found


def gaps(**judgements: Judgement) -> dict[int, str]:
    """Answers that one of several judgements lacks: place -> reasons, each after the keyword of its judgement."""
    out: dict[int, list[str]] = {}
    for name, found in judgements.items():
        for place, why in found.missing.items():
            out.setdefault(place, []).append(f"{name}: {why}")
    return {place: "; ".join(out[place]) for place in sorted(out)}


def _of_array(values: Any, texts: Sequence[str], *, judge: str, what: str) -> Judgement:
    """Plain numbers as a judgement."""
    try:
        scores = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise MetricError(
            f"{what}: got {type(values).__name__}, expected a Judgement or a number for each answer."
        ) from error
    if scores.shape != (len(texts),):
        raise MetricError(f"{what}: got values of shape {scores.shape}, expected one for each of {len(texts)} answers.")
    if np.isinf(scores).any():
        raise MetricError(_wrong(what, scores, np.isinf(scores), "a number, or NaN for none"))
    missing: Mapping[int, str] = {
        i: "the judge gave no number" if texts[i].strip() else BLANK for i in np.flatnonzero(np.isnan(scores)).tolist()
    }
    return Judgement(scores, missing, judge, version="")


def _wrong(what: str, scores: np.ndarray, bad: np.ndarray, expected: str) -> str:
    first = int(np.argmax(bad))
    return (
        f"{what}: got {scores[first]} for answer {first}, expected {expected}. Fix: a judge that gives {expected}, or "
        "no score where it has none."
    )
