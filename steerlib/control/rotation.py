"""Rotations of vectors within a plane, and the planes: what norm-preserving laws are made of.

Knows tensors; knows nothing about plants or laws. Every function takes any leading shape, is free of branches on
values, and is defined where the textbook formulas divide by zero (parallel vectors, zero vectors).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.errors import LawError

#: Sine of the smallest angle at which two directions still span a plane, or a rotation still has one.
FLAT = 1e-6


def angle_between(first: Float[Tensor, "*batch width"], second: Float[Tensor, "*batch width"]) -> Float[Tensor, "*b"]:
    """Angle between vectors, in radians from 0 to pi.

    2 atan2(|a - b|, |a + b|) of the unit vectors a, b: exact to rounding at every angle, where the arc cosine of a
    scalar product loses half of the digits near 0 and pi (Kahan 2006, section 12).
    """
    a, b = (torch.nn.functional.normalize(vector, dim=-1) for vector in (first, second))
    return 2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1))


def reflected(state: Float[Tensor, "*batch width"], normal: Float[Tensor, " width"]) -> Float[Tensor, "*batch width"]:
    """Householder reflection of vectors at the hyperplane through the origin with a unit normal."""
    return state - 2 * (state @ normal)[..., None] * normal


def turned(
    state: Float[Tensor, "*batch width"], towards: Float[Tensor, " width"], angle: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch width"]:
    """Vectors turned by an angle towards a unit direction, in the plane of both; norms are kept.

    A vector along the direction, or against it, has no such plane and is returned as it is.

    Args:
        state: the vectors.
        towards: unit direction.
        angle: radians, one for each vector.
    """
    length = state.norm(dim=-1, keepdim=True)
    unit = state / length.clamp(min=torch.finfo(state.dtype).tiny)
    aside = towards - (unit @ towards)[..., None] * unit
    aside = aside - (aside * unit).sum(-1, keepdim=True) * unit  # again: the first time leaves rounding behind
    sine = aside.norm(dim=-1, keepdim=True)
    aside = aside / sine.clamp(min=FLAT)
    moved = torch.cos(angle)[..., None] * state + torch.sin(angle)[..., None] * length * aside
    return torch.where(sine > FLAT, moved, state)


def plane(first: Float[Tensor, " width"], second: Float[Tensor, " width"]) -> Float[Tensor, "2 width"]:
    """Orthonormal basis (b1, b2) of a plane: b1 along the first vector, b2 on the side of the second.

    Raises:
        LawError: if a vector is zero, or both lie on one line.
    """
    lengths = first.norm(), second.norm()
    if not all(bool(length > 0) and bool(torch.isfinite(length)) for length in lengths):
        got = " and ".join(f"{float(length):.3g}" for length in lengths)
        raise LawError(f"plane: got vectors of norm {got}, expected two positive ones.")
    along, other = first / lengths[0], second / lengths[1]
    for _ in range(2):  # twice is enough (Kahan): the second time removes what rounding left
        other = other - (other @ along) * along
    if other.norm() < FLAT:
        raise LawError("plane: got two vectors on one line, expected two that span a plane. Fix: another second one.")
    return torch.stack([along, other / other.norm()])


def set_angle(
    state: Float[Tensor, "*batch width"], basis: Float[Tensor, "2 width"], angle: Float[Tensor, ""]
) -> Float[Tensor, "*batch width"]:
    """How vectors must change so that their component in a plane lies at an angle, with its length kept.

    Args:
        state: the vectors z.
        basis: orthonormal basis (b1, b2) of the plane.
        angle: radians from b1 towards b2.

    Returns:
        T(z) - z, where T(z) = z - P z + |P z| (cos(angle) b1 + sin(angle) b2) and P projects on the plane.
    """
    inside = state @ basis.T  # (..., 2): coordinates in the plane
    aim = torch.stack([torch.cos(angle), torch.sin(angle)])
    return (inside.norm(dim=-1, keepdim=True) * aim - inside) @ basis
