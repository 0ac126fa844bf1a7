"""The first principal direction of many long vectors.

Knows tensors; knows nothing about plants, sites or laws.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from steerlib.errors import ContrastError

#: Up to this many rows or columns, all singular vectors are as cheap as the first.
_SMALL = 300


def first_direction(rows: Float[Tensor, "n width"], *, centred: bool) -> Float[Tensor, " width"]:
    """The unit vector along which the rows spread most, in float64; zero if they do not spread at all.

    Its sign says nothing about the rows: a principal direction has none. It is chosen as scikit-learn (1.5 or newer)
    chooses it, the entry of largest absolute value being positive, so that it is at least always the same.

    Args:
        rows: one vector each.
        centred: spread about the mean (principal component analysis), or about the origin, where the mean counts, too.

    Raises:
        ContrastError: if there are no rows, one is not finite, or the iteration does not converge.
    """
    if rows.dim() != 2 or len(rows) == 0 or not torch.isfinite(rows).all():
        raise ContrastError(f"rows: got shape {tuple(rows.shape)}, expected finite vectors (examples, width).")
    data = rows.double()
    size = data.abs().amax()
    if centred:
        data = data - data.mean(0)
    if data.abs().amax() <= 1e-12 * size:
        return torch.zeros_like(data[0])
    data = data / data.abs().amax()
    few = min(data.shape) <= _SMALL
    found = torch.linalg.svd(data, full_matrices=False).Vh[0] if few else _lanczos(data)
    return found * torch.sign(found[found.abs().argmax()])


def _lanczos(data: Float[Tensor, "n width"]) -> Float[Tensor, " width"]:
    """Largest eigenvector of data.T @ data, which is never formed: Lanczos iteration by ARPACK."""
    width = data.shape[1]

    def apply(vector: np.ndarray) -> np.ndarray:
        there = torch.from_numpy(np.ascontiguousarray(vector).reshape(-1)).to(data.device)
        return (data.T @ (data @ there)).cpu().numpy()

    # A start that is always the same makes the result so; random numbers are not orthogonal to any direction of data.
    start = np.random.default_rng(0).standard_normal(width)
    operator = LinearOperator((width, width), matvec=apply, dtype=np.float64)  # type: ignore[call-arg]
    try:
        _, vectors = eigsh(operator, k=1, which="LA", v0=start)
    except ArpackNoConvergence as error:
        raise ContrastError(
            f"first direction: not found after {10 * width} iterations ({error}). "
            "Likely cause: two directions of equal spread, of which neither is the first."
        ) from error
    return torch.from_numpy(vectors[:, 0]).to(data.device)
