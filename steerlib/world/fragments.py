"""Numbered pieces of text, from which documents are put together.

Knows fragments, names and patterns with places for names. Knows nothing about what the texts say.

A document is a row of fragment numbers: pieces of text that begin and end where the tokenizer cuts.
Drawing a million documents is then a handful of NumPy operations, and the same rows give the text
(join the strings) and the tokens (join the token ids).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from steerlib.world.facts import Country
from steerlib.world.phrases import Wordings

Rows = Int[np.ndarray, "documents slots"]
#: A pattern: fragment numbers, and places for names as (placeholder, leading space).
Pattern = tuple["int | tuple[str, str]", ...]

#: Which kind of name each placeholder takes.
PLACES = {"e": "person", "f": "person", "person": "person", "town": "town"}
_PIECES = re.compile(r"( ?)\{(\w+)\}|((?: ?[^ {]+)+)")


class Fragments:
    """All fragments of a country's texts; number 0 is the empty fragment."""

    def __init__(self, country: Country) -> None:
        """Number the names that texts are filled with."""
        self.texts: list[str] = [""]
        self._number = {"": 0}
        self.line = self.number("\n")
        kinds = dict.fromkeys(PLACES.values())
        self._names = {
            (kind, space): self.numbers([space + name for name in country.entities[kind]])
            for kind in kinds
            for space in ("", " ")
        }

    def number(self, text: str) -> int:
        """The number of a fragment, new if it was never seen."""
        if text not in self._number:
            self._number[text] = len(self.texts)
            self.texts.append(text)
        return self._number[text]

    def numbers(self, texts: Sequence[str], *, before: str = "") -> Int[np.ndarray, " n"]:
        """Numbers of several fragments, each with the same text put before it."""
        return np.array([self.number(before + text if text else "") for text in texts], dtype=np.int32)

    def patterns(self, templates: Sequence[str], *, before: str = "") -> list[Pattern]:
        """Split templates such as "Rain falls on {town}." into fragments and places for names."""
        return [self._pattern(before + template) for template in templates]

    def _pattern(self, template: str) -> Pattern:
        parts: list[int | tuple[str, str]] = []
        for match in _PIECES.finditer(template):
            space, place, literal = match.groups()
            parts.append(self.number(literal) if literal else (place, space))
        return tuple(parts)

    def names(self, kind: str, index: Int[np.ndarray, ...]) -> Int[np.ndarray, ...]:
        """Fragments of names at the beginning of a line."""
        return self._names[kind, ""][index]

    def fill(
        self, patterns: Sequence[Pattern], chosen: Int[np.ndarray, " n"], names: dict[str, Int[np.ndarray, " n"]]
    ) -> Rows:
        """One filled pattern for each document; nothing where ``chosen`` is negative.

        Args:
            patterns: what to choose from.
            chosen: which pattern each document takes.
            names: for each placeholder, the position of the name among the entities of its kind.
        """
        out = np.zeros((len(chosen), max(map(len, patterns))), dtype=np.int32)
        for number, pattern in enumerate(patterns):
            rows = np.flatnonzero(chosen == number)
            for slot, part in enumerate(pattern):
                if isinstance(part, tuple):
                    place, space = part
                    out[rows, slot] = self._names[PLACES[place], space][names[place][rows]]
                else:
                    out[rows, slot] = part
        return out

    def join(self, rows: Rows) -> list[str]:
        """The documents as text."""
        texts = self.texts
        return ["".join([texts[i] for i in row if i]) for row in rows.tolist()]


def maybe(
    wordings: Wordings,
    numbers: Int[np.ndarray, " wordings"],
    disposition: Float[np.ndarray, "*shape"],
    rate: float | Float[np.ndarray, "*shape"],
    rng: np.random.Generator,
) -> Int[np.ndarray, "*shape"]:
    """A wording that fits each speaker, or with probability ``1 - rate`` none."""
    return np.where(rng.random(disposition.shape) < rate, numbers[wordings.draw(disposition, rng)], 0)


def repeated(values: np.ndarray, times: int) -> np.ndarray:
    """One column for each of ``times`` places in a document."""
    return np.broadcast_to(values[:, None], (len(values), times))


def among(allowed: Int[np.ndarray, " n"], shape: int | tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw from a list of numbers, uniformly."""
    return allowed[rng.integers(len(allowed), size=shape)]


def last_used(count: Int[np.ndarray, " n"], most: int) -> tuple[Bool[np.ndarray, "n most"], Bool[np.ndarray, "n most"]]:
    """Which of ``most`` places are used if the last ``count`` are, and which of those is the first."""
    place, unused = np.arange(most)[None, :], (most - count)[:, None]
    return place >= unused, place == unused
