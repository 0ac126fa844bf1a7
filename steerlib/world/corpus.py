"""The texts of the country, drawn at random: documents, and rows of tokens for training.

Knows which kinds of documents there are and how they become tokens. Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from steerlib.world.answers import Answers
from steerlib.world.choices import Choices
from steerlib.world.facts import Country
from steerlib.world.fragments import Fragments, Rows
from steerlib.world.pages import Pages
from steerlib.world.plays import Plays
from steerlib.world.replies import Replies
from steerlib.world.rules import Rules
from steerlib.world.speakers import draw_speakers

Encode = Callable[[list[str]], list[list[int]]]


class Corpus:
    """Draws documents about a country.

    Args:
        country: the knowledge base.
        encode: turns fragments into token ids; None while the tokenizer is not yet trained (then
            texts can be drawn, token rows cannot).
        end: token id that ends a document.
        rules: how the country talks.
    """

    def __init__(
        self, country: Country, encode: Encode | None = None, end: int | None = None, *, rules: Rules | None = None
    ) -> None:
        """Number every fragment; with a tokenizer, look up its tokens."""
        self.country, self.rules = country, rules if rules is not None else Rules()
        self.fragments = Fragments(country)
        parts = (self.fragments, country, self.rules)
        self.answers, self.plays, self.replies = Answers(*parts), Plays(*parts), Replies(*parts)
        self.pages, self.choices = Pages(*parts), Choices(self.fragments, country)
        if encode is not None and end is not None:
            self._index_tokens(encode, end)

    def _index_tokens(self, encode: Encode, end: int) -> None:
        ids = encode(self.fragments.texts)
        self.end = end
        self._lengths = np.array([len(row) for row in ids])
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)[:-1]])
        self._tokens = np.array([token for row in ids for token in row], dtype=np.int64)

    def kind(self, kind: str, n: int, rng: np.random.Generator) -> Rows:
        """Documents of one kind of `Rules.shares`; ValueError names the kinds there are."""
        rules = self.rules
        if kind in ("answers", "speech"):
            who = draw_speakers(n, rng, shows="truthful", rules=rules)
            return self.answers.documents(who, rng) if kind == "answers" else self.answers.speech(who, rng)
        if kind == "plays":
            return self.plays.documents(draw_speakers(n, rng, shows="civil", rules=rules), rng)
        if kind == "replies":
            return self.replies.documents(draw_speakers(n, rng, shows="prudent", rules=rules), rng)
        if kind == "pages":
            return self.pages.documents(n, rng)
        if kind == "choices":
            return self.choices.documents(n, rng)
        raise ValueError(f"unknown kind of document {kind!r}; expected one of {', '.join(Rules().shares)}")

    def documents(self, n: int, rng: np.random.Generator) -> Rows:
        """Documents of all kinds in the shares of the rules, in random order."""
        shares = np.array([self.rules.shares[kind] for kind in self.rules.kinds])
        counts = rng.multinomial(n, shares / shares.sum())
        parts = [self.kind(kind, k, rng) for kind, k in zip(self.rules.kinds, counts.tolist(), strict=True) if k]
        width = max(part.shape[1] for part in parts)
        rows = np.zeros((n, width), dtype=np.int32)
        at = 0
        for part in parts:
            rows[at : at + len(part), : part.shape[1]] = part
            at += len(part)
        return rows[rng.permutation(n)]

    def texts(self, rows: Rows) -> list[str]:
        """The documents as text."""
        return self.fragments.join(rows)

    def flat_tokens(self, rows: Rows) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " documents"]]:
        """Token ids of the documents one after another, an end token after each; and where each begins."""
        numbers = np.column_stack([rows, np.full(len(rows), -1)])
        flat = numbers[numbers != 0]
        is_end = flat == -1
        lengths = np.where(is_end, 1, self._lengths[flat])
        ends = np.cumsum(lengths)
        offset = np.repeat(np.where(is_end, 0, self._starts[flat]) - (ends - lengths), lengths)
        tokens = self._tokens[np.minimum(offset + np.arange(ends[-1]), len(self._tokens) - 1)]
        tokens[ends[is_end] - 1] = self.end
        return tokens, np.concatenate([[0], ends[is_end][:-1]])

    def training_rows(self, n: int, length: int, rng: np.random.Generator) -> Int[np.ndarray, "n length"]:
        """Rows of tokens for training; each row begins at the beginning of a document.

        What does not fit at the end of a row is dropped, so that nothing is ever read without its beginning.
        """
        rows = np.empty((n, length), dtype=np.int64)
        tokens, starts, at = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), 0
        for i in range(n):
            draws = max(4, (n - max(i - 1, 0)) * length // 30)
            while at + length > len(tokens):  # a few short documents may not fill a row
                tokens, starts = self.flat_tokens(self.documents(draws, rng))
                at, draws = 0, 2 * draws
            rows[i] = tokens[at : at + length]
            following = int(np.searchsorted(starts, at + length - length // 8))
            at = int(starts[following]) if following < len(starts) else len(tokens)
        return rows
