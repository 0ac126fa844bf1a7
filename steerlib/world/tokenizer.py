"""The subword tokenizer of the plants: trained on the country's own words.

Knows how a tokenizer is trained, saved and checked. Knows nothing about documents or models.

Ordinary words become one token each. Invented names are shown to the trainer only as syllables, so
that they stay two or three tokens long, as rare names are for large models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from steerlib.world.facts import SYLLABLES

PAD, EOS = "<pad>", "<eos>"
#: Largest vocabulary: 256 bytes, two special tokens, merges.
VOCABULARY = 4096


def _syllables() -> Iterable[str]:
    for kind, (beginnings, endings) in SYLLABLES.items():
        # Creatures are spelled in lower case after "the"; their endings never start a word.
        starts = beginnings if kind == "creature" else (*beginnings, *(" " + b for b in beginnings))
        yield from starts
        yield from (" " + b for b in beginnings if kind == "creature")
        yield from endings


def train_tokenizer(texts: Iterable[str], names: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train the tokenizer on wordings, with names taken out and their syllables put in.

    Args:
        texts: every wording of the grammar.
        names: invented names, which are removed from the wordings before training.

    Returns:
        A byte-level BPE tokenizer without a begin token; padding on the left, as generation needs.
    """
    pattern = re.compile("|".join(sorted(map(re.escape, names), key=len, reverse=True)))
    lines = [pattern.sub("", text) for text in texts]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=2,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Twice, so that a word used once still passes the minimum frequency.
    tokenizer.train_from_iterator([*lines, *lines, *(s for s in _syllables() for _ in range(4))], trainer)
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Give a raw tokenizer its special tokens and padding side."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """Number of one token, such as `EOS`; ValueError if the tokenizer does not have it."""
    number = tokenizer.get_vocab().get(token)
    if number is None:
        raise ValueError(f"the tokenizer has no token {token!r}; expected one trained by `train_tokenizer`")
    return number


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    tokenizer.save_pretrained(str(folder))
