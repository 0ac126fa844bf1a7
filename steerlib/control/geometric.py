"""The map between two covariances as a geometric mean of positive matrices, in float32 and by symmetric inverses alone.

The symmetric positive A with A S A = T is the geometric mean of T and S^-1. Newton's iteration on the pair

    A -> (g A + C^-1 / g) / 2,    C -> (g C + A^-1 / g) / 2,    from A = T and C = S,

leads there, and C to A^-1 (Denman and Beavers 1976, for roots of a single matrix; Iannazzo 2016, "The geometric mean of
two matrices from a computational viewpoint"). In the factors of `steerlib.control.polar`, S = L L^T and H^2 = L^T T L,
it is that module's iteration for the polar factor, each iterate being A = L^-T H X L^-1 with a positive X that commutes
with H and goes from H to the identity; so that the scaling g is the same (Byers and Xu 2008). But where that one
inverts a matrix without symmetry, between products of factors, this one only ever inverts symmetric positive matrices,
each at half of the cost, and forms no product.

An inverse of a positive matrix has errors relative to its diagonal, whatever the units of the coordinates. So float32
holds a map as long as no coordinate is nearly a combination of others.

Knows tensors; knows nothing about plants, sites or laws.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

_STEPS = 8  # of the iteration, which suffice for a spread of 1e16; in float32 fewer, or rounding keeps them from it
_POWERS = 6  # steps of the power method; the scaling forgives estimates that are off by a factor
_BLOCK = 512  # rows that are inverted by a Cholesky factor; above, products of blocks are faster


def positive_inverse(matrix: Float[Tensor, "width width"]) -> Float[Tensor, "width width"] | None:
    """Inverse of a symmetric positive matrix, by halves: nearly all of it is products, which are what runs fastest.

    Returns:
        None where a leading block is not positive definite.
    """
    half = len(matrix) // 2
    if len(matrix) <= _BLOCK:
        factor, failed = torch.linalg.cholesky_ex(matrix)
        return None if failed else torch.cholesky_inverse(factor)
    first = positive_inverse(matrix[:half, :half])
    if first is None:
        return None
    across = matrix[half:, :half] @ first
    second = positive_inverse(torch.addmm(matrix[half:, half:], across, matrix[:half, half:], alpha=-1))
    if second is None:
        return None
    found = torch.empty_like(matrix)
    beside = torch.mm(second, across, out=found[half:, :half]).neg_()
    found[half:, half:], found[:half, half:] = second, beside.T
    torch.addmm(first, across.T, beside, alpha=-1, out=found[:half, :half])
    return found


def geometric_map(
    source: Float[Tensor, "width width"], target: Float[Tensor, "width width"], *, close: float, most: float
) -> Float[Tensor, "width width"] | None:
    """The symmetric positive A with A S A = T, as near as is asked.

    Args:
        source: covariance S, symmetric.
        target: covariance T, symmetric, in the same precision.
        close: how far each eigenvalue of X, the factor in A = L^-T H X L^-1, may stay from 1.
        most: how large rounding may be at most, as a share of what other coordinates leave unexplained of a variance.

    Returns:
        None where a matrix is not positive definite, or too near to it for its precision.
    """
    there, back = target, source
    scale = spread = 1.0
    for step in range(_STEPS):
        inverse = positive_inverse(back)
        if inverse is None:
            return None
        if step and 2 * _off(there, back) ** 2 <= close:  # half of the square is left; the power method may fall short
            return inverse.mul_(0.5 / scale).add_(there, alpha=0.5 * scale)
        other = positive_inverse(there)
        if other is None:
            return None
        if not step:
            limit = most / torch.finfo(source.dtype).eps
            if not (_entangled(source, inverse) <= limit and _entangled(target, other) <= limit):  # NaN is refused, too
                return None
            largest, smallest = _stretch(source, target) ** 0.5, _stretch(other, inverse) ** -0.5
            scale, spread = (largest * smallest) ** -0.5, (largest / smallest) ** 0.5
        there, back = (
            new.mul_(0.5 / scale).add_(old, alpha=0.5 * scale) for new, old in ((inverse, there), (other, back))
        )
        # Both ends of the spectrum of X land here, all between them below; the next scale centres them about 1 again.
        spread = (spread + 1 / spread) / 2
        scale, spread = spread**-0.5, spread**0.5
    return None


def _entangled(matrix: Tensor, inverse: Tensor) -> float:
    """Mean inverse share of a coordinate's variance that the others do not explain; 1 for independent coordinates."""
    return float((matrix.diagonal() * inverse.diagonal()).mean())


def _start(matrix: Tensor) -> Tensor:
    return torch.randn(len(matrix), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(matrix)


def _stretch(first: Tensor, second: Tensor) -> float:
    """Largest eigenvalue of the product of two positive matrices, by the power method: a little too small."""
    vector, found = _start(first), 0.0
    for _ in range(_POWERS):
        image = second @ vector
        new = first @ image
        found = float(image @ new) / float(vector @ image)
        vector = new / new.norm()
    return found if found > 0 else math.nan


def _off(there: Tensor, back: Tensor) -> float:
    """How far an eigenvalue of X is from 1, at most: half of what A C = L^-T X^2 L^T is away from the identity."""
    vector = _start(there)
    image, found = back @ vector, 0.0
    for _ in range(_POWERS):
        size = float(vector @ image)
        vector = there @ image - vector
        image = back @ vector
        found = abs(float(vector @ image) / size) ** 0.5 / 2
        if not found > 0:
            break
        vector, image = vector / vector.norm(), image / vector.norm()
    return found
