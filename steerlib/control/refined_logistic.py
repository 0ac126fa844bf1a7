"""Logistic regression on many wide states: fitted in float32, then refined until float64 finds nothing left to do.

The objective is that of `steerlib.control.logistic`, and the method that of `steerlib.control.wide_logistic`, most of
whose time goes into reading the table once for each product with the Hessian. A step of Newton's method need not be
exact to lead to the optimum; its gradient must. So steps are solved for in float32, in half of the time, and the
gradient whose zero they seek is computed in float64 from the states as they came, as in iterative refinement of a
linear system (Higham 2002, chapter 12). Two or three such gradients suffice.

Knows tensors; knows nothing about plants, sites or laws.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.control.logistic import LogisticFit
from steerlib.control.wide_logistic import _GOAL, _best_bias, _conjugate, _leading, fit_wide
from steerlib.errors import ContrastError

_STEPS = 6  # in float64; two or three are usual
_SOLVED = 1e-4  # of the gradient that a step leaves; float32 may make it more
_GAIN = 0.1  # of the gradient that must remain at most, or float32 does not resolve these states
_ROWS = 256  # that are held in float64 at a time: few enough to stay in a processor's cache


def fit_refined(
    positive: Float[Tensor, "positives width"], negative: Float[Tensor, "negatives width"], *, c: float = 1.0
) -> LogisticFit:
    """Fit a probe that tells positive states from negative ones, to the optimum that float64 finds.

    Args:
        positive: states of the class with label 1.
        negative: states of the class with label 0.
        c: inverse strength of the penalty, scikit-learn's C.

    Raises:
        ContrastError: as `wide_logistic.fit_wide`, which is also what fits states that float32 does not resolve.
    """
    sets = (positive.detach(), negative.detach())
    found = _refined(sets, c)
    return fit_wide(torch.cat(sets).double(), len(positive), c=c, spoil=True) if found is None else found


def _refined(sets: tuple[Tensor, Tensor], c: float) -> LogisticFit | None:
    """The fit, or None where steps in float32 do not lead to the optimum."""
    table = torch.cat(sets).float()
    origin = table.mean(0, dtype=torch.float64)
    try:
        begun = fit_wide(table, len(sets[0]), c=c, spoil=True)  # which leaves the table centred
    except ContrastError:
        return None
    sign = torch.ones(len(table), dtype=torch.float64, device=table.device)
    sign[len(sets[0]) :] = -1
    level = _best_bias(torch.zeros_like(sign), sign, sign.new_zeros(()))
    goal = _GOAL[torch.float64][0] * max(float((table.T @ _pull(level, sign, c).float()).norm()), 1e-3)
    point, solve, before = begun.weight, None, float("inf")
    bias = begun.bias + origin @ point  # about the mean, where it is not the small difference of large numbers
    for _ in range(_STEPS):
        along = torch.cat([block @ point for block in _blocks(sets)]) - origin @ point
        bias = _best_bias(along, sign, bias)
        margins = along + bias
        pull = _pull(margins, sign, c)
        slope = point - pull.sum() * origin
        for block, part in zip(_blocks(sets), _parts(sets, pull), strict=True):
            slope += block.T @ part
        length = float(slope.norm())
        if length <= goal:
            return LogisticFit(point, bias - origin @ point, bool((sign * margins > 0).all()), length)
        if not length <= _GAIN * before:
            return None
        curvature = (c * torch.sigmoid(margins) * torch.sigmoid(-margins)).float()
        solve, before = solve or _leading(table, curvature), length
        point = point - _conjugate(table, curvature, slope.float(), solve, _SOLVED).double()
    return None


def _pull(margins: Tensor, sign: Tensor, c: float) -> Tensor:
    """Derivative of the losses by the log odds; their sum over all examples is zero at the best bias."""
    return -c * sign * torch.sigmoid(-sign * margins)


def _blocks(sets: tuple[Tensor, Tensor]) -> Iterator[Tensor]:
    return (states[start : start + _ROWS].double() for states in sets for start in range(0, len(states), _ROWS))


def _parts(sets: tuple[Tensor, Tensor], values: Tensor) -> Iterator[Tensor]:
    halves = values.split([len(states) for states in sets])
    return (half[start : start + _ROWS] for half in halves for start in range(0, len(half), _ROWS))
