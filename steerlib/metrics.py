"""Measures of a controlled plant, with intervals: effect, effort, fluency.

Each metric is defined once, here. Knows numbers and logits; knows nothing about tasks or about what an answer means.
"""

from __future__ import annotations

import os.path
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats

from steerlib.actuator import Actuator
from steerlib.errors import MetricError
from steerlib.plant import Plant

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


def _checked(values: Sequence[float] | np.ndarray, what: str) -> np.ndarray:
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
    array = _checked(values, "mean_interval")
    if len(array) < 2:
        raise MetricError("mean_interval: got one value, expected at least two: one value says nothing about spread.")
    if np.ptp(array) == 0:
        return Estimate(float(array[0]), float(array[0]), float(array[0]), len(array))
    return _bootstrap((array,), np.mean, level=level, seed=seed, resamples=resamples)


def central_range(values: Sequence[float] | np.ndarray, *, coverage: float = 0.95) -> Estimate:
    """Mean of several draws and the range that holds most of them: what a negative control does from seed to seed.

    This is a range of the draws, not a confidence interval of their mean: an effect inside it is what chance can do.

    Raises:
        MetricError: if there are fewer than two draws, or one is not finite.
    """
    array = _checked(values, "central_range")
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
    a, b = _checked(first, "product_interval"), _checked(second, "product_interval")
    if len(a) != len(b) or len(a) < 2:
        raise MetricError(
            f"product_interval: got {len(a)} and {len(b)} values, expected as many of both, at least two."
        )
    if np.ptp(a) == 0 and np.ptp(b) == 0:
        point = float(a[0] * b[0])
        return Estimate(point, point, point, len(a))

    def statistic(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean(x, axis=axis) * np.mean(y, axis=axis)

    return _bootstrap((a, b), statistic, level=level, seed=seed, resamples=resamples)


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
    data = tuple(_checked(values, "product_difference") for values in (*treated, *control))
    if len({len(values) for values in data}) > 1 or len(data[0]) < 2:
        raise MetricError(
            f"product_difference: got {[len(v) for v in data]} values, expected as many of each, at least two."
        )

    def statistic(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.mean(a, axis=axis) * np.mean(b, axis=axis) - np.mean(c, axis=axis) * np.mean(d, axis=axis)

    if np.array_equal(data[0], data[2]) and np.array_equal(data[1], data[3]):
        return Estimate(0.0, 0.0, 0.0, len(data[0]))
    return _bootstrap(data, statistic, level=level, seed=seed, resamples=resamples)


def _bootstrap(data: tuple[np.ndarray, ...], statistic, *, level: float, seed: int, resamples: int) -> Estimate:  # noqa: ANN001
    with warnings.catch_warnings():
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
    arrays = tuple(_checked(values, "interval_of") for values in data)
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
    a, b = _checked(positive, "auc_interval, positive"), _checked(negative, "auc_interval, negative")
    above = (a[:, None] > b) + 0.5 * (a[:, None] == b)
    rng = np.random.default_rng(seed)
    first = rng.multinomial(len(a), np.full(len(a), 1 / len(a)), size=resamples)
    second = rng.multinomial(len(b), np.full(len(b), 1 / len(b)), size=resamples)
    draws = ((first @ above) * second).sum(1) / above.size  # counts are divided last, so that 1 is exactly 1
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    value = float(above.mean())
    return Estimate(value, min(float(low), value), max(float(high), value), len(a) + len(b))


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
    a, b = _checked(treated, "paired_difference"), _checked(control, "paired_difference")
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


@dataclass(frozen=True)
class Divergence:
    """Divergence of the steered plant from the unsteered one, nats for each answer token: mean and 95th percentile."""

    mean: float
    p95: float
    tokens: int


def kl_per_token(
    plant: Plant, steering: Actuator, prompts: Sequence[str], answers: Sequence[str], *, batch_size: int = 64
) -> Divergence:
    """KL(steered || unsteered) of the next token at each token of the answers: effort as the reader feels it.

    Args:
        plant: the plant, with nothing attached that should not be in both passes.
        steering: what `plant.under(...)` returned; entered for one of the two passes.
        prompts: one for each answer.
        answers: texts written by the steered plant, so that the divergence is met where the plant goes.
        batch_size: rows at a time.

    Raises:
        MetricError: if no answer has a token.
    """
    kept = [(p, a) for p, a in zip(prompts, answers, strict=True) if a.strip()]
    if not kept:
        raise MetricError("kl_per_token: every answer is empty.")
    found: list[torch.Tensor] = []
    heads, rows = plant._ids([p for p, _ in kept]), plant._ids([p + a for p, a in kept])
    # An answer may begin inside a word; its tokens are those after the ones that prompt and text share.
    starts = [len(os.path.commonprefix(pair)) for pair in zip(heads, rows, strict=True)]
    for start in range(0, len(kept), batch_size):
        batch = plant._pad(rows[start : start + batch_size])
        lengths = torch.tensor(starts[start : start + batch_size], device=plant.device)
        # Both passes replay the writing of the answer, so that a law acts on the tokens it acted on then.
        with torch.inference_mode(), plant.passing(prompt_lengths=lengths, teacher_forced=True):
            free = plant._logits(batch)[:, :-1].float().log_softmax(-1)
            with steering:
                steered = plant._logits(batch)[:, :-1].float().log_softmax(-1)
        divergence = (steered.exp() * (steered - free)).sum(-1)
        ordinal = batch.attention_mask.cumsum(1)[:, 1:]
        answer = batch.attention_mask[:, 1:].bool() & (ordinal > lengths[:, None])
        found.append(divergence[answer].double().cpu())
    values = torch.cat(found)
    return Divergence(float(values.mean()), float(values.quantile(0.95)), len(values))


def perplexity(plant: Plant, prompts: Sequence[str], answers: Sequence[str], *, batch_size: int = 64) -> float:
    """Perplexity of the answers given their prompts: exp of the mean negative log probability of an answer token.

    Read it under another plant than the one that wrote the answers, or at least an unsteered one.

    Raises:
        MetricError: if an answer is empty.
    """
    if any(not answer for answer in answers):
        raise MetricError("perplexity: got an empty answer, which has none. Fix: count empty answers on their own.")
    logs = plant.logprobs(prompts, answers, batch_size=batch_size)
    whole = plant._ids([p + a for p, a in zip(prompts, answers, strict=True)])
    tokens = sum(map(len, whole)) - sum(map(len, plant._ids(prompts)))
    return float(torch.exp(-logs.sum() / tokens))


def dist_n(texts: Sequence[str], n: int, *, pooled: bool = False) -> float:
    """Dist-n: distinct n-grams of words over all n-grams (Li et al. 2016).

    Args:
        texts: answers.
        n: length of the n-grams.
        pooled: count over all texts together instead of averaging over texts.

    Raises:
        MetricError: if n is below one, or no text has n words.
    """
    if n < 1:
        raise MetricError(f"dist_n: got n = {n}, expected at least 1.")
    grams = [[tuple(words[i : i + n]) for i in range(len(words) - n + 1)] for words in (t.split() for t in texts)]
    grams = [row for row in grams if row]
    if not grams:
        raise MetricError(f"dist_n: no text has {n} words.")
    if pooled:
        return len({g for row in grams for g in row}) / sum(map(len, grams))
    return float(np.mean([len(set(row)) / len(row) for row in grams]))


def gap_closed(value: float, *, start: float, goal: float) -> float:
    """How much of the way from `start` to `goal` a value has come; 1 is all of it.

    Raises:
        MetricError: if there is no gap to close.
    """
    if start == goal:
        raise MetricError(f"gap_closed: start and goal are both {start}.")
    return (value - start) / (goal - start)
