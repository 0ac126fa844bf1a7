"""Logistic regression between two classes of states, to the optimum and with a certificate.

Knows tensors; knows nothing about plants, sites or laws. The objective is scikit-learn's,

    c * sum_i log(1 + exp(-y_i (w.x_i + b))) + |w|^2 / 2,        y_i = +1 or -1, b without penalty,

so that "the defaults of LogisticRegression" in a paper means c = 1 here. It is strictly convex in w, with curvature at
least 1: the norm of its gradient bounds how far w is from the optimum, and that is how a fit shows that it is done.

Fitted by a truncated Newton method in float64 (Nocedal and Wright 2006, chapter 7). Raw states of a language model are
badly conditioned (a few coordinates are a thousand times as large as the rest), where first-order and quasi-Newton
methods need thousands of passes; here the conjugate gradient inside each Newton step is preconditioned with a Cholesky
factor of an earlier Hessian, so that a fit of 10,000 states of width 4,096 takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from steerlib.errors import ContrastError

_STEPS = 100  # Newton steps; ten to twenty are usual
_INNER = 80  # conjugate gradient iterations in one Newton step
_STALE = 20  # a preconditioner that needs more iterations than this is made anew
_LARGE = 4_000_000  # numbers in the data beyond which inner iterations are made in float32: twice as fast


@dataclass(frozen=True)
class LogisticFit:
    """A fitted probe, in the units of the states it was fitted on.

    Attributes:
        weight: w, in float64.
        bias: b, in float64; 0 for a fit without bias.
        separates: whether every example lies on its own side, so that without the penalty w would grow for ever and
            its length says how strong the penalty is rather than how far apart the classes are.
        gradient: norm of the objective's gradient at the end, in standardised units for a standardised fit. Without a
            bias, w is no farther from the optimum than this.
    """

    weight: Float[Tensor, " width"]
    bias: Float[Tensor, ""]
    separates: bool
    gradient: float

    def logit(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """Log odds that a state is positive."""
        return state.to(self.weight) @ self.weight + self.bias

    def probability(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """Probability that a state is positive."""
        return self.logit(state).sigmoid()


def fit_logistic(
    positive: Float[Tensor, "positives width"],
    negative: Float[Tensor, "negatives width"],
    *,
    c: float = 1.0,
    bias: bool = True,
    standardise: bool = False,
    tolerance: float = 1e-7,
) -> LogisticFit:
    """Fit a probe that tells positive states from negative ones.

    Args:
        positive: states of the class with label 1.
        negative: states of the class with label 0.
        c: inverse strength of the penalty, scikit-learn's C: the sum of the losses is weighed by it.
        bias: fit b, or hold it at zero, so that the plane goes through the origin.
        standardise: fit on states of unit standard deviation (about their mean, with a bias; about the origin,
            without), where the penalty treats all coordinates alike; w and b come back in units of the states.
            Coordinates that never change get weight zero.
        tolerance: stop where the gradient is this long, relative to its length at w = 0.

    Raises:
        ContrastError: if a class is empty, the widths differ, a state is not finite, c is not positive, or the fit
            does not reach its tolerance.
    """
    _check(positive, negative, c)
    count, width = len(positive) + len(negative), positive.shape[1]
    # One table in float64, changed in place from here on: for large sets memory is what there is least of.
    columns = torch.ones(count, width + bias, dtype=torch.float64, device=positive.device)
    columns[: len(positive), :width], columns[len(positive) :, :width] = positive.detach(), negative.detach()
    data, sign = columns[:, :width], columns.new_ones(count)
    sign[len(positive) :] = -1
    # Without a penalty on b, moving the origin changes b alone; at the mean the problem is best conditioned.
    origin = data.mean(0) if bias else torch.zeros_like(data[0])
    size = data.abs().amax(0)
    data -= origin
    unit = torch.ones_like(origin)
    if standardise:
        spread = torch.linalg.vector_norm(data, dim=0) / count**0.5
        unit = torch.where(spread > 1e-12 * size, spread, torch.inf)
        data /= unit
    columns, basis = _compact(columns, width)
    penalty = torch.ones_like(columns[0])
    if bias:
        penalty[-1] = 0
    found, margins, gradient = _newton(columns, sign, c, penalty, tolerance)
    inner = found[:-1] if bias else found
    weight = (inner if basis is None else basis @ inner) / unit
    constant = found[-1] - weight @ origin if bias else torch.zeros_like(found[0])
    return LogisticFit(weight, constant, bool((sign * margins > 0).all()), gradient)


def _check(positive: Tensor, negative: Tensor, c: float) -> None:
    for name, states in (("positive", positive), ("negative", negative)):
        if states.dim() != 2 or len(states) == 0:
            raise ContrastError(
                f"{name} states: got shape {tuple(states.shape)}, expected (examples, width), not none."
            )
        if not torch.isfinite(states).all():
            raise ContrastError(f"{name} states: got some that are not finite. Fix: leave them out.")
    if positive.shape[1] != negative.shape[1]:
        raise ContrastError(f"got widths {positive.shape[1]} and {negative.shape[1]}, expected the same for both.")
    if not (math.isfinite(c) and c > 0):
        raise ContrastError(f"c: got {c!r}, expected a positive number (scikit-learn's C, whose default is 1).")


def _compact(
    columns: Float[Tensor, "n columns"], width: int
) -> tuple[Float[Tensor, "n rank"], Float[Tensor, "width rank"] | None]:
    """The data in coordinates of their own span, where there are far fewer examples than features.

    The penalty is blind to rotations and the best w lies in the span, so nothing is lost.
    """
    if 2 * len(columns) > width:
        return columns, None
    basis, within = torch.linalg.qr(columns[:, :width].T)
    return torch.cat([within.T, columns[:, width:]], 1), basis


def _newton(
    columns: Tensor, sign: Tensor, c: float, penalty: Tensor, tolerance: float
) -> tuple[Float[Tensor, " columns"], Float[Tensor, " n"], float]:
    """Coefficients of `columns` (which are overwritten) at the minimum, the log odds there, the gradient's norm."""
    # Jacobi scaling: in these units the Hessian at zero has a unit diagonal, which float32 can factor.
    scale = (c / 4 * torch.linalg.vector_norm(columns, dim=0).square() + penalty).rsqrt()
    scaled, weight = columns.mul_(scale), penalty * scale**2
    coarse = scaled.float() if scaled.numel() > _LARGE else scaled
    point, margins = torch.zeros_like(scale), torch.zeros_like(sign)
    solve, stale, first = None, True, None
    for _ in range(_STEPS):
        slope = scaled.T @ (-c * sign * torch.sigmoid(-sign * margins)) + weight * point
        length = float((slope / scale).norm())  # in the units of the coefficients
        first = length if first is None else first
        if length <= tolerance * max(first, 1.0):
            return point * scale, margins, length
        curvature = (c * torch.sigmoid(margins) * torch.sigmoid(-margins)).to(coarse.dtype)
        if solve is None or stale:
            solve = _factor(coarse, curvature, weight.to(coarse.dtype))
        accuracy = min(0.1, (length / max(first, 1e-300)) ** 0.5)
        step, stale = _conjugate(coarse, curvature, weight.to(coarse.dtype), slope.to(coarse.dtype), solve, accuracy)
        point, margins = _along(scaled, sign, c, weight, point, margins, -step.double(), slope)
    raise ContrastError(
        f"logistic regression: gradient {length:.2g} after {_STEPS} steps, expected {tolerance:g} of {first:.2g}. "
        "Fix: a smaller c, or standardise=True."
    )


def _factor(data: Tensor, curvature: Tensor, penalty: Tensor) -> Callable[[Tensor], Tensor]:
    """Solver of the Hessian at hand, to be used as preconditioner for some steps."""
    hessian = data.T @ (data * curvature[:, None])
    diagonal = hessian.diagonal() + penalty
    for jitter in (1e-6, 1e-4, 1e-2):
        hessian.diagonal().copy_(diagonal * (1 + jitter) + torch.finfo(data.dtype).tiny)
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if not failed:
            inverse = torch.cholesky_inverse(factor)  # used dozens of times, each as fast as it can be read
            return lambda vector: inverse @ vector
    return lambda vector: vector / diagonal


def _conjugate(
    data: Tensor, curvature: Tensor, penalty: Tensor, slope: Tensor, solve: Callable[[Tensor], Tensor], accuracy: float
) -> tuple[Tensor, bool]:
    """Hessian^-1 slope by preconditioned conjugate gradients, and whether the preconditioner has grown stale."""
    found, rest = torch.zeros_like(slope), slope.clone()
    eased = solve(rest)
    toward, energy = eased.clone(), rest @ eased
    goal = accuracy**2 * energy
    for count in range(_INNER):
        bent = data.T @ (curvature * (data @ toward)) + penalty * toward
        rate = energy / (toward @ bent)
        found += rate * toward
        rest -= rate * bent
        eased = solve(rest)
        after = rest @ eased
        if after <= goal or not torch.isfinite(after):
            return found, count >= _STALE
        toward = eased + after / energy * toward
        energy = after
    return found, True


def _along(
    data: Tensor, sign: Tensor, c: float, penalty: Tensor, point: Tensor, margins: Tensor, step: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor]:
    """The farthest of the points along a step, halved each time, that lowers the objective enough (Armijo)."""
    change, descent = data @ step, float(slope @ step)

    def objective(share: float) -> float:
        there = point + share * step
        return float(c * softplus(-sign * (margins + share * change)).sum() + penalty @ there.square() / 2)

    here, share = objective(0.0), 1.0
    while share > 1e-10 and objective(share) > here + 1e-4 * share * descent + 1e-14 * abs(here):
        share /= 2
    return point + share * step, margins + share * change
