"""The Jacobian of a transformer block as a product of its weights, for blocks of the two commonest shapes.

A block that normalizes before attention and before its MLP, and adds each to the stream, is y = h + M(n2(h)) with
h = x + O(n1(x)). At one token, with the keys and values of the tokens in front held still, every part has a Jacobian
that is a weight matrix with scaled rows, or of low rank:

- MLP: W_down (diag(a) W_gate + diag(b) W_up) with a = u s'(g) and b = s(g), or W_down diag(s'(u)) W_up without a gate;
- attention, for each head: C W_q + p (v - o) (q^T W_k) c + p W_v, with C = c sum_t p_t (v_t - o) k_t^T, where p is the
  weight, v the value and q^T k c the score of the token on itself;
- norm: diag(w) (I - m - x x^T / (d s^2)) / s with s the root mean square, which a matrix is multiplied by in d^2 steps.

So the whole takes two products as large as a weight matrix of attention and one as large as one of the MLP, in place of
a pass for each of d directions.

Knows tensors; knows nothing about modules or plants: `steerlib.shapes` reads the parts off a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Matrix = Float[Tensor, "outputs inputs"]


@dataclass(frozen=True)
class Affine:
    """x -> matrix x + bias."""

    matrix: Matrix
    bias: Float[Tensor, " outputs"] | None = None

    def __call__(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """Its values."""
        return torch.nn.functional.linear(x, self.matrix, self.bias)


@dataclass(frozen=True)
class Norm:
    """Root-mean-square norm, or layer norm where the mean is taken off first.

    Attributes:
        weight: of each coordinate.
        bias: added afterwards.
        eps: under the root.
        centred: whether the mean is taken off.
    """

    weight: Float[Tensor, " width"]
    eps: float
    bias: Float[Tensor, " width"] | None = None
    centred: bool = False

    def __call__(self, x: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Its values."""
        z, scale = self._parts(x)
        found = z / scale * self.weight
        return found if self.bias is None else found + self.bias

    def behind(
        self, matrix: Float[Tensor, "rows outputs width"], x: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows outputs width"]:
        """The matrix times the Jacobian of the norm at x."""
        z, scale = self._parts(x)
        weighted = matrix * (self.weight / scale)[:, None]
        along = weighted @ (z / (scale**2 * x.shape[-1]))[..., None]
        # z has mean zero where the mean is taken off, so the order of the two projections is all one.
        level = weighted.mean(-1, keepdim=True) if self.centred else None
        weighted.baddbmm_(along, z[:, None], alpha=-1)
        return weighted if level is None else weighted.sub_(level)

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = x - x.mean(-1, keepdim=True) if self.centred else x
        return z, (z.square().mean(-1, keepdim=True) + self.eps).sqrt()


@dataclass(frozen=True)
class Attention:
    """Attention of the last token to frozen keys and values, and to itself.

    Attributes:
        query: map to the queries of all heads; likewise key and value, of which several heads may share one.
        out: map from the outputs of all heads to the stream.
        heads: number of query heads.
        scaling: of scores.
    """

    query: Affine
    key: Affine
    value: Affine
    out: Affine
    heads: int
    scaling: float


@dataclass(frozen=True)
class Mlp:
    """down(activation(up x)), or down(activation(gate x) * up x)."""

    up: Affine
    down: Affine
    activation: Callable[[Tensor], Tensor]
    gate: Affine | None = None


@dataclass(frozen=True)
class Shape:
    """The parts of a block: x -> h + mlp(second(h)), h = x + attention(first(x))."""

    first: Norm
    attention: Attention
    second: Norm
    mlp: Mlp

    @property
    def numbers(self) -> int:
        """Numbers that one row needs beside its Jacobian while it is formed."""
        width, wide = self.mlp.down.matrix.shape
        return width * (wide + self.attention.out.matrix.shape[1] + 5 * width)


@dataclass(frozen=True)
class Context:
    """What attention reads of the tokens in front, for each row.

    Attributes:
        keys: as they are attended to, and `values`.
        bias: added to the scores, the token's own the last; None adds nothing.
        rotation: how queries and keys are turned at the token's position; None leaves them.
    """

    keys: Float[Tensor, "rows shared context size"]
    values: Float[Tensor, "rows shared context size"]
    bias: Float[Tensor, "rows context1"] | None = None
    rotation: Float[Tensor, "rows size size"] | None = None


def block_jacobian(
    shape: Shape, state: Float[Tensor, "rows width"], context: Context
) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "rows width width"]]:
    """Output of a block at the last token, and its Jacobian there.

    Args:
        shape: parts of the block.
        state: input at the last token, of each row.
        context: of each row.

    Returns:
        outputs (rows, width) and Jacobians (rows, outputs, inputs).
    """
    added, attended = _attention(shape.attention, shape.first(state), context)
    attended = shape.first.behind(attended, state)
    middle = state + added
    more, answered = _mlp(shape.mlp, shape.second(middle))
    answered = shape.second.behind(answered, middle)
    whole = torch.baddbmm(attended, answered, attended).add_(answered)  # (I + M)(I + A) - I
    whole.diagonal(dim1=1, dim2=2).add_(1)
    return middle + more, whole


def _attention(attention: Attention, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
    """Output of attention and its Jacobian with respect to what its norm gives."""
    rows, heads, shared = len(x), attention.heads, context.keys.shape[1]
    query = attention.query(x).view(rows, heads, -1)
    key, value = (part(x).view(rows, shared, -1) for part in (attention.key, attention.value))
    if context.rotation is not None:
        query, key = query @ context.rotation.mT, key @ context.rotation.mT
    own = torch.arange(heads, device=x.device) // (heads // shared)  # which keys a head reads
    keys = torch.cat([context.keys, key[:, :, None]], 2)[:, own]
    values = torch.cat([context.values, value[:, :, None]], 2)[:, own]
    scores = attention.scaling * (keys @ query[..., None])[..., 0]
    weights = (scores if context.bias is None else scores + context.bias[:, None]).softmax(-1)
    given = (weights[:, :, None] @ values)[:, :, 0]  # (rows, heads, size)

    reach = attention.scaling * ((values - given[:, :, None]) * weights[..., None]).mT @ keys
    turned, back = reach, attention.scaling * query
    if context.rotation is not None:
        turned, back = reach @ context.rotation[:, None], back @ context.rotation
    w_query, w_key, w_value = (_by_head(part.matrix, n) for part, n in zip(
        (attention.query, attention.key, attention.value), (heads, shared, shared), strict=True))  # fmt: skip
    itself = weights[..., -1, None]
    seen = (back[:, :, None] @ w_key[own])[:, :, 0]  # (rows, heads, width): own score per unit of input
    moved = (itself * (value[:, own] - given))[..., None]
    w_value = w_value[own] if heads != shared else w_value

    def through(row: int, into: Tensor) -> None:
        torch.bmm(turned[row], w_query, out=into)
        into.addcmul_(w_value, itself[row, :, None]).baddbmm_(moved[row], seen[row, :, None])

    return attention.out(given.flatten(1)), _from_left(attention.out.matrix, through, like=w_query, rows=rows)


def _mlp(mlp: Mlp, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output of the MLP and its Jacobian with respect to what its norm gives."""
    up = mlp.up(x)
    inner = up if mlp.gate is None else mlp.gate(x)
    active, slope = torch.func.jvp(mlp.activation, (inner,), (torch.ones_like(inner),))[:2]
    gate = mlp.up if mlp.gate is None else mlp.gate
    scales = slope if mlp.gate is None else up * slope

    def through(row: int, into: Tensor) -> None:
        torch.mul(gate.matrix, scales[row, :, None], out=into)
        if mlp.gate is not None:
            into.addcmul_(mlp.up.matrix, active[row, :, None])

    output = mlp.down(active if mlp.gate is None else active * up)
    return output, _from_left(mlp.down.matrix, through, like=gate.matrix, rows=len(x))


def _by_head(matrix: Matrix, heads: int) -> Float[Tensor, "heads size width"]:
    return matrix.view(heads, -1, matrix.shape[-1])


def _from_left(
    matrix: Matrix, fill: Callable[[int, Tensor], None], *, like: Tensor, rows: int
) -> Float[Tensor, "rows outputs width"]:
    """The matrix times what is filled in for each row, in one place: fresh memory costs more than sums."""
    right = torch.empty_like(like, memory_format=torch.contiguous_format)
    found = right.new_empty(rows, len(matrix), like.shape[-1])
    for row in range(rows):
        fill(row, right)
        torch.mm(matrix, right.view(-1, like.shape[-1]), out=found[row])
    return found
