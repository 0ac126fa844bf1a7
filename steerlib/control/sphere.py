"""How high a quadratic form rises on a sphere, and on the cap of it that a budget can reach.

    h(x) = sum_i l_i x_i^2 + m.x + c,     |x| = 1,     l_1 the largest eigenvalue

(the state in the eigenbasis of the form; `steerlib.control.barrier.QuadraticForm.diagonal`). At a stationary point
2 l_i x_i + m_i = 2 mu x_i for one multiplier mu, so x_i = m_i / (2 (mu - l_i)), and the length gives an equation for
mu alone, the secular equation  p(mu) = sum_i m_i^2 / (4 (mu - l_i)^2) = 1. The maximum is its root above l_1, where p
falls from infinity to zero (More and Sorensen 1983). At most one local maximum is not global: the root between l_2 and
l_1 at which p rises (Martinez 1994): the Hessian along the sphere, l - mu on x's complement, is negative there because
l - mu has a single positive eigenvalue and sum_i x_i^2 / (mu - l_i) = -p'(mu) / 2 is not.

A cap {x.p >= cos t} has its maximum at one of these two, or on its edge x = cos t p + sin t y with |y| = 1 and y.p = 0.
The edge is a smaller sphere, and its secular equation needs no new eigenbasis: stationary y solve
(mu - L) y = b + k p, with b = (2 cos t L p + m) / (2 sin t) and k such that y.p = 0; |y| falls in mu above the largest
eigenvalue s of the form on p's complement, which is where sum_i p_i^2 / (mu - l_i) = 0 between l_2 and l_1.

An activation a under a flow of unit speed for a time T turns by at most T / |a|: what it can reach is a cap.

All in float64, by bisection. Knows tensors; knows nothing about plants or laws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlib.control.barrier import DiagonalForm
from steerlib.errors import LawError

_HALVINGS = 110  # a bracket of any size becomes a few units of rounding


class Peak(NamedTuple):
    """A stationary point on the sphere.

    Attributes:
        value: h there.
        point: x, of unit norm, in the eigenbasis.
        multiplier: mu.
    """

    value: float
    point: Float[Tensor, " width"]
    multiplier: float


class CapMaximum(NamedTuple):
    """The highest point of each cap.

    Attributes:
        value: h there.
        point: x, of unit norm, in the eigenbasis.
        inside: whether it lies inside the cap rather than on its edge: more budget brings no more there, or only past
            a valley.
    """

    value: Float[Tensor, " caps"]
    point: Float[Tensor, "caps width"]
    inside: Bool[Tensor, " caps"]


def sphere_maximum(h: DiagonalForm) -> Peak:
    """The maximum of h on the unit sphere: no state whatever has a higher one.

    If it is negative, the desirable region is empty. If it is not, a flow may still end at a local maximum below zero.

    Raises:
        LawError: if h is not one of directions.
    """
    values, linear, constant = _parts(h)
    top = values >= values[-1] - 1e-14 * values.abs().max()
    gaps = torch.where(top, 0.0, values[-1] - values)
    # The root lies where the top eigenvectors alone would be of length 1, or above, and below where all gaps are zero.
    low, high = float(linear[top].norm()) / 2, float(linear.norm()) / 2

    def long(delta: float) -> bool:
        return float((linear / (2 * (delta + gaps)))[linear != 0].norm()) > 1

    # Without a slope along the top eigenvectors the multiplier may be l_1 itself, and they fill up the length.
    delta = 0.0 if low == 0 and not long(0.0) else _bisect(long, low, high)
    point = torch.where(linear != 0, linear / (2 * (delta + gaps)), 0.0)
    if delta == 0.0:
        point[-1] += math.sqrt(max(0.0, 1 - float(point.square().sum())))
    point = point / point.norm()
    return Peak(float(_height(values, linear, constant, point)), point, float(values[-1]) + delta)


def local_maximum(h: DiagonalForm) -> Peak | None:
    """The local maximum of h on the unit sphere that is not its global one, or None: there is at most one.

    Raises:
        LawError: if h is not one of directions.
    """
    values, linear, constant = _parts(h)
    if len(values) < 2 or values[-2] >= values[-1] or linear[-1] == 0:
        return None
    gaps = values[-1] - values
    low, high = -float(gaps[-2]), 0.0

    def moment(delta: float, power: int) -> float:
        return float((linear.square() / (4 * (delta + gaps) ** power))[linear != 0].sum())

    # p is convex between its poles, and its derivative is -2 moment(., 3): find its lowest point, then go up to 1.
    valley = _bisect(lambda delta: moment(delta, 3) > 0, low, high)
    if not (valley < 0 and moment(valley, 2) <= 1):
        return None
    low = _bisect(lambda delta: moment(delta, 2) <= 1, valley, high)
    if low == 0:
        return None
    point = torch.where(linear != 0, linear / (2 * (low + gaps)), 0.0)
    point = point / point.norm()
    return Peak(float(_height(values, linear, constant, point)), point, float(values[-1]) + low)


def cap_maximum(
    h: DiagonalForm, centre: Float[Tensor, "caps width"], angle: Float[Tensor, " caps"] | float
) -> CapMaximum:
    """The maximum of h on each cap of directions within an angle of a state: the most that a budget can reach.

    Args:
        h: in its eigenbasis.
        centre: states in the eigenbasis, of any length but zero.
        angle: of the cap, in radians, not negative; for a flow of unit speed, T / |a|.

    Raises:
        LawError: if a state has norm zero, an angle is negative, or h is not one of directions.
    """
    values, linear, constant = _parts(h)
    centre = centre.double()
    norms = centre.norm(dim=1, keepdim=True)
    angles = torch.as_tensor(angle, dtype=torch.float64).expand(len(centre))
    if not bool((norms > 0).all()) or not bool((angles >= 0).all()):
        raise LawError("cap: got a state of norm zero or a negative angle; expected states with a direction.")
    p = centre / norms
    point = _edge(values, linear, p, angles.clamp(max=math.pi))
    value = _height(values, linear, constant, point)
    inside = torch.zeros(len(p), dtype=torch.bool)
    for peak in (sphere_maximum(h), local_maximum(h)):
        if peak is None:
            continue
        better = (p @ peak.point >= angles.clamp(max=math.pi).cos()) & (peak.value >= value)
        value = torch.where(better, peak.value, value)
        point = torch.where(better[:, None], peak.point, point)
        inside = inside | better
    return CapMaximum(value, point, inside)


def _bisect(before: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds from `low` on ends."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if before(middle) else (low, middle)
    return high


def _edge(values: Tensor, linear: Tensor, p: Tensor, angles: Tensor) -> Float[Tensor, "caps width"]:
    """The highest point on the edge of each cap."""
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    flat = sin[:, 0] <= 1e-12  # the edge is a point: the centre or its opposite
    slope = (2 * cos * values * p + linear) / (2 * torch.where(sin <= 1e-12, 1.0, sin))
    top = _top_of_complement(values, p)
    across = slope - (slope * p).sum(1, keepdim=True) * p
    low, high = top, top + across.norm(dim=1)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        long = _across(values, p, slope, middle).norm(dim=1) > 1
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    y = _across(values, p, slope, high)
    # Where the slope has no part along the top eigenvector, the multiplier is its eigenvalue and y falls short.
    inverse = _inverse(values, torch.nextafter(top, torch.full_like(top, torch.inf)))
    along = torch.nn.functional.normalize(inverse * p - ((inverse * p) * p).sum(1, keepdim=True) * p, dim=1)
    missing = (1 - y.square().sum(1)).clamp(min=0).sqrt()
    y = torch.nn.functional.normalize(y + missing[:, None] * along, dim=1)
    return torch.where(flat[:, None], cos.sign() * p, cos * p + sin * y)


def _top_of_complement(values: Tensor, p: Tensor) -> Float[Tensor, " caps"]:
    """The largest eigenvalue of the form on the complement of each p."""
    first = values[-1].expand(len(p))
    if len(values) < 2:
        return first
    low, high = values[-2].expand(len(p)).clone(), first.clone()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        positive = (_inverse(values, middle) * p.square()).sum(1) > 0
        low, high = torch.where(positive, middle, low), torch.where(positive, high, middle)
    return high


def _inverse(values: Tensor, mu: Tensor) -> Float[Tensor, "caps width"]:
    gaps = mu[:, None] - values
    tiny = 1e-300
    return 1 / torch.where(gaps.abs() < tiny, tiny, gaps)


def _across(values: Tensor, p: Tensor, slope: Tensor, mu: Tensor) -> Float[Tensor, "caps width"]:
    """The solution y of (mu - L) y = slope + k p with y.p = 0."""
    inverse = _inverse(values, mu)
    k = -(inverse * p * slope).sum(1) / (inverse * p.square()).sum(1)
    return torch.nan_to_num(inverse * (slope + k[:, None] * p), posinf=1e300, neginf=-1e300)


def _height(values: Tensor, linear: Tensor, constant: Tensor, point: Tensor) -> Tensor:
    return ((point * values + linear) * point).sum(-1) + constant


def _parts(h: DiagonalForm) -> tuple[Tensor, Tensor, Tensor]:
    if not h.unit:
        raise LawError("sphere: got a form of whole states, expected one of directions (unit=True).")
    return h.values.double(), h.linear.double(), h.constant.double()
