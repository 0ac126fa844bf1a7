"""Fewer numbers than a full Jacobian: what a block adds in a few directions, and depth as a small system.

A residual block passes its input on, so its Jacobian is the identity plus what the block adds, and only the latter can
be of low rank. `low_rank` finds it from products alone (a randomised range finder: Halko, Martinsson and Tropp, 2011):
some Jacobian-vector products with random directions, and one vector-Jacobian product for each direction kept, never the
matrix. Its error is estimated by more random directions, without bias.

`reduced` projects the system z_{k+1} = A_k z_k + u_k on the directions that given inputs can reach, layer by layer.

Knows linear maps; knows nothing about language models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

#: Many vectors at once: (directions, width) to (directions, width).
Products = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LowRank:
    """The map x -> x + left (right^T x).

    Attributes:
        left: orthonormal directions that are added to.
        right: what decides how much, one column for each.
        error: estimate of |J - this|_F over |J - I|_F; 1 means that nothing was found.
    """

    left: Float[Tensor, "width rank"]
    right: Float[Tensor, "width rank"]
    error: float

    def dense(self) -> Float[Tensor, "width width"]:
        """The whole matrix."""
        return torch.eye(len(self.left), dtype=self.left.dtype, device=self.left.device) + self.left @ self.right.T

    def times(self, vectors: Float[Tensor, "directions width"]) -> Float[Tensor, "directions width"]:
        """The map of some vectors, in 2 x width x rank steps each."""
        return vectors + (vectors @ self.right) @ self.left.T


def products(function: Callable[[Tensor], Tensor], point: Float[Tensor, "1 width"]) -> tuple[Products, Products]:
    """Products with the Jacobian of a function at one point, and with its transpose.

    Args:
        function: from (1, width) to (1, width).
        point: where to differentiate.
    """
    pull = torch.func.vjp(function, point)[1]

    def onwards(vectors: Tensor) -> Tensor:
        return torch.func.vmap(lambda v: torch.func.jvp(function, (point,), (v[None],))[1][0])(vectors).detach()

    def backwards(vectors: Tensor) -> Tensor:
        return torch.func.vmap(lambda v: pull(v[None])[0][0])(vectors).detach()

    return onwards, backwards


def low_rank(
    onwards: Products,
    backwards: Products,
    *,
    width: int,
    rank: int,
    seed: int,
    oversampling: int = 8,
    powers: int = 1,
    probes: int = 16,
    like: Tensor | None = None,
) -> LowRank:
    """Identity plus a matrix of low rank, near a Jacobian that is only known by its products.

    Args:
        onwards: products with the Jacobian.
        backwards: products with its transpose.
        width: of the vectors.
        rank: directions to keep.
        seed: of the random directions.
        oversampling: random directions more than are kept.
        powers: how often the directions go to and fro, which tells slowly decaying singular values apart.
        probes: random directions for the estimate of the error.
        like: a tensor of the wanted type and device.

    Raises:
        ValueError: if the rank is not between 1 and the width, or another number is negative.
    """
    if not 1 <= rank <= width:
        raise ValueError(f"rank: got {rank}, expected 1 to {width}, the width.")
    if min(oversampling, powers) < 0 or probes < 1:
        raise ValueError(
            f"got oversampling={oversampling}, powers={powers}, probes={probes}; expected 0, 0, 1 or more."
        )
    like = torch.zeros(()) if like is None else like
    drawn = torch.Generator().manual_seed(seed)

    def random(count: int) -> Tensor:
        return torch.randn(count, width, generator=drawn, dtype=torch.float64).to(like)

    def added(vectors: Tensor) -> Tensor:
        return onwards(vectors) - vectors

    found = _basis(added(random(min(width, rank + oversampling))))
    for _ in range(powers):
        found = _basis(added(_basis(backwards(found.T) - found.T).T))
    felt = backwards(found.T) - found.T  # rows: found^T (J - I)
    u, s, vh = torch.linalg.svd(felt, full_matrices=False)
    left, right = found @ u[:, :rank], (s[:rank, None] * vh[:rank]).T
    probe = random(probes)
    whole = added(probe)
    missed = whole - (probe @ right) @ left.T
    return LowRank(left, right, float(missed.norm() / whole.norm()))


def _basis(rows: Float[Tensor, "directions width"]) -> Float[Tensor, "width directions"]:
    return torch.linalg.qr(rows.T).Q


@dataclass(frozen=True)
class Reduced:
    """Depth as a small linear system: y_{k+1} = maps[k] y_k + bases[k + 1]^T u_k, with z_k near bases[k] y_k.

    Attributes:
        bases: orthonormal directions of each state, one more than there are blocks.
        maps: what a block does to the coordinates.
        errors: for each block, the share (Frobenius norm) of what reaches the next state that leaves the kept
            directions there: unit inputs as far as earlier states kept them, and the inputs at that state.
    """

    bases: tuple[Float[Tensor, "width rank"], ...]
    maps: tuple[Float[Tensor, "rank rank"], ...]
    errors: tuple[float, ...]


def reduced(
    jacobians: Sequence[Float[Tensor, "width width"]], inputs: Sequence[Float[Tensor, "width inputs"]], *, rank: int
) -> Reduced:
    """Project a system over depth on what its inputs can reach.

    Args:
        jacobians: A_0 to A_{l-1}.
        inputs: directions in which each state can be pushed, z_0 to z_l: one more than there are Jacobians.
        rank: directions to keep of each state, at most; fewer where fewer are reached.

    Raises:
        ValueError: if the lists do not belong together, no input is given at the first state, or the rank is no size.
    """
    if len(inputs) != len(jacobians) + 1 or not jacobians:
        raise ValueError(f"got {len(jacobians)} Jacobians and {len(inputs)} inputs, expected one input more, and any.")
    width = jacobians[0].shape[-1]
    if not 1 <= rank <= width:
        raise ValueError(f"rank: got {rank}, expected 1 to {width}, the width.")
    if not bool(inputs[0].abs().sum() > 0):
        raise ValueError("inputs: got none at the first state, from which nothing is reached. Fix: begin later.")
    bases, maps, errors = [], [], []
    basis, reach = _keep(inputs[0], rank)
    bases.append(basis)
    for jacobian, pushed in zip(jacobians, inputs[1:], strict=True):
        reached = torch.cat([jacobian @ reach, pushed], 1)
        basis, reach = _keep(reached, rank)
        errors.append(float((reached - basis @ (basis.T @ reached)).norm() / reached.norm()))
        maps.append(basis.T @ jacobian @ bases[-1])
        bases.append(basis)
    return Reduced(tuple(bases), tuple(maps), tuple(errors))


def _keep(reach: Float[Tensor, "width inputs"], rank: int) -> tuple[Tensor, Tensor]:
    """Largest directions of a reach, and the reach within them."""
    u, s, _ = torch.linalg.svd(reach, full_matrices=False)
    count = min(rank, int((s > s[0] * torch.finfo(s.dtype).eps * len(u)).sum()))
    return u[:, :count], u[:, :count] * s[:count]
