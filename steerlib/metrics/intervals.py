"""Estimates with intervals, and tests of differences.

Knows numbers, the units they belong to (prompts, seeds) and how to resample them. Knows nothing about models, texts
or what a number means.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from steerlib.errors import MetricError

Values = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end.
        n: units that were resampled (prompts, or prompts times seeds).
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """For example "0.57 [0.55, 0.59]"."""
        return f"{self.value:z.2f} [{self.low:z.2f}, {self.high:z.2f}]"


def checked(values: Sequence[float] | np.ndarray, what: str) -> np.ndarray:
    """Finite values in one dimension, at least one; MetricError names what they are for."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise MetricError(f"{what}: got shape {array.shape}, expected at least one value in one dimension.")
    if not np.isfinite(array).all():
        raise MetricError(f"{what}: value {int(np.flatnonzero(~np.isfinite(array))[0])} is not finite.")
    return array


def mean_interval(
    values: Sequence[float] | np.ndarray, *, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> Estimate:
    """Mean with a bootstrap interval over the values (BCa; Efron 1987).

    Values that are all equal have an interval of length zero; a single value has none and is refused.

    Raises:
        MetricError: if there are fewer than two values, or one is not finite.
    """
    array = checked(values, "mean_interval")
    if len(array) < 2:
        raise MetricError("mean_interval: got one value, expected at least two: one value says nothing about spread.")
    if np.ptp(array) == 0:
        return Estimate(float(array[0]), float(array[0]), float(array[0]), len(array))
    return bootstrap((array,), np.mean, level=level, seed=seed, resamples=resamples)


def central_range(values: Sequence[float] | np.ndarray, *, coverage: float = 0.95) -> Estimate:
    """Mean of several draws and the range that holds most of them: what a negative control does from seed to seed.

    This is a range of the draws, not a confidence interval of their mean: an effect inside it is what chance can do.

    Raises:
        MetricError: if there are fewer than two draws, or one is not finite.
    """
    array = checked(values, "central_range")
    if len(array) < 2:
        raise MetricError("central_range: got one draw, expected at least two.")
    low, high = np.quantile(array, [(1 - coverage) / 2, (1 + coverage) / 2])
    mean = float(array.mean())
    return Estimate(mean, min(float(low), mean), max(float(high), mean), len(array))


def product_interval(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> Estimate:
    """Product of two means over the same prompts, as the papers combine True and Info; prompts resampled in pairs.

    Raises:
        MetricError: if the lengths differ, or there are fewer than two prompts.
    """
    a, b = checked(first, "product_interval"), checked(second, "product_interval")
    if len(a) != len(b) or len(a) < 2:
        raise MetricError(
            f"product_interval: got {len(a)} and {len(b)} values, expected as many of both, at least two."
        )
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        point = float(a[0] * b[0])
        return Estimate(point, point, point, len(a))

    def statistic(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean(x, axis=axis) * np.mean(y, axis=axis)

    return bootstrap((a, b), statistic, level=level, seed=seed, resamples=resamples)


def bootstrap(data: tuple[np.ndarray, ...], statistic, *, level: float, seed: int, resamples: int) -> Estimate:  # noqa: ANN001
    """BCa interval of a statistic of paired values; a percentile interval where BCa is undefined."""
    # Where BCa is undefined, below, scipy divides by zero on the way and says so.
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.filterwarnings("ignore", category=stats.DegenerateDataWarning)
        result = stats.bootstrap(
            data, statistic, paired=len(data) > 1, vectorized=True, confidence_level=level, n_resamples=resamples,
            rng=np.random.default_rng(seed), method="BCa",
        )  # fmt: skip
    value = float(statistic(*data))
    low, high = (float(end) for end in result.confidence_interval)
    if not np.isfinite([low, high]).all():  # BCa is undefined when nearly all values are equal
        draws = np.quantile(result.bootstrap_distribution, [(1 - level) / 2, (1 + level) / 2])
        low, high = float(draws[0]), float(draws[1])
    return Estimate(value, min(low, value), max(high, value), len(data[0]))


def interval_of(
    statistic: Callable[..., np.ndarray],
    *data: np.ndarray,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> Estimate:
    """Any statistic of paired values, with a percentile bootstrap interval; all values of a unit are drawn together.

    Args:
        statistic: takes one array for each of ``data`` and reduces their last axis.
        data: values of equal length, one for each unit (prompt).
        level: coverage of the interval.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        MetricError: if the lengths differ, or there are fewer than two units.
    """
    arrays = tuple(checked(values, "interval_of") for values in data)
    if not arrays or len({len(values) for values in arrays}) > 1 or len(arrays[0]) < 2:
        raise MetricError(f"interval_of: got {[len(v) for v in arrays]} values, expected as many of each, at least 2.")
    n = len(arrays[0])
    index = np.random.default_rng(seed).integers(n, size=(resamples, n))
    value = float(statistic(*arrays))
    draws = statistic(*(values[index] for values in arrays))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, min(float(low), value), max(float(high), value), n)


def auc_interval(
    positive: Sequence[float] | np.ndarray,
    negative: Sequence[float] | np.ndarray,
    *,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 1000,
) -> Estimate:
    """Area under the ROC curve: the chance that a positive reading is above a negative one, ties counting half.

    0.5 says that the sensor cannot tell the classes apart. The interval is a percentile bootstrap that draws each
    class anew.

    Raises:
        MetricError: if a class has no reading, or one is not finite.
    """
    a, b = checked(positive, "auc_interval, positive"), checked(negative, "auc_interval, negative")
    above = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    rng = np.random.default_rng(seed)
    first = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), size=resamples)
    second = rng.multinomial(len(b), np.full(len(b), 1 / len(b)), size=resamples)
    draws = ((first @ above) * second).sum(1) / above.size  # counts are divided last, so that 1 is exactly 1
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    value = float(above.mean())
    return Estimate(value, min(float(low), value), max(float(high), value), len(a) + len(b))


def grid_interval(values: np.ndarray, *, level: float = 0.95, seed: int = 0, resamples: int = 1000) -> Estimate:
    """Mean over prompts and seeds, with an interval that draws both anew.

    Two scores of one prompt under two seeds are not two observations, nor are the scores of one seed on many prompts
    when the seed also chose what a law was fitted on. So rows and columns are drawn independently (the pigeonhole
    bootstrap; Owen 2007), which is slightly conservative. With one seed only prompts are drawn.

    Args:
        values: scores of shape (seeds, prompts).
        level: coverage of the interval.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        MetricError: if the array is not two-dimensional, has fewer than two prompts, or a value is not finite.
    """
    grid = checked_grid(values, "grid_interval")
    return Estimate(float(grid.mean()), *_grid_ends(grid, level=level, seed=seed, resamples=resamples), grid.size)


def checked_grid(values: np.ndarray, what: str) -> np.ndarray:
    """Scores of several seeds on the same prompts, as an array of shape (seeds, prompts)."""
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim != 2 or grid.shape[0] < 1 or grid.shape[1] < 2:
        raise MetricError(f"{what}: got shape {grid.shape}, expected (seeds, prompts) with at least two prompts.")
    if not np.isfinite(grid).all():
        row, column = np.argwhere(~np.isfinite(grid))[0]
        raise MetricError(f"{what}: the value of seed {row}, prompt {column} is not finite.")
    return grid


def _grid_ends(grid: np.ndarray, *, level: float, seed: int, resamples: int) -> tuple[float, float]:
    """Ends of the pigeonhole bootstrap interval of the mean, never inside the mean."""
    rng = np.random.default_rng(seed)
    seeds, prompts = grid.shape
    # How often each row and column is drawn: the mean of a resample is a bilinear form in the two counts.
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    columns = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples) / prompts
    draws = ((rows @ grid) * columns).sum(1)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    mean = float(grid.mean())
    return min(float(low), mean), max(float(high), mean)
