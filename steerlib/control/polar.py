"""Optimal transport between Gaussians by a polar factor, for states so wide that an eigendecomposition takes too long.

Knows tensors and the regularisation of `steerlib.control.transport`; knows nothing about plants, sites or laws.

The map between covariances S and T is the symmetric positive A with A S A = T. With Cholesky factors S = L L^T and
T = K K^T, and the polar decomposition of their product,

    K^T L = Q H,    Q orthogonal, H = (L^T T L)^1/2 symmetric positive:    A = L^-T H L^-1,

since A S A = L^-T H^2 L^-1 and H^2 = L^T K K^T L. Q is the limit of Newton's iteration X -> (g X + X^-T / g) / 2, which
takes each singular value towards 1 and leaves the singular vectors alone (Higham 1986, "Computing the polar
decomposition - with applications"). The scaling g is that of Byers and Xu (2008): with the largest and the smallest
singular value known at the start, each step's g follows from the one before. Five inverses suffice for a condition of
100, nine for any.

The eigendecomposition of L^T T L, the other way to H, loses twice as many digits to a bad condition, since that matrix
squares the condition of K^T L. Above a certain width the same iteration is made in float32, without factors, as
`steerlib.control.geometric` has it; how much that resolves depends on the covariances. So each map is tried before it
is given away, and where it would miss the target's covariance the eigendecomposition takes its place.
"""

from __future__ import annotations

import math
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.control import transport
from steerlib.control.geometric import geometric_map
from steerlib.control.transport import AffineMap, RegScale, bures_map, moments
from steerlib.control.wide_moments import wide_moments

_LARGE = 4_000_000  # numbers in a matrix beyond which float32 is used
_CLOSE = 4e-4  # of an eigenvalue of H, at most: less than half of _MISS, and computed with room to spare
_ENTANGLED = 3e-5  # of what other coordinates leave unexplained of a variance: what float32's rounding may be at most
_STEPS = 14  # of Newton's iteration; nine reach rounding from a condition of 1e16
_POWERS = 6  # steps of the power method; the scaling forgives estimates that are off by a factor
_MISS = 1e-3  # of a variance, in a random direction: a tenth of what sampling 10,000 states makes of it
_HOPELESS = 1e-4  # what rounding may make of it by the condition alone; in the end it is a few times as much
_TRIALS = 8  # directions on which a map is tried


def polar_factor(
    matrix: Float[Tensor, "width width"], *, most: float = math.inf
) -> Float[Tensor, "width width"] | None:
    """The orthogonal Q nearest to a matrix, of matrix = Q H with H symmetric positive, in the precision of the matrix.

    Args:
        matrix: square.
        most: largest error of a relative variance that the precision may lead to, by the first inverse's norm.

    Returns:
        None where the matrix is singular, or too close to it for its precision.
    """
    eps, turned = torch.finfo(matrix.dtype).eps, matrix
    scale = spread = 1.0
    for step in range(_STEPS):
        inverse, failed = torch.linalg.inv_ex(turned)
        if failed:
            return None
        if step == 0:
            expected = eps * turned.norm() * inverse.norm() / len(matrix) ** 0.5
            if not expected <= most:  # so that NaN is refused, too
                return None
            largest, smallest = _stretch(turned), 1 / _stretch(inverse)
            scale, spread = (largest * smallest) ** -0.5, (largest / smallest) ** 0.5
        # Both ends of the spectrum land here, all between them below; the next scale centres them about 1 again.
        spread = (spread + 1 / spread) / 2
        new = inverse.T.mul(0.5 / scale).add_(turned, alpha=0.5 * scale)
        change, turned = float((new - turned).norm()), new
        if change <= 12 * eps**0.5:  # convergence is quadratic: what is left is at most half of the square
            return turned
        scale, spread = spread**-0.5, spread**0.5
    return None


def _stretch(matrix: Tensor) -> float:
    """Largest singular value, by a few steps of the power method: a little too small."""
    vector = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(matrix)
    for _ in range(_POWERS):
        vector = matrix.T @ (matrix @ (vector / vector.norm()))
    return float(vector.norm()) ** 0.5


def polar_map(
    source: Float[Tensor, "width width"], target: Float[Tensor, "width width"]
) -> Float[Tensor, "width width"]:
    """The symmetric positive A with A S A = T, as `transport.bures_map` gives it, in less time for large matrices.

    Args:
        source: covariance S, symmetric; in float64, or in float32 where matrices are large.
        target: covariance T, likewise.

    Returns:
        A in float64, symmetric. What it makes of S differs from T by less than 1e-3 of the variance in each of a few
        random directions, on average; where inverses do not exist or that would not hold, it is computed by
        eigenvalues.

    Raises:
        ContrastError: if the source is not positive definite; the target may be singular.
    """
    found = (_by_mean if source.numel() > _LARGE else _by_polar)(source, target)
    return bures_map(source.double(), target.double()) if found is None else found


def _by_polar(source: Tensor, target: Tensor) -> Tensor | None:
    (lower, bad), (other, worse) = (torch.linalg.cholesky_ex(matrix) for matrix in (source, target))
    if bad or worse:
        return None
    turn = polar_factor(other.T @ lower, most=_HOPELESS)
    if turn is None:
        return None
    # H L^-1 = Q^T K^T L L^-1: one product, and one system to solve.
    found = torch.linalg.solve_triangular(lower.T, turn.T @ other.T, upper=True)
    found = (found + found.T).div_(2)
    return found if _miss(found, source, target, other) <= _MISS else None


def _by_mean(source: Tensor, target: Tensor) -> Tensor | None:
    first, second = source.float(), target.float()
    other, bad = torch.linalg.cholesky_ex(second)
    if bad:
        return None
    found = geometric_map(first, second, close=_CLOSE, most=_ENTANGLED)
    if found is None:
        return None
    found = (found + found.T).div_(2).double()
    return found if _miss(found, source.double(), target.double(), other) <= _MISS else None


def _miss(found: Tensor, source: Tensor, target: Tensor, other: Tensor) -> float:
    """How far A S A is from T = K K^T, in units of the target's variances: of K^-1 (A S A - T) K^-T, the mean length.

    K says in which directions and units; it may be of lower precision than the difference itself.
    """
    some = torch.randn(len(found), _TRIALS, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(other)
    aside = torch.linalg.solve_triangular(other.T, some, upper=True).to(found)
    away = found @ (source @ (found @ aside)) - target @ aside
    miss = float(torch.linalg.solve_triangular(other, away.to(other), upper=False).norm() / some.norm())
    return miss if math.isfinite(miss) else math.inf


def gaussian_map(
    source: Float[Tensor, "n width"],
    target: Float[Tensor, "m width"],
    *,
    reg: float = 1e-2,
    scale: RegScale = "absolute",
) -> AffineMap:
    """The optimal transport map between the Gaussians with the moments of two sets, as `transport.gaussian_map` has it.

    The same map, from the same regularised covariances; only its matrix is found by `polar_map`. Sets smaller than the
    width, whose map is computed in their own span, are left to that function, and so is refusing what has no map.

    Args:
        source: states to be moved.
        target: states where they should arrive.
        reg: what is added to every variance of both sets.
        scale: "absolute", in squared units of the states, or "relative" to the mean variance of both sets.

    Raises:
        ContrastError: as `transport.gaussian_map`.
    """
    width = source.shape[-1]
    enough = target.shape[-1] == width <= len(source) + len(target) and min(len(source), len(target)) > 1
    if not (enough and 0 <= reg < math.inf and scale in get_args(RegScale)):
        return transport.gaussian_map(source, target, reg=reg, scale=scale)
    measured = wide_moments if width**2 > _LARGE else moments
    (start, first), (end, second) = measured(source), measured(target)
    if not first.diagonal().any():
        return transport.gaussian_map(source, target, reg=reg, scale=scale)
    added = reg if scale == "absolute" else reg * float(first.trace() + second.trace()) / (2 * width)
    for covariance in (first, second):
        covariance.diagonal().add_(added)
    return AffineMap(polar_map(first, second), start, end)
