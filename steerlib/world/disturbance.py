"""Two disturbances while training that make a plant which can be steered.

Knows blocks, states and attention masks. Knows nothing about documents, optimisers or recipes.

- Noise on the residual stream. A model that must work on states that are slightly off is less sensitive to small
  moves in every direction. (Along any one of them, noise of this length is only a root of the width-th of it.)
- Short sight. On some rows the upper half of the blocks may look back a few tokens only, or at none but
  their own. Without it the disposition of the speaker is looked up by attention in block 4 of 6, in the
  very block that uses it, and no push before that block does anything (measured: a tenth of the gap). With
  it the disposition must be gathered early and carried in the state of the token where the choice is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from steerlib.anatomy import find_anatomy


class NoisyBlock(nn.Module):
    """A block whose output, a state of the residual stream, is disturbed, and whose attention can be short-sighted.

    Noise and mask are drawn by the caller and only used here: a generator inside would break a compiled
    graph in two at every block.

    Attributes:
        scale: norm of the disturbance as a share of the norm of the state, root mean square.
        noise: standard normal noise for the first rows of the batch, shape (rows, tokens, width); None for none.
        sight: attention mask of this block in the form that `attention_mask` gives; None leaves the model's own.
    """

    noise: Float[Tensor, "rows tokens width"] | None
    sight: Tensor | None

    def __init__(self, block: nn.Module, scale: float) -> None:
        super().__init__()
        self.block, self.scale = block, scale
        self.noise = self.sight = None

    def __getattr__(self, name: str) -> Any:
        """Show the attributes of the block: some architectures ask their blocks for their kind."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block and disturb its output."""
        if self.sight is not None:
            if "attention_mask" not in kwargs:
                kind = type(self.block).__name__
                raise TypeError(f"{kind} gets no attention_mask by that name, so it cannot be made short-sighted")
            kwargs["attention_mask"] = self.sight
        out = self.block(*args, **kwargs)
        state = out[0] if isinstance(out, tuple) else out
        if self.noise is not None:
            rows = self.noise.shape[0]
            state = torch.cat([self._disturbed(state[:rows], self.noise), state[rows:]])
        return (state, *out[1:]) if isinstance(out, tuple) else state

    def _disturbed(
        self, state: Float[Tensor, "rows tokens width"], noise: Float[Tensor, "rows tokens width"]
    ) -> Float[Tensor, "rows tokens width"]:
        # Detached, so that a state is not made smaller in order to be disturbed less.
        size = self.scale * state.detach().norm(dim=-1, keepdim=True) / math.sqrt(state.shape[-1])
        return state + (size * noise).to(state.dtype)


@contextmanager
def noisy(model: PreTrainedModel, scale: float) -> Iterator[list[NoisyBlock]]:
    """Wrap every block for as long as the context lasts; nothing is disturbed until noise or sight is set."""
    blocks = find_anatomy(model).blocks
    originals = list(blocks)
    wrapped = [NoisyBlock(block, scale) for block in originals]
    try:
        for i, block in enumerate(wrapped):
            blocks[i] = block
        yield wrapped
    finally:
        for i, block in enumerate(originals):
            blocks[i] = block


def short_sighted(horizon: Int[Tensor, " rows"], *, length: int) -> Bool[Tensor, "rows 1 length length"]:
    """Which token may look at which, in rows that each look back fewer tokens than their horizon.

    Args:
        horizon: tokens that each row may look at, itself included: 1 is the token alone.
        length: tokens in a row.
    """
    position = torch.arange(length, device=horizon.device)
    back = position[:, None] - position[None, :]
    return ((back >= 0) & (back < horizon[:, None, None]))[:, None]


def attention_mask(model: PreTrainedModel, sees: Bool[Tensor, "rows 1 length length"]) -> Tensor:
    """The mask in the form that the model's attention takes: Boolean for "sdpa", to be added for "eager"."""
    if model.config._attn_implementation == "sdpa":
        return sees
    return torch.zeros(sees.shape, device=sees.device).masked_fill(~sees, -math.inf)
