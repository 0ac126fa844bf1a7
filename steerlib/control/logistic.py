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
    states = torch.cat([positive, negative]).double()
    sign = torch.ones(len(states), dtype=torch.float64, device=states.device)
    sign[len(positive) :] = -1
    # Without a penalty on b, moving the origin changes b alone; at the mean the problem is best conditioned.
    origin = states.mean(0) if bias else torch.zeros_like(states[0])
    unit = torch.ones_like(states[0])
    if standardise:
        spread = (states - origin).square().mean(0).sqrt()
        unit = torch.where(spread > 1e-12 * states.abs().amax(0), spread, torch.inf)
    data, basis = _compact((states - origin) / unit)
    columns = torch.cat([data, torch.ones_like(data[:, :1])], 1) if bias else data
    penalty = torch.ones_like(columns[0])
    penalty[data.shape[1] :] = 0
    found, gradient = _newton(columns, sign, c, penalty, tolerance)
    weight = (found[: data.shape[1]] if basis is None else basis @ found[: data.shape[1]]) / unit
    constant = found[-1] - weight @ origin if bias else torch.zeros_like(found[0])
    separates = bool((sign * (states @ weight + constant) > 0).all())
    return LogisticFit(weight, constant, separates, gradient)


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


def _compact(data: Float[Tensor, "n width"]) -> tuple[Float[Tensor, "n rank"], Float[Tensor, "width rank"] | None]:
    """The data in coordinates of its own span, where there are far fewer examples than features.

    The penalty is blind to rotations and the best w lies in the span, so nothing is lost.
    """
    if 2 * len(data) > data.shape[1]:
        return data, None
    basis, within = torch.linalg.qr(data.T)
    return within.T.contiguous(), basis


def _newton(
    columns: Tensor, sign: Tensor, c: float, penalty: Tensor, tolerance: float
) -> tuple[Float[Tensor, " columns"], float]:
    """The minimum of the objective over the coefficients of `columns`, and the norm of the gradient there."""
    # Jacobi scaling: in these units the Hessian at zero has a unit diagonal, which float32 can factor.
    scale = (c / 4 * columns.square().sum(0) + penalty).rsqrt()
    scaled, weight = columns * scale, penalty * scale**2
    coarse = scaled.float() if scaled.numel() > _LARGE else scaled
    point, margins = torch.zeros_like(scale), torch.zeros_like(sign)
    solve, stale, first = None, True, None
    for _ in range(_STEPS):
        slope = scaled.T @ (-c * sign * torch.sigmoid(-sign * margins)) + weight * point
        length = float((slope / scale).norm())  # in the units of the coefficients
        first = length if first is None else first
        if length <= tolerance * max(first, 1.0):
            return point * scale, length
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
    hessian.diagonal().add_(penalty)
    diagonal = hessian.diagonal().clone()
    for jitter in (1e-6, 1e-4, 1e-2):
        hessian.diagonal().copy_(diagonal * (1 + jitter) + torch.finfo(data.dtype).tiny)
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if not failed:
            return lambda vector: torch.cholesky_solve(vector[:, None], factor)[:, 0]
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
