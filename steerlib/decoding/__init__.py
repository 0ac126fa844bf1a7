"""Decoders: what steers an answer by choosing prompts, tokens or whole answers, and leaves states alone.

The comparators of RE-Control, all batched: prompting, controlled decoding with a reward model (ARGS; "CD" in its
tables) or with a trained prefix scorer ("CD prefix"), in its token-wise and its blockwise form, and best of n. What
each costs is counted with the answers. Everything acts together with laws that are attached to the plant.
"""

from steerlib.decoding.base import (
    Cost,
    Decoded,
    Decoder,
    DecodingError,
    Plain,
    Prompted,
    answering_by,
    metered,
    told_prompts,
)
from steerlib.decoding.best_of import BestOf, best_of_divergence, expected_best, pool_rewards
from steerlib.decoding.controlled import Blockwise, ControlledDecoding
from steerlib.decoding.prefix import prefix_states, small_reader, state_scorer, token_scorer
from steerlib.decoding.reading import ModelScorer, StateScorer, TokenScorer, one_tokenizer
from steerlib.decoding.scoring import Scorer, TextScorer, judge_rewards

__all__ = [
    "BestOf", "Blockwise", "ControlledDecoding", "Cost", "Decoded", "Decoder", "DecodingError", "ModelScorer", "Plain",
    "Prompted", "Scorer", "StateScorer", "TextScorer", "TokenScorer", "answering_by", "best_of_divergence",
    "expected_best", "judge_rewards", "metered", "one_tokenizer", "pool_rewards", "prefix_states", "small_reader",
    "state_scorer", "token_scorer", "told_prompts",
]  # fmt: skip
