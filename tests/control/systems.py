"""Random linear systems over depth, and the least cost by a route that knows no recursion."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def system(layers: int, width: int, *, seed: int = 0, size: float = 0.5) -> Tensor:
    """Jacobians like those of blocks with a residual stream: the identity and something random."""
    return torch.eye(width, dtype=torch.float64) + size * draw(layers, width, width, seed=seed) / width**0.5


def rollout(a: Tensor, start: Tensor, inputs: Tensor, drift: Tensor | None = None) -> Tensor:
    """States z_0 .. z_l of z' = A z + d + u, for one start and inputs (layers, width)."""
    states = [start]
    for k in range(len(a)):
        states.append(a[k] @ states[-1] + inputs[k] + (0 if drift is None else drift[k]))
    return torch.stack(states)


def programme(
    a: Tensor, start: Tensor, q: Tensor, r: Tensor, q_f: Tensor, drift: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The inputs of least cost and that cost, as one least-squares problem in all inputs.

    Every state is linear in the inputs; its columns are found by trying each input, not by formula.

    Args:
        a: (layers, width, width).
        start: z_0.
        q: (layers, width), diagonals.
        r: (layers, width), diagonals.
        q_f: (width,), a diagonal.
        drift: d_k, (layers, width).
    """
    layers, width = r.shape
    none = torch.zeros(layers, width, dtype=torch.float64)
    free = rollout(a, start, none, drift).flatten()
    columns = []
    for entry in torch.eye(layers * width, dtype=torch.float64):
        columns.append(rollout(a, torch.zeros_like(start), entry.reshape(layers, width)).flatten())
    moves = torch.stack(columns, dim=1)
    heavy = torch.cat([q.flatten(), q_f])
    matrix = moves.T * heavy @ moves + torch.diag(r.flatten())
    inputs = torch.linalg.solve(matrix, -(moves.T * heavy @ free))
    states = free + moves @ inputs
    return inputs.reshape(layers, width), (heavy * states**2).sum() + (r.flatten() * inputs**2).sum()
