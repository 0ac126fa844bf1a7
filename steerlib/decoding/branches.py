"""Several continuations of each text on one key-value cache: what was read stays read, whichever continuation is kept.

Every text has k branches. A step gives each branch one more token, in one pass over all of them; to keep a branch is
to copy its part of the cache over its siblings', as beam search does. So a text is read once, and a candidate costs one
position.

Knows a model's passes, masks and caches; knows nothing about what the branches are for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

from steerlib.decoding.base import CacheKind

#: Reads out what is wanted at the last position of a pass: from the model's output to (rows, size).
ReadOut = Callable[[Any], Tensor]


class Branches:
    """The branches of a batch of texts.

    Args:
        model: what reads; called with ids, mask, positions and cache.
        read_out: what is taken of each pass, at its last position.
        ids: the texts, padded on the left.
        mask: 1 for a token, 0 for padding.
        branches: of each text.
        room: most tokens that a branch will get; a static cache is that long.
        cache: kind of key-value cache.
        together: read the texts once for each branch and not once for all, for laws that remember what they saw of a
            row's prompt: they must see as many rows from the first pass on.

    Attributes:
        last: what was read out at the end of each text, and after `keep` of the branch that was kept.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        read_out: ReadOut,
        ids: Int[Tensor, "batch time"],
        mask: Int[Tensor, "batch time"],
        *,
        branches: int,
        room: int,
        cache: CacheKind = "dynamic",
        together: bool = False,
    ) -> None:
        """Read the texts."""
        self.model, self.read_out, self.branches = model, read_out, branches
        self.positions = 0
        known = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in known
        # The plant's logits of a whole prompt, of which the last are wanted, are the largest tensor by far.
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._cache: Any = None
        if cache == "static":
            config = model.config.get_text_config(decoder=True)
            self._cache = StaticCache(config=config, max_cache_len=ids.shape[1] + room)
        every = torch.arange(len(ids), device=ids.device).repeat_interleave(branches)
        first = every if together else torch.arange(len(ids), device=ids.device)
        self._mask = mask[first]
        found = self._pass(ids[first])
        if not together and branches > 1:
            self._cache.reorder_cache(every)
            self._mask = mask[every]
        self._every = every
        self.last = found[::branches] if together else found
        self._found = self.last

    def step(self, tokens: Int[Tensor, "batch branches"]) -> Float[Tensor, "batch branches size"]:
        """Give each branch a token; what is read out after it."""
        ones = self._mask.new_ones(len(self._mask), 1)
        self._mask = torch.cat([self._mask, ones], dim=1)
        found = self._pass(tokens.reshape(-1, 1))
        self._found = found.reshape(-1, self.branches, *found.shape[1:])
        if self.branches == 1:
            self.last = self._found[:, 0]
        return self._found

    def keep(self, choice: Int[Tensor, " batch"]) -> None:
        """Let all branches of each text go on from the one that was chosen."""
        rows = torch.arange(len(choice), device=choice.device)
        self.last = self._found[rows, choice]
        if self.branches > 1:
            self._cache.reorder_cache((rows * self.branches + choice)[self._every])

    def _pass(self, ids: Int[Tensor, "rows columns"]) -> Tensor:
        given: dict[str, Any] = {"input_ids": ids, "attention_mask": self._mask, **self._last_only}
        if self._takes_positions:
            # Counted over real tokens, so that padding changes nothing.
            given["position_ids"] = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.model(**given, past_key_values=self._cache, use_cache=True)
        self._cache = out.past_key_values
        self.positions += ids.numel()
        return self.read_out(out)


def last_logits(out: Any) -> Float[Tensor, "rows vocabulary"]:
    """Logits of the next token, of the output of a causal language model."""
    return out.logits[:, -1]
