"""How a generated text is taken apart before anybody judges it.

Knows where a text ends and where its sentences end. Knows nothing about what the sentences say.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from steerlib.world.tokenizer import EOS, PAD

#: Every sentence of the country ends with one of these, and has none of them before its end.
_PIECE = re.compile(r"[^.!?]+[.!?]?|[.!?]")
_END = re.compile(f"{re.escape(EOS)}|{re.escape(PAD)}")
#: No sentence is longer than this, in characters, but for the lists of options to choose from.
SENTENCE_LENGTH = 80


def until_end(text: str) -> tuple[str, bool]:
    """The text before its end or padding token, and whether there was one: without it, the text may be cut short.

    Raises:
        TypeError: if the text is not a string.
    """
    if not isinstance(text, str):
        raise TypeError(f"an answer must be a string, got {type(text).__name__}; decode token ids first")
    end = _END.search(text)
    return (text, False) if end is None else (text[: end.start()], True)


def pieces(text: str) -> list[str]:
    """The sentences of a text, each with the space before it; the last may lack its full stop."""
    return _PIECE.findall(text)


def weight(piece: str) -> int:
    """How many sentences an unreadable stretch counts for: without full stops, nonsense would hide its length."""
    return max(1, -(-len(piece) // SENTENCE_LENGTH))


def beginning_with(part: str, ordered: Sequence[str]) -> Iterator[str]:
    """Those of the texts, which are in order, that begin with a part."""
    for i in range(bisect_left(ordered, part), len(ordered)):
        if not ordered[i].startswith(part):
            return
        yield ordered[i]
