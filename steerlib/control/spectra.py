"""Leading directions of a set of vectors, exact and the same every time, without a full decomposition of large sets.

Knows tensors; knows nothing about plants or laws.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import svds
from torch import Tensor

#: Smaller sides than this are decomposed fully.
SMALL = 128


def leading_axes(rows: Float[Tensor, "rows width"], k: int, *, rank: float = 1e-6) -> Float[Tensor, "k width"]:
    """First right singular vectors of rows, in float64, the largest singular value first.

    Each has its largest coordinate positive: the data leave the sign open, and so it does not depend on the solver.

    Args:
        rows: vectors; their mean is not taken off.
        k: at most so many.
        rank: singular values at or below this share of the largest are taken for rounding, and have no axis.
    """
    table = rows.detach().cpu().double().numpy()
    if not np.abs(table).max(initial=0.0) > 0:
        return rows.new_zeros(0, rows.shape[1], dtype=torch.float64)
    if min(table.shape) <= max(SMALL, 4 * k):
        _, values, axes = np.linalg.svd(table, full_matrices=False)
    else:  # Lanczos to machine precision, from a start that is the same every time and in no particular direction
        start = np.random.default_rng(0).standard_normal(min(table.shape))
        _, values, axes = map(np.asarray, svds(table, k=k, v0=start))
        order = np.argsort(-values)
        values, axes = values[order], axes[order]
    axes = axes[values > rank * values[0]][:k]
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    return torch.from_numpy(axes * signs[:, None]).to(rows.device)
