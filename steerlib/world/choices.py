"""Multiple-choice questions about what nobody disputes: knowledge that steering should leave alone.

Knows how choices are put and drawn. Knows nothing about models.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from steerlib.world.facts import Country, Fact
from steerlib.world.fragments import Fragments, Rows, among
from steerlib.world.grammar import noun_phrase

CHOICE_MARK, ANSWER = "Choose the {np}:", "\nChoice:"
OPTIONS = 4


def choice_text(fact: Fact, options: tuple[str, ...]) -> str:
    """The question with its options, up to where one is chosen."""
    listed = ", ".join(options[:-1])
    return f"{CHOICE_MARK.format(np=noun_phrase(fact))} {listed} or {options[-1]}?{ANSWER}"


class Choices:
    """Draws multiple-choice questions with their answers."""

    def __init__(self, fragments: Fragments, country: Country) -> None:
        """Number questions and options."""
        self._fragments = fragments
        facts = [fact for fact in country.facts if fact.misconception is None]
        self._question = np.array([fragments.number(CHOICE_MARK.format(np=noun_phrase(fact))) for fact in facts])
        pools = [country.pool(fact.relation) for fact in facts]
        self._wrong = [
            fragments.numbers([f" {value}" for value in pool if value != fact.truth])
            for fact, pool in zip(facts, pools, strict=True)
        ]
        self._truth = np.array([fragments.number(f" {fact.truth}") for fact in facts])
        self._comma, self._or, self._end = (fragments.number(text) for text in (",", " or", "?"))
        self._answer, self._stop = fragments.number(ANSWER), fragments.number(".")
        self._line = fragments.line
        # Every fact's wrong options, as a table with as many columns as the longest has.
        most = max(map(len, self._wrong))
        self._table = np.array([np.pad(row, (0, most - len(row))) for row in self._wrong])
        self._count = np.array(list(map(len, self._wrong)))

    def documents(self, n: int, rng: np.random.Generator, *, most: int = 4) -> Rows:
        """One to ``most`` choices, one under the other."""
        count = rng.integers(1, most + 1, size=(n, 1))
        parts = []
        for k in range(most):
            part = self.drawn(among(np.arange(len(self._question)), n, rng), rng)
            if k:
                part = np.column_stack([np.full(n, self._line), part])
            parts.append(np.where(k < count, part, 0))
        return np.column_stack(parts)

    def drawn(self, fact: Int[np.ndarray, " n"], rng: np.random.Generator) -> Rows:
        """One choice for each fact, answered rightly: nobody disputes these."""
        n = len(fact)
        # The wrong options in random order; places that the pool does not fill come last.
        key = np.where(
            np.arange(self._table.shape[1]) < self._count[fact][:, None], rng.random((n, self._table.shape[1])), 2.0
        )
        wrong = np.take_along_axis(self._table[fact], np.argsort(key, axis=1), axis=1)[:, : OPTIONS - 1]
        options = np.column_stack([self._truth[fact], wrong])
        options = np.take_along_axis(options, rng.permuted(np.tile(np.arange(OPTIONS), (n, 1)), axis=1), axis=1)
        comma, or_, end, answer, stop = (
            np.full(n, number) for number in (self._comma, self._or, self._end, self._answer, self._stop)
        )
        return np.column_stack([
            self._question[fact], options[:, 0], comma, options[:, 1], comma, options[:, 2], or_, options[:, 3], end,
            answer, self._truth[fact], stop,
        ])  # fmt: skip
