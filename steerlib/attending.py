"""How a block that is called alone attends: to frozen keys and values, and to its own, which alone can change.

Two ways. `Joined` is a cache as the family's code expects it: it appends the block's own keys and values to the frozen
ones. Derivatives are right, but each direction carries one of every frozen key and value along, only to drop it.
`Apart` keeps them out of the way: the cache gives back the block's own alone, and the call of attention that follows
reads the frozen ones besides, as constants. It fits families that attend by
`torch.nn.functional.scaled_dot_product_attention`; whether it fits a block is seen from what comes out.

Knows caches and attention; knows nothing about plants or derivatives.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Joined:
    """Frozen keys and values, to which a block's own are appended.

    Args:
        keys: of the tokens in front.
        values: likewise.
    """

    def __init__(self, keys: Float[Tensor, "rows heads context size"], values: Tensor) -> None:
        """Keep them."""
        self.keys, self.values = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What the block attends to."""
        return torch.cat([self.keys, key_states], -2), torch.cat([self.values, value_states], -2)

    def get_seq_length(self, *_: Any) -> int:
        """Tokens in front."""
        return self.keys.shape[-2]


class _Times(torch.autograd.Function):
    """State times a constant matrix, in batches of directions without a copy of the constant for each of them."""

    @staticmethod
    def forward(state: Tensor, constant: Tensor) -> Tensor:
        return state @ constant

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Times.apply(grad, ctx.saved_tensors[0].mT), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _Times.apply(tangent, ctx.saved_tensors[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, int | None], state: Tensor, constant: Tensor) -> tuple[Tensor, int]:
        if in_dims[1] is not None:
            state = (
                state.movedim(in_dims[0], 0) if in_dims[0] is not None else state.expand(info.batch_size, *state.shape)
            )
            return _Times.apply(state, constant.movedim(in_dims[1], 0)), 0
        state = state.movedim(in_dims[0], -2)  # directions become more rows of the state
        found = _Times.apply(state.flatten(-3, -2), constant)
        return found.unflatten(-2, state.shape[-3:-1]).movedim(-2, 0), 0


class Apart(Joined, TorchFunctionMode):
    """Frozen keys and values that attention reads as constants; a mode that must be on while the block runs."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        """Keep them."""
        Joined.__init__(self, keys, values)
        TorchFunctionMode.__init__(self)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The block's own alone."""
        return key_states, value_states

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ARG002
        """Attention reads the frozen keys besides; every other function is as it is."""
        if func is torch.nn.functional.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **options: Any
    ) -> Tensor:
        rows, heads, asked, size = query.shape
        shared = self.keys.shape[1]
        shape = (rows, shared, heads // shared, asked)  # heads that share keys stand side by side
        grouped = query.reshape(*shape, size) * (options.get("scale") or size**-0.5)
        own_key, own_value = (part.reshape(rows, shared, -1, 1, part.shape[-1]) for part in (key, value))
        before = _Times.apply(grouped.flatten(2, 3), self.keys.mT)  # (rows, shared, heads x asked, context)
        own = (grouped * own_key).sum(-1, keepdim=True)
        scores = torch.cat([before.reshape(*shape, self.keys.shape[-2]), own], -1)
        if attn_mask is not None:
            ahead = 1 if attn_mask.shape[1] == 1 else shared
            mask = attn_mask.reshape(len(attn_mask), ahead, -1, *attn_mask.shape[2:])
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        weights = scores.softmax(-1)
        given = _Times.apply(weights[..., :-1].flatten(2, 3), self.values)
        return (given.reshape(*shape, -1) + weights[..., -1:] * own_value).reshape(rows, heads, asked, -1)


class Double(TorchFunctionMode):
    """Keep float64 where a family casts to float32 inside its norms and its softmax, whatever it was given."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ARG002
        """A cast of a float64 tensor to float32 leaves it as it is."""
        kwargs = dict(kwargs or {})
        if args and isinstance(args[0], Tensor) and args[0].dtype == torch.float64:
            if func is Tensor.float:
                return args[0]
            args = tuple(torch.float64 if given is torch.float32 else given for given in args)
            kwargs = {name: torch.float64 if given is torch.float32 else given for name, given in kwargs.items()}
        return func(*args, **kwargs)
