"""What every judge offers: a score for each answer, and a stated gap where there is none.

Knows answers, opinions and gaps. Knows nothing about how a judge comes to its opinion.

A score that is missing is NaN and has a reason; it is never a number that could be taken for an opinion. No judge is
asked about an answer that is absent or blank: what silence is worth is for the caller to say (`Judgement.filled`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from jaxtyping import Float

from steerlib.errors import SteerlibError
from steerlib.metrics import Estimate, mean_interval

#: Why an answer was not put to the judge.
ABSENT, BLANK = "no answer", "empty answer"


class JudgeError(SteerlibError, ValueError):
    """A judge that cannot be made, or that is asked what nobody can judge."""


@dataclass(frozen=True)
class Opinion:
    """What a judge thinks of one answer.

    Attributes:
        score: None for no usable opinion.
        why: the reason for that.
        truncated: only the beginning of the text was read.
    """

    score: float | None
    why: str = ""
    truncated: bool = False


@dataclass(frozen=True)
class Judgement:
    """Scores of answers, in their order.

    Attributes:
        scores: NaN where there is none.
        missing: place -> reason, for exactly those.
        judge: name of the judge.
        version: hash of what decides its scores.
        truncated: places of texts of which only the beginning was read.
    """

    scores: Float[np.ndarray, " answers"]
    missing: Mapping[int, str]
    judge: str
    version: str
    truncated: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a gap without a reason, and a number that is none.

        Raises:
            JudgeError: names the first place where scores and gaps differ.
        """
        for place, score in enumerate(self.scores):
            if math.isfinite(score) is (place in self.missing):
                raise JudgeError(
                    f"{self.judge}: answer {place} has score {score} and reason {self.missing.get(place)!r} for having "
                    "none; expected a finite score or a reason."
                )
        object.__setattr__(self, "missing", MappingProxyType(dict(self.missing)))

    def __len__(self) -> int:
        """Number of answers, judged or not."""
        return len(self.scores)

    @property
    def judged(self) -> Float[np.ndarray, " judged"]:
        """The scores that there are."""
        return self.scores[np.isfinite(self.scores)]

    def filled(self, value: float) -> Float[np.ndarray, " answers"]:
        """All scores, with a stated value for those that are missing: 0 counts silence as the worst answer.

        Raises:
            JudgeError: if the value is not finite.
        """
        if not math.isfinite(value):
            raise JudgeError(f"filled: got {value}, expected what a missing score is to count as.")
        return np.where(np.isfinite(self.scores), self.scores, value)

    def mean(self, *, seed: int = 0) -> Estimate:
        """Mean of the scores that there are; its `n` is less than the number of answers where some are missing.

        A law that silences a plant on hard prompts raises this mean: report `filled(0.0)` beside it.

        Raises:
            MetricError: if fewer than two answers were judged.
        """
        return mean_interval(self.judged, seed=seed)

    def summary(self) -> str:
        """For example "97 of 100 answers judged (2: empty answer; 1: timed out)"."""
        counts = "; ".join(f"{n}: {why}" for why, n in Counter(self.missing.values()).most_common())
        cut = f"; {len(self.truncated)} read in part" if self.truncated else ""
        gaps = f" ({counts})" if counts else ""
        return f"{len(self.judged)} of {len(self)} answers judged{gaps}{cut}"


class Judge(Protocol):
    """Anything that scores answers.

    Attributes:
        name: for tables.
        version: hash of what decides its scores.
    """

    name: str
    version: str

    def score(self, prompts: Sequence[str], answers: Sequence[str | None]) -> Judgement:
        """Score each answer to its prompt."""
        ...


class BaseJudge(ABC):
    """A judge that is asked only about what can be judged; a subclass writes `opinions`."""

    name: str
    version: str

    @abstractmethod
    def opinions(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Opinion]:
        """One opinion for each answer, none of which is blank; the lists are not empty."""

    def score(self, prompts: Sequence[str], answers: Sequence[str | None]) -> Judgement:
        """Score each answer to its prompt.

        Args:
            prompts: one for each answer.
            answers: texts; None or a blank text has no score.

        Raises:
            JudgeError: if there is nothing to judge, or the lists differ in length.
            TypeError: if a list is one string, or holds something else than texts.
        """
        _check(prompts, answers, self.name)
        missing = {i: ABSENT if text is None else BLANK for i, text in enumerate(answers) if not (text or "").strip()}
        kept = [i for i in range(len(answers)) if i not in missing]
        found = self.opinions([prompts[i] for i in kept], [str(answers[i]) for i in kept]) if kept else []
        scores = np.full(len(answers), np.nan)
        for place, opinion in zip(kept, found, strict=True):
            if opinion.score is None:
                missing[place] = opinion.why or "the judge gave no reason"
            elif math.isfinite(opinion.score):
                scores[place] = opinion.score
            else:
                missing[place] = f"the judge gave {opinion.score}"
        cut = tuple(place for place, opinion in zip(kept, found, strict=True) if opinion.truncated)
        return Judgement(scores, dict(sorted(missing.items())), self.name, self.version, cut)


def _check(prompts: Sequence[str], answers: Sequence[str | None], name: str) -> None:
    for what, texts in (("prompts", prompts), ("answers", answers)):
        if isinstance(texts, str):
            raise TypeError(f"{name}: {what} is one string, expected a list of them. Fix: [text].")
        for i, text in enumerate(texts):
            if not isinstance(text, str) and not (what == "answers" and text is None):
                raise TypeError(f"{name}: {what} number {i} is {type(text).__name__}, expected a string.")
    if len(prompts) != len(answers):
        raise JudgeError(f"{name}: got {len(prompts)} prompts and {len(answers)} answers, expected as many.")
    if not len(answers):
        raise JudgeError(f"{name}: got no answer, expected at least one.")
