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

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.errors import MetricError

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
