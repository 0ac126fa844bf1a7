"""How good a value is: its correlation and calibration with the reward, at each token of an answer.

A value is calibrated if answers of value v earn v on average: then the regression of r on V_t has slope 1 and intercept
0 at every t, however little V_t knows. What it knows is in the correlation, which should rise with t as the answer
takes shape. One that stays at the level of the prompt tells a value that learned nothing about the continuation.

Judge on trajectories that were not trained on. Knows numbers; knows nothing about networks or plants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlib.errors import MetricError
from steerlib.metrics import Estimate, mean_interval
from steerlib.metrics.intervals import bootstrap

#: Standard errors to either side of a 95 % interval.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Quality:
    """A value beside the rewards, at one position.

    Attributes:
        position: of the state; from 0 for the prompt's, or from -1 backwards for those counted from the end.
        n: answers that have it.
        correlation: of V with r (Pearson); NaN where one of the two does not vary, or of fewer than 4 answers.
        low: lower end of its 95 % interval, by Fisher's transformation.
        high: upper end.
        slope: of the regression of r on V; 1 if calibrated, below if V is too sure.
        intercept: of that regression; 0 if calibrated.
        error: mean of (V - r)^2.
    """

    position: int
    n: int
    correlation: float
    low: float
    high: float
    slope: float
    intercept: float
    error: float


def quality_by_position(
    values: Float[Tensor, "n time"], rewards: Float[Tensor, " n"], *, counted: Literal["start", "end"] = "start"
) -> list[Quality]:
    """A `Quality` for each position that an answer has.

    Args:
        values: V of right-padded rows, NaN after the end; see `Fitted.predict`.
        rewards: r of each row.
        counted: from the "start", or from the "end", where long and short answers are equally far.

    Raises:
        MetricError: if the shapes do not fit.
    """
    if values.ndim != 2 or rewards.shape != values.shape[:1]:
        raise MetricError(
            f"quality: got values of shape {tuple(values.shape)} and rewards of shape {tuple(rewards.shape)}, expected "
            "(answers, time) and (answers,)."
        )
    v, r = values.double(), rewards.double()
    if counted == "end":
        # Each row moves to the right by its padding, so that its last state stands in the last column.
        lengths = (~v.isnan()).sum(1, keepdim=True)
        v = v.gather(1, (torch.arange(v.shape[1]) + lengths) % v.shape[1])
    columns = range(v.shape[1])
    return [
        _quality(t if counted == "start" else t - v.shape[1], v[there, t], r[there])
        for t in columns
        if bool((there := ~v[:, t].isnan()).any())
    ]


def _quality(position: int, v: Float[Tensor, " n"], r: Float[Tensor, " n"]) -> Quality:
    dv, dr = v - v.mean(), r - r.mean()
    varied = len(v) >= 4 and float(dv.norm()) > 1e-9 * float(v.norm()) and float(dr.norm()) > 1e-9 * float(r.norm())
    correlation = min(max(float(dv @ dr / (dv.norm() * dr.norm())), -1.0), 1.0) if varied else math.nan
    slope = float(dv @ dr / (dv @ dv)) if varied else math.nan
    half = Z95 / math.sqrt(len(v) - 3) if varied else math.nan
    middle = math.copysign(math.inf, correlation) if abs(correlation) == 1 else math.atanh(correlation)
    return Quality(
        position, len(v), correlation, math.tanh(middle - half), math.tanh(middle + half), slope,
        float(r.mean()) - slope * float(v.mean()), float((v - r).square().mean()),
    )  # fmt: skip


@dataclass(frozen=True)
class Bin:
    """States of about the same value.

    Attributes:
        value: their mean V.
        reward: mean reward of the answers they lie in.
        error: standard error of that mean.
        n: how many.
    """

    value: float
    reward: float
    error: float
    n: int


def calibration(values: Float[Tensor, " n"], rewards: Float[Tensor, " n"], *, bins: int = 10) -> list[Bin]:
    """Mean reward in bins of equal numbers of states, ordered by value; on the diagonal if calibrated.

    Take one state of each answer: several of one answer share a reward, and the errors would be too small.

    Args:
        values: V of one state of each answer.
        rewards: r of each answer.
        bins: how many; fewer where there are fewer answers.

    Raises:
        MetricError: if the shapes do not fit, or there is no answer.
    """
    if values.ndim != 1 or values.shape != rewards.shape or not len(values) or bins < 1:
        raise MetricError(
            f"calibration: got values of shape {tuple(values.shape)}, rewards of shape {tuple(rewards.shape)} and "
            f"{bins} bins, expected two equal, non-empty vectors and at least one bin."
        )
    order = values.argsort(stable=True)
    parts = order.tensor_split(min(bins, len(order)))
    return [
        Bin(
            float(values[part].double().mean()), float(rewards[part].double().mean()),
            float(rewards[part].double().std() / math.sqrt(len(part))) if len(part) > 1 else math.nan, len(part),
        )
        for part in parts
    ]  # fmt: skip


# Against the true value, known by Monte-Carlo continuation; see `steerlib.continuing`


def ceiling(
    mean: Float[Tensor, " n"], error: Float[Tensor, " n"], *, samples: int, seed: int = 0, resamples: int = 1000
) -> Estimate:
    """The correlation with the reward that the true value itself would have: what no value can exceed by knowing more.

    The true value explains Var V of the variance Var V + E Var[r | s] of the rewards, so its correlation is the root
    of that share. A mean over continuations scatters around the true value; that part, the mean square of the errors,
    is taken off.

    Args:
        mean: reward of the continuations of each state, one state of each answer.
        error: standard error of each mean.
        samples: continuations of each.
        seed: of the resampling of answers that makes the interval.
        resamples: how many.

    Raises:
        MetricError: if the shapes do not fit, or there are fewer than four states.
    """
    _same_size("ceiling", mean, error)
    if len(mean) < 4 or samples < 2:
        raise MetricError(f"ceiling: got {len(mean)} states of {samples} continuations, expected 4 and 2 at least.")

    def share(m: np.ndarray, noise: np.ndarray, axis: int = -1) -> np.ndarray:
        known = np.maximum(m.var(axis=axis, ddof=1) - noise.mean(axis=axis), 0.0)
        whole = known + samples * noise.mean(axis=axis)
        return np.sqrt(known / np.where(whole > 0, whole, 1.0))

    return bootstrap(
        (mean.double().numpy(), error.double().square().numpy()), share, level=0.95, seed=seed, resamples=resamples
    )


def value_error(
    values: Float[Tensor, " n"], mean: Float[Tensor, " n"], error: Float[Tensor, " n"], owners: Int[Tensor, " n"]
) -> Estimate:
    """Mean of (V - true value)^2 over states, with the interval that resampling whole answers gives.

    The scatter of the means over continuations is taken off, so that the true value itself has error 0 on average; the
    estimate may then fall below zero.

    Args:
        values: V of each state.
        mean: reward of its continuations.
        error: standard error of that mean.
        owners: the answer that each state is of; every answer counts alike.

    Raises:
        MetricError: if the shapes do not fit, or the states are of fewer than two answers.
    """
    each = value_errors(values, mean, error, owners)
    return mean_interval(each.numpy())


def value_errors(
    values: Float[Tensor, " n"], mean: Float[Tensor, " n"], error: Float[Tensor, " n"], owners: Int[Tensor, " n"]
) -> Float[Tensor, " answers"]:
    """What `value_error` averages, answer by answer, so that two values can be compared in pairs."""
    _same_size("value_error", values, mean, error, owners)
    off = (values.double() - mean.double()).square() - error.double().square()
    _, place = owners.unique(return_inverse=True)
    counts = torch.bincount(place).double()
    return torch.zeros_like(counts).index_add(0, place, off) / counts


def _same_size(what: str, *vectors: Tensor) -> None:
    shapes = [tuple(vector.shape) for vector in vectors]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1 or not len(vectors[0]):
        raise MetricError(f"{what}: got shapes {shapes}, expected equal, non-empty vectors.")
