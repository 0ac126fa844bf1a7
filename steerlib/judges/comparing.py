"""Do two judges agree? More than chance would, and with an interval.

Knows pairs of judgements. Knows nothing about what was judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steerlib.errors import MetricError
from steerlib.judges.base import Judgement
from steerlib.metrics import Estimate, auc_interval, mean_interval

#: More resamples than this share in which kappa has no meaning, and it has no interval.
MOST_UNDEFINED = 0.05


@dataclass(frozen=True)
class Agreement:
    """How far two judges say the same, yes or no.

    Attributes:
        kappa: Cohen's kappa (Cohen 1960): 0 for what chance would do with the same shares of yes, 1 for the same.
        same: share of answers on which they say the same, which two judges that always say yes reach as well.
        yes: share of yes of the first and of the second.
        left_out: answers that one of them did not judge.
    """

    kappa: Estimate
    same: Estimate
    yes: tuple[float, float]
    left_out: int


def _both(first: Judgement, second: Judgement) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the answers that both have judged."""
    if len(first) != len(second):
        raise MetricError(f"agreement: got {len(first)} and {len(second)} answers, expected the same ones.")
    kept = np.isfinite(first.scores) & np.isfinite(second.scores)
    if kept.sum() < 2:
        raise MetricError(
            f"agreement: {int(kept.sum())} of {len(first)} answers are judged by both {first.judge} and "
            f"{second.judge}, expected at least two."
        )
    return first.scores[kept], second.scores[kept]


def _kappa(counts: np.ndarray) -> np.ndarray:
    """Kappa of tables [..., no-no, no-yes, yes-no, yes-yes]; NaN where both give one and the same answer."""
    shares = counts / counts.sum(-1, keepdims=True)
    same = shares[..., 0] + shares[..., 3]
    a, b = shares[..., 2] + shares[..., 3], shares[..., 1] + shares[..., 3]
    chance = a * b + (1 - a) * (1 - b)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(1 - chance > 1e-12, (same - chance) / (1 - chance), np.nan)


def agreement(
    first: Judgement,
    second: Judgement,
    *,
    threshold: float | tuple[float, float] = 0.5,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Agreement:
    """Agreement of two judges on the answers that both have judged; the bootstrap draws answers.

    Args:
        first: one judge.
        second: the other, on the same answers.
        threshold: a score of at least this is a yes; a pair for judges with different scales.
        level: coverage of the intervals.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        MetricError: if fewer than two answers are judged by both, or the judges give the rarer answer so seldom that
            kappa has no meaning.
    """
    a, b = _both(first, second)
    one, two = threshold if isinstance(threshold, tuple) else (threshold, threshold)
    yes, yes_too = a >= one, b >= two
    table = np.bincount(2 * yes.astype(int) + yes_too, minlength=4)
    value = float(_kappa(table))
    draws = _kappa(np.random.default_rng(seed).multinomial(len(a), table / len(a), size=resamples))
    undefined = float(np.isnan(draws).mean())
    if np.isnan(value) or undefined > MOST_UNDEFINED:
        raise MetricError(
            f"agreement: {first.judge} says yes to {yes.sum()} of {len(a)} answers, {second.judge} to {yes_too.sum()}: "
            "too one-sided for kappa. Fix: judge answers of both kinds, or set another threshold."
        )
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    kappa = Estimate(value, min(float(low), value), max(float(high), value), len(a))
    same = mean_interval((yes == yes_too).astype(float), level=level, seed=seed, resamples=resamples)
    return Agreement(kappa, same, (float(yes.mean()), float(yes_too.mean())), len(first) - len(a))


def ranking(
    judge: Judgement,
    truth: Judgement,
    *,
    threshold: float = 0.5,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> Estimate:
    """Area under the ROC curve of a judge: the chance that it scores a truly good answer above a truly bad one.

    Unlike kappa it needs no threshold for the judge, so a reward model can be held against an oracle.

    Args:
        judge: the judge in question.
        truth: who decides what is good, such as the oracle.
        threshold: a score of `truth` of at least this is good.
        level: coverage of the interval.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        MetricError: if fewer than two answers are judged by both, or all of them are good, or all are bad.
    """
    scores, reference = _both(judge, truth)
    good = reference >= threshold
    if good.all() or not good.any():
        raise MetricError(
            f"ranking: {truth.judge} calls {int(good.sum())} of {len(good)} answers good, expected some of both kinds."
        )
    return auc_interval(scores[good], scores[~good], level=level, seed=seed, resamples=resamples)
