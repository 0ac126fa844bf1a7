"""Products of two scores over prompts and seeds, such as T*I, with intervals and a paired test.

Knows scores in arrays of shape (seeds, prompts). Knows nothing about methods. With one seed the numbers agree with
those of `intervals` and `differences`; with several, seeds are drawn anew as well as prompts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from steerlib.errors import MetricError
from steerlib.metrics.differences import Difference, detectable_effect
from steerlib.metrics.intervals import Estimate, checked_grid

#: Two scores of the same answers, each of shape (seeds, prompts).
Scored = tuple[np.ndarray, np.ndarray]


def _checked(pair: Scored, what: str) -> Scored:
    first, second = (checked_grid(values, what) for values in pair)
    if first.shape != second.shape:
        raise MetricError(f"{what}: got shapes {first.shape} and {second.shape}, expected equal ones.")
    return first, second


def _draws(pair: Scored, *, seed: int, resamples: int) -> np.ndarray:
    """Products of means of resamples; equal seeds draw equal rows and columns of arrays of equal shape."""
    rows, columns = _drawn(*pair[0].shape, seed, resamples)
    first, second = (((rows @ values) * columns).sum(1) for values in pair)
    return first * second


# A race compares hundreds of pairs of one shape: to draw is most of the work, and to draw once is enough.
@lru_cache(maxsize=8)
def _drawn(seeds: int, prompts: int, seed: int, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each row and each column is drawn, as shares, of shapes (resamples, seeds) and (resamples, prompts)."""
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    columns = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples) / prompts
    rows.flags.writeable = columns.flags.writeable = False
    return rows, columns


def _estimate(value: float, draws: np.ndarray, level: float, n: int) -> Estimate:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), n)


def product_grid_interval(
    first: np.ndarray, second: np.ndarray, *, level: float = 0.95, seed: int = 0, resamples: int = 1000
) -> Estimate:
    """Product of two means over prompts and seeds, with an interval that draws both anew (`grid_interval`).

    Args:
        first: scores of shape (seeds, prompts), such as True.
        second: the other score of the same answers, such as Info.
        level: coverage of the interval.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        MetricError: if the shapes differ, or there are fewer than two prompts.
    """
    pair = _checked((first, second), "product_grid_interval")
    value = float(pair[0].mean() * pair[1].mean())
    return _estimate(value, _draws(pair, seed=seed, resamples=resamples), level, pair[0].size)


def product_grid_difference(
    treated: Scored, control: Scored, *, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> Difference:
    """Difference of two products of means over the same prompts and seeds.

    The interval draws prompts and seeds anew, all four scores together. The p-value swaps treatment and control within
    prompts, both scores of a prompt at once, in every way that chance suggests: a product has no difference for each
    prompt whose sign could be flipped.

    Args:
        treated: the two scores under treatment, each of shape (seeds, prompts).
        control: the same without.
        level: coverage of the interval.
        seed: of the bootstrap and of the swaps.
        resamples: of both.

    Raises:
        MetricError: if the shapes differ, or there are fewer than two prompts.
    """
    a, b = (_checked(pair, "product_grid_difference") for pair in (treated, control))
    if a[0].shape != b[0].shape:
        raise MetricError(f"product_grid_difference: got shapes {a[0].shape} and {b[0].shape}, expected equal ones.")
    value = float(a[0].mean() * a[1].mean() - b[0].mean() * b[1].mean())
    draws = _draws(a, seed=seed, resamples=resamples) - _draws(b, seed=seed, resamples=resamples)
    found = _estimate(value, draws, level, a[0].size)
    return Difference(
        found.value, found.low, found.high, _swap_test(a, b, value, seed=seed, resamples=resamples), found.n
    )


def _swap_test(a: Scored, b: Scored, value: float, *, seed: int, resamples: int) -> float:
    (w, i), (v, j) = ([values.mean(0) for values in pair] for pair in (a, b))
    if np.array_equal(w, v) and np.array_equal(i, j):
        return 1.0
    swap = _swaps(len(w), seed, resamples)
    moved_first, moved_second = (swap @ (v - w)) / len(w), (swap @ (j - i)) / len(w)
    null = (w.mean() + moved_first) * (i.mean() + moved_second) - (v.mean() - moved_first) * (j.mean() - moved_second)
    return float((1 + (np.abs(null) >= abs(value) - 1e-15).sum()) / (1 + resamples))


@lru_cache(maxsize=8)
def _swaps(prompts: int, seed: int, resamples: int) -> np.ndarray:
    """Which prompts change sides, 0 or 1, of shape (resamples, prompts)."""
    swap = np.random.default_rng(seed).integers(2, size=(resamples, prompts))
    swap.flags.writeable = False
    return swap


def product_detectable_effect(treated: Scored, control: Scored, *, level: float = 0.05, power: float = 0.8) -> float:
    """Smallest true difference of products that a paired test over prompts would find, to first order.

    Args:
        treated: the two scores under treatment, each of shape (seeds, prompts).
        control: the same without.
        level: of the test.
        power: chance to find it.

    Raises:
        MetricError: if the shapes differ, or there are fewer than two prompts.
    """
    a, b = (_checked(pair, "product_detectable_effect") for pair in (treated, control))
    if a[0].shape != b[0].shape:
        raise MetricError(f"product_detectable_effect: got shapes {a[0].shape} and {b[0].shape}, expected equal ones.")
    # How much each prompt weighs in a product of means: its derivative.
    pull, push = (x.mean(0) * y.mean() + x.mean() * y.mean(0) for x, y in (a, b))
    return detectable_effect(pull - push, level=level, power=power)
