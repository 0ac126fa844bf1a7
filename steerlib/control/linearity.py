"""How far a linear model holds, and how alike two linear models are.

Knows functions, matrices and pushes; knows nothing about language models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def linear_errors(
    function: Callable[[Tensor], Tensor],
    jacobians: Float[Tensor, "rows outputs width"],
    point: Float[Tensor, "rows width"],
    directions: Float[Tensor, "rows width"],
    sizes: Sequence[float] | Float[Tensor, "sizes rows"],
) -> Float[Tensor, "sizes rows"]:
    """Relative error of the linear model for pushes of given sizes: |f(z + u) - f(z) - A u| / |A u|.

    Args:
        function: row by row.
        jacobians: A of each row; one matrix for all rows is expanded by the caller.
        point: z.
        directions: of the pushes; they need not have length one.
        sizes: lengths of u, one for all rows or one for each.

    Raises:
        ValueError: if a direction is zero, or a size is not positive.
    """
    lengths = directions.norm(dim=-1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise ValueError("directions: got one of length zero, along which nothing is pushed. Fix: leave it out.")
    unit, before, found = directions / lengths, function(point), []
    for size in sizes:
        size = torch.as_tensor(size, dtype=point.dtype, device=point.device).expand(len(point))[:, None]
        if not bool((size > 0).all()):
            raise ValueError("sizes: got one that is not positive; a relative error needs a push.")
        predicted = (jacobians @ (size * unit)[..., None])[..., 0]
        missed = function(point + size * unit) - before - predicted
        found.append(missed.norm(dim=-1) / predicted.norm(dim=-1))
    return torch.stack(found)


def linear_radius(
    errors: Float[np.ndarray, "sizes rows"], sizes: Float[np.ndarray, " sizes"], *, level: float = 0.1
) -> Float[np.ndarray, " rows"]:
    """Size of push at which the error of each row first reaches a level, between sizes on logarithmic axes.

    A row that is above the level at the smallest size gets that size, and one that never reaches it the largest: what
    comes back then is a bound, which the caller can tell by its value.

    Args:
        errors: of increasing sizes.
        sizes: increasing, positive.
        level: the error.

    Raises:
        ValueError: if sizes do not increase, or do not belong to the errors.
    """
    sizes = np.asarray(sizes, dtype=float)
    if len(sizes) != len(errors) or len(sizes) < 2 or not (np.diff(sizes) > 0).all() or sizes[0] <= 0:
        raise ValueError(f"sizes: got {len(sizes)} for {len(errors)} errors, expected as many, positive, increasing.")
    highest = np.maximum.accumulate(np.asarray(errors, dtype=float), axis=0)
    rows = np.log(np.maximum(highest, np.finfo(float).tiny)).T
    return np.array([np.exp(np.interp(np.log(level), row, np.log(sizes))) for row in rows])


def similarity(one: Float[Tensor, "outputs width"], other: Float[Tensor, "outputs width"], rank: int) -> float:
    """Overlap of the leading left singular directions of two matrices, weighted by their singular values.

    |S U^T V T|_* / (|S|_F |T|_F) with U, S and V, T the leading left singular vectors and values (Skifstad et al. 2026,
    equation 24). It is 1 for a matrix and itself and 0 for orthogonal ranges. For unrelated matrices it is not 0:
    `chance_similarity` says what it is.

    Args:
        one: a matrix.
        other: another.
        rank: how many directions lead; the paper takes a twentieth of the width.

    Raises:
        ValueError: if the rank is not between 1 and the size of the matrices.
    """
    parts = [leading(matrix, rank) for matrix in (one, other)]
    return overlap(*parts)


def leading(matrix: Float[Tensor, "outputs width"], rank: int) -> Float[Tensor, "outputs rank"]:
    """Leading left singular vectors of a matrix, each as long as its share of the singular values."""
    if not 1 <= rank <= min(matrix.shape):
        raise ValueError(f"rank: got {rank}, expected 1 to {min(matrix.shape)}, the size of the matrix.")
    u, s, _ = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * (s[:rank] / s[:rank].norm())


def overlap(one: Float[Tensor, "outputs rank"], other: Float[Tensor, "outputs rank"]) -> float:
    """`similarity` of two matrices of which the leading directions are known."""
    return float(torch.linalg.svdvals(one.T @ other).sum())


def chance_similarity(
    one: Float[Tensor, "outputs rank"], other: Float[Tensor, "outputs rank"], *, seed: int, draws: int = 8
) -> Float[np.ndarray, " draws"]:
    """What `overlap` is for matrices with the same singular values and random singular vectors.

    Args:
        one: leading directions of a matrix, as `leading` gives them.
        other: of another.
        seed: of the random rotations.
        draws: how many.
    """
    drawn, width = torch.Generator().manual_seed(seed), len(one)
    found = []
    for _ in range(draws):
        random = torch.randn(width, one.shape[1] + other.shape[1], generator=drawn, dtype=torch.float64)
        first = torch.linalg.qr(random[:, : one.shape[1]]).Q * one.norm(dim=0).cpu().double()
        second = torch.linalg.qr(random[:, one.shape[1] :]).Q * other.norm(dim=0).cpu().double()
        found.append(overlap(first, second))
    return np.array(found)
