"""Differences between methods: paired tests, corrections for many of them, and what a test could have seen.

Knows numbers that belong together prompt by prompt. Knows nothing about methods or claims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from steerlib.errors import MetricError
from steerlib.metrics.intervals import Estimate, bootstrap, checked, checked_grid, grid_interval, mean_interval


@dataclass(frozen=True)
class Difference:
    """A paired difference: its interval, and the p-value of a two-sided sign-flip permutation test."""

    value: float
    low: float
    high: float
    p: float
    n: int


def paired_difference(
    treated: Sequence[float] | np.ndarray,
    control: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Difference:
    """Mean of treated minus control over the same prompts and seeds.

    Raises:
        MetricError: if the lengths differ, or there are fewer than two pairs.
    """
    a, b = checked(treated, "paired_difference"), checked(control, "paired_difference")
    if len(a) != len(b):
        raise MetricError(f"paired_difference: got {len(a)} and {len(b)} values, expected pairs.")
    gaps = a - b
    estimate = mean_interval(gaps, level=level, seed=seed, resamples=resamples)
    if np.ptp(gaps) == 0 and gaps[0] == 0:
        return Difference(0.0, 0.0, 0.0, 1.0, len(gaps))
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(resamples, len(gaps)))
    null = np.abs(signs @ gaps) / len(gaps)
    p = float((1 + (null >= abs(gaps.mean()) - 1e-15).sum()) / (1 + resamples))
    return Difference(estimate.value, estimate.low, estimate.high, p, estimate.n)


def paired_grid_difference(
    treated: np.ndarray,
    control: np.ndarray,
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Difference:
    """Mean of treated minus control over the same prompts and seeds.

    The interval draws prompts and seeds anew (`grid_interval`); the p-value flips the sign of each prompt's mean
    difference, for prompts are what the claim is about and seeds are few.

    Args:
        treated: scores of shape (seeds, prompts).
        control: the same without.
        level: coverage of the interval.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        MetricError: if the shapes differ, or there are fewer than two prompts.
    """
    a, b = checked_grid(treated, "paired_grid_difference"), checked_grid(control, "paired_grid_difference")
    if a.shape != b.shape:
        raise MetricError(f"paired_grid_difference: got shapes {a.shape} and {b.shape}, expected equal ones.")
    found = grid_interval(a - b, level=level, seed=seed, resamples=resamples)
    p = paired_difference(a.mean(0), b.mean(0), seed=seed, resamples=resamples).p
    return Difference(found.value, found.low, found.high, p, found.n)


def holm(p_values: Sequence[float] | np.ndarray) -> Float[np.ndarray, " tests"]:
    """Holm's adjusted p-values: comparing them with a level keeps the chance of any false finding below it.

    Raises:
        MetricError: if a value is no probability.
    """
    p = _probabilities(p_values, "holm")
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def false_discovery(p_values: Sequence[float] | np.ndarray) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values of Benjamini and Hochberg: the share of false findings among those below a level.

    Raises:
        MetricError: if a value is no probability.
    """
    return stats.false_discovery_control(_probabilities(p_values, "false_discovery"))


def _probabilities(values: Sequence[float] | np.ndarray, what: str) -> np.ndarray:
    p = checked(values, what)
    if p.min() < 0 or p.max() > 1:
        raise MetricError(f"{what}: got values from {p.min():g} to {p.max():g}, expected probabilities.")
    return p


def detectable_effect(differences: Sequence[float] | np.ndarray, *, level: float = 0.05, power: float = 0.8) -> float:
    """Smallest true mean difference that a two-sided paired test would find with this power, given the spread seen.

    It stands beside every "not reproduced": an effect smaller than this could have been missed.

    Args:
        differences: treated minus control, one for each unit.
        level: of the test.
        power: chance to find it.

    Raises:
        MetricError: if there are fewer than two differences, or level or power is not between 0 and 1.
    """
    gaps = checked(differences, "detectable_effect")
    if len(gaps) < 2:
        raise MetricError("detectable_effect: got one difference, expected at least two.")
    if not (0 < level < 1 and 0 < power < 1):
        raise MetricError(f"detectable_effect: got level {level}, power {power}; expected both between 0 and 1.")
    freedom = len(gaps) - 1
    reach = stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(power, freedom)
    return float(reach * gaps.std(ddof=1) / np.sqrt(len(gaps)))


def product_difference(
    treated: tuple[np.ndarray, np.ndarray],
    control: tuple[np.ndarray, np.ndarray],
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """Difference of two products of means over the same prompts, prompts resampled with all four scores together.

    Args:
        treated: the two scores of each prompt under treatment, such as True and Info.
        control: the same without.
        level: coverage of the interval.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        MetricError: if the lengths differ, or there are fewer than two prompts.
    """
    data = tuple(checked(values, "product_difference") for values in (*treated, *control))
    if len({len(values) for values in data}) > 1 or len(data[0]) < 2:
        raise MetricError(
            f"product_difference: got {[len(v) for v in data]} values, expected as many of each, at least two."
        )

    def statistic(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean(a, axis=axis) * np.mean(b, axis=axis) - np.mean(c, axis=axis) * np.mean(d, axis=axis)

    if np.array_equal(data[0], data[2]) and np.array_equal(data[1], data[3]):
        return Estimate(0.0, 0.0, 0.0, len(data[0]))
    return bootstrap(data, statistic, level=level, seed=seed, resamples=resamples)


def gap_closed(value: float, *, start: float, goal: float) -> float:
    """How much of the way from `start` to `goal` a value has come; 1 is all of it.

    Raises:
        MetricError: if there is no gap to close.
    """
    if start == goal:
        raise MetricError(f"gap_closed: start and goal are both {start}.")
    return (value - start) / (goal - start)
