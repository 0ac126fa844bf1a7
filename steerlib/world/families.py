"""The architectures that a plant can have: one function each, from a recipe to an untrained model.

Knows the configuration of each family. Knows nothing about documents or training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from steerlib.world.plants import CONTEXT, Recipe

Attention = Literal["eager", "sdpa"]


@dataclass(frozen=True)
class _Tokens:
    """What a configuration must know of the tokenizer, and how attention is computed."""

    vocabulary: int
    pad: int
    end: int
    attention: Attention

    def common(self, recipe: Recipe) -> dict[str, Any]:
        """Settings that have the same name in every family."""
        return dict(
            vocab_size=self.vocabulary, hidden_size=recipe.width, num_hidden_layers=recipe.depth,
            num_attention_heads=recipe.heads, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
            bos_token_id=None, eos_token_id=self.end, pad_token_id=self.pad, attn_implementation=self.attention,
        )  # fmt: skip


def _llama(recipe: Recipe, tokens: _Tokens) -> PreTrainedModel:
    """Attention, then MLP, each behind an RMS norm."""
    config = LlamaConfig(
        **tokens.common(recipe),
        intermediate_size=recipe.hidden,
        num_key_value_heads=recipe.heads,
        rms_norm_eps=1e-5,
    )
    return LlamaForCausalLM(config)


def _falcon(recipe: Recipe, tokens: _Tokens) -> PreTrainedModel:
    """As Falcon-7B: attention and MLP side by side behind one LayerNorm, one key and value for all heads, rotary."""
    config = FalconConfig(
        **tokens.common(recipe),
        ffn_hidden_size=recipe.hidden,
        multi_query=True,
        parallel_attn=True,
        new_decoder_architecture=False,
        alibi=False,
        bias=False,
    )
    return FalconForCausalLM(config)


def _gemma2(recipe: Recipe, tokens: _Tokens) -> PreTrainedModel:
    """As Gemma 2: a norm before and after attention and MLP, so that what a block adds has a fixed size."""
    # Gemma 2's soft cap on the attention scores is left out, as Gemma 3 leaves it out: it makes a step a fifth
    # longer (0.56 s against 0.45 s at width 256) and keeps no score of a plant this small in check. The cap on the
    # logits costs nothing and stays. Its window of 4096 tokens never binds in a context of 512. Its attention is
    # always "eager": transformers offers no other for this family.
    head = recipe.width // recipe.heads
    config = Gemma2Config(
        **{**tokens.common(recipe), "attn_implementation": "eager"},
        intermediate_size=recipe.hidden,
        num_key_value_heads=recipe.heads,
        head_dim=head,
        query_pre_attn_scalar=head,
        attn_logit_softcapping=None,
        final_logit_softcapping=30.0,
        layer_types=["full_attention"] * recipe.depth,
        rms_norm_eps=1e-5,
    )
    return Gemma2ForCausalLM(config)


#: One builder a family; the name is the `transformers` model type.
FAMILIES: dict[str, Callable[[Recipe, _Tokens], PreTrainedModel]] = {
    "llama": _llama,
    "falcon": _falcon,
    "gemma2": _gemma2,
}


def build_model(
    recipe: Recipe, *, vocabulary: int, pad: int, end: int, attention: Attention = "eager"
) -> PreTrainedModel:
    """A randomly initialised model of the recipe's family, the same for the same seed.

    Args:
        recipe: sizes and seed.
        vocabulary: number of tokens.
        pad: id of the padding token.
        end: id of the end token.
        attention: how attention is computed; "eager" is the faster one on a CPU when compiled.

    Raises:
        ValueError: for a family that this version cannot grow.
    """
    builder = FAMILIES.get(recipe.family)
    if builder is None:
        raise ValueError(f"cannot grow family {recipe.family!r}; this version grows: {', '.join(FAMILIES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return builder(recipe, _Tokens(vocabulary, pad, end, attention))
