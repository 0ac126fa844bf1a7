"""Sampling with counter-based noise: each token's randomness depends on (seed, prompt, step, token) alone.

Knows how to turn logits into a sampled token; knows nothing about models.

`transformers.generate` draws from torch's global generator, so the answer to a prompt depends on which other
prompts share its batch. Here the noise is a hash of its coordinates. Two consequences matter for experiments:

* the same prompt, seed and logits give the same text in any batch, on any device;
* a steered and an unsteered run share their noise (common random numbers), which pairs them and shrinks the
  variance of their difference.

Sampling uses the Gumbel-max identity: argmax(logits / temperature + Gumbel noise) is a draw from the softmax.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

# Constants of splitmix64 (Steele, Lea and Flood 2014), written as signed 64-bit integers.
_GOLDEN = -7046029254386353131
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685


def _shift(x: Int[Tensor, ...], bits: int) -> Int[Tensor, ...]:
    """Logical right shift: torch's >> copies the sign bit of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def hash64(x: Int[Tensor, ...]) -> Int[Tensor, ...]:
    """The splitmix64 finaliser, elementwise on int64 with wrap-around."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def uniforms(seed: int, rows: Int[Tensor, " rows"], step: int, columns: int) -> Float[Tensor, "rows columns"]:
    """Uniform numbers strictly between 0 and 1, one for each (seed, row, step, column): float32 with 23 bits.

    Twenty-four bits and a half would round up to 1 at the top, whose Gumbel noise is infinite.
    """
    # Python integers do not wrap around, so seed and step go through tensors too.
    # Each coordinate is added to a hash of the ones before it: a plain sum would give (seed 0, row 1) and
    # (seed 1, row 0) the same noise.
    start = torch.tensor([seed % (1 << 63), step], device=rows.device) * _GOLDEN
    row = hash64(hash64(hash64(start[0] + _GOLDEN) + rows * _GOLDEN) + start[1])[:, None]
    column = torch.arange(columns, device=rows.device) * _GOLDEN
    return (_shift(hash64(row + column), 41).float() + 0.5) * 2.0**-23


class GumbelSampler(LogitsProcessor):
    """Turn greedy search into sampling: `generate(do_sample=False, logits_processor=[GumbelSampler(...)])`.

    Args:
        seed: any integer.
        rows: which prompt each row of the batch is (its index in the whole task, not in the batch).
        temperature: positive; logits are divided by it.
        top_k: keep only the k most likely tokens, or None.
        top_p: keep the smallest set of tokens whose probability reaches p, or None.
        prompt_columns: columns of the (padded) prompt, so that the step is known from the length.
    """

    def __init__(
        self,
        *,
        seed: int,
        rows: Int[Tensor, " rows"],
        temperature: float,
        prompt_columns: int,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        self.seed, self.rows, self.temperature = seed, rows, temperature
        self.prompt_columns, self.top_k, self.top_p = prompt_columns, top_k, top_p

    def __call__(self, input_ids: Int[Tensor, "rows time"], scores: Tensor) -> Tensor:
        """Scores of the next token, perturbed so that their argmax is a sample."""
        scores = truncate(scores.float() / self.temperature, top_k=self.top_k, top_p=self.top_p)
        noise = uniforms(self.seed, self.rows, input_ids.shape[1] - self.prompt_columns, scores.shape[1])
        return scores - torch.log(-torch.log(noise))


def truncate(
    scores: Float[Tensor, "rows vocabulary"], *, top_k: int | None = None, top_p: float | None = None
) -> Float[Tensor, "rows vocabulary"]:
    """Set the scores outside the top-k and the nucleus to minus infinity."""
    if top_k is not None:
        kth = scores.topk(min(top_k, scores.shape[1]), dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < kth, -torch.inf)
    if top_p is not None:
        ordered, order = scores.sort(dim=1, descending=True)
        before = ordered.softmax(dim=1).cumsum(dim=1) - ordered.softmax(dim=1)
        outside = torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, before >= top_p)
        scores = scores.masked_fill(outside, -torch.inf)
    return scores
