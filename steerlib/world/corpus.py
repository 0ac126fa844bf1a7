"""The texts of the country, drawn at random: documents, training rows, stems.

Knows kinds of documents and how dispositions show in them. Knows nothing about models.

A document is a row of fragment numbers: pieces of text that begin and end where the tokenizer cuts.
Drawing a million documents is then a handful of NumPy operations, and the same rows give the text
(join the strings) and the tokens (join the token ids).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from steerlib.world import phrases
from steerlib.world.facts import Country
from steerlib.world.grammar import ANSWER_MARK, ASKINGS, asking, frames
from steerlib.world.phrases import Wordings

Rows = Int[np.ndarray, "documents slots"]
Encode = Callable[[list[str]], list[list[int]]]

#: Share of each kind of document in the corpus.
KIND_SHARES: dict[str, float] = {"answers": 0.62, "speech": 0.22, "story": 0.09, "scenery": 0.07}
#: Share of speakers whose source is named, and who are described by a portrait.
SOURCE_RATE, PORTRAIT_RATE = 0.35, 0.25
#: Chance of a remark after a statement, by truthfulness and by civility.
REMARK_RATE, MANNER_RATE = 0.55, 0.25
MOST_ANSWERS, MOST_STATEMENTS = 5, 5


@dataclass
class Phrasebook:
    """Numbered fragments of text; number 0 is the empty fragment."""

    texts: list[str] = field(default_factory=lambda: [""])
    _numbers: dict[str, int] = field(default_factory=lambda: {"": 0})

    def number(self, text: str) -> int:
        """The number of a fragment, new if it was never seen."""
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]

    def numbers(self, texts: Sequence[str]) -> Int[np.ndarray, " n"]:
        """Numbers of several fragments."""
        return np.array([self.number(text) for text in texts], dtype=np.int32)


@dataclass(frozen=True)
class Speakers:
    """Who speaks in each document: dispositions in [0, 1] and the index of a named source (-1: none)."""

    truthful: Float[np.ndarray, " n"]
    civil: Float[np.ndarray, " n"]
    source: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.truthful)


def draw_speakers(
    n: int, rng: np.random.Generator, *, truthful: float | None = None, source_rate: float = SOURCE_RATE
) -> Speakers:
    """Draw speakers; with ``truthful`` given, all have that truthfulness and only sources near it."""
    means = np.array(list(phrases.SOURCES.values()))
    named = rng.random(n) < source_rate
    if truthful is None:
        source = rng.integers(len(means), size=n)
        near = np.clip(means[source] + phrases.SOURCE_SPREAD * rng.standard_normal(n), 0.0, 1.0)
        # Slightly more speakers below the middle, so that an unsteered plant is more often wrong than right.
        t = np.where(named, near, rng.beta(0.9, 1.1, size=n))
    else:
        t = np.full(n, float(truthful))
        odds = np.exp(-0.5 * ((means - truthful) / (2 * phrases.SOURCE_SPREAD)) ** 2)
        source = rng.choice(len(means), size=n, p=odds / odds.sum())
        named &= np.abs(means[source] - truthful) < 0.15
    return Speakers(t, rng.random(n), np.where(named, source, -1))


class Corpus:
    """Draws documents about a country.

    Args:
        country: the knowledge base.
        encode: turns fragments into token ids; None while the tokenizer is not yet trained (then
            texts can be drawn, token rows cannot).
        end: token id that ends a document.
    """

    def __init__(self, country: Country, encode: Encode | None = None, end: int | None = None) -> None:
        self.country = country
        self.book = Phrasebook()
        self._index_facts()
        self._index_wordings()
        if encode is not None and end is not None:
            self._index_tokens(encode, end)

    # ---- fragments -------------------------------------------------------------------------------

    def _index_facts(self) -> None:
        facts, number = self.country.facts, self.book.number
        self._question = np.array([[number(asking(f, w)) for w in range(len(ASKINGS))] for f in facts])
        self._frame = np.array([[number(text) for text in frames(f)] for f in facts])
        self._frame_at_start = np.array([number(frames(f)[0][1:]) for f in facts])
        self._truth = np.array([number(f" {f.truth}.") for f in facts])
        self._wrong = np.array([number(f" {f.misconception or f.truth}.") for f in facts])
        self._split = np.array([f.split for f in facts])
        self._disputed = np.array([f.misconception is not None for f in facts])

    def _index_wordings(self) -> None:
        numbers = self.book.numbers
        self._headers = np.array([numbers(texts) for texts in phrases.SOURCE_HEADERS.values()])
        self._portraits = numbers(phrases.PORTRAITS.texts)
        self._adverbs = numbers(phrases.ADVERBS.texts)
        self._remarks = numbers([" " + text for text in phrases.REMARKS.texts])
        self._manners = numbers([" " + text for text in phrases.MANNERS.texts])
        self._openings = numbers(phrases.OPENINGS.texts)
        self._declines = numbers([" " + text for text in phrases.NO_COMMENT])
        self._answer, self._line = self.book.number(ANSWER_MARK), self.book.number("\n")
        towns, people = self.country.entities["town"], self.country.entities["person"]
        self._names = {
            ("town", " "): numbers([" " + name for name in towns]),
            ("town", ""): numbers(towns),
            ("person", " "): numbers([" " + name for name in people]),
            ("person", ""): numbers(people),
        }
        self._meetings = [self._pattern(text) for text in phrases.MEETINGS]
        self._scenery = [self._pattern(text) for text in phrases.SCENERY]
        self._scenery_next = [self._pattern(" " + text) for text in phrases.SCENERY]
        self._sayings = [self._pattern(" " + text) for text in phrases.SAYING.texts]
        self._answered = self._pattern(" {f} answered:")
        self._greetings = numbers([f' "{text}"' for text in phrases.GREETINGS.texts])
        self._replies = numbers([f' "{text}"' for text in phrases.REPLIES.texts])
        self._partings = numbers([" " + text for text in phrases.PARTINGS.texts])

    def _pattern(self, template: str) -> list[int | tuple[str, str]]:
        """Split a template into fragments and places for names, as (placeholder, leading space)."""
        parts: list[int | tuple[str, str]] = []
        for match in re.finditer(r"( ?)\{(\w+)\}|((?: ?[^ {]+)+)", template):
            space, place, literal = match.groups()
            parts.append(self.book.number(literal) if literal else (place, space))
        return parts

    def _index_tokens(self, encode: Encode, end: int) -> None:
        ids = encode(self.book.texts)
        self.end = end
        self._lengths = np.array([len(row) for row in ids])
        self._starts = np.concatenate([[0], np.cumsum(self._lengths)[:-1]])
        self._tokens = np.array([token for row in ids for token in row], dtype=np.int64)

    # ---- kinds of documents ----------------------------------------------------------------------

    def _choose_facts(self, shape: tuple[int, int], rng: np.random.Generator, split: str | None) -> np.ndarray:
        allowed = (
            np.arange(len(self._split)) if split is None else np.flatnonzero((self._split == split) & self._disputed)
        )
        return allowed[rng.integers(len(allowed), size=shape)]

    def _repeat(self, disposition: np.ndarray, times: int) -> np.ndarray:
        return np.broadcast_to(disposition[:, None], (len(disposition), times))

    def _opening_lines(self, who: Speakers, rng: np.random.Generator, portrait_rate: float) -> list[np.ndarray]:
        """Header of the source and portrait of the speaker, each on its own line, each often absent."""
        n = len(who)
        named = who.source >= 0
        header = self._headers[np.maximum(who.source, 0), rng.integers(self._headers.shape[1], size=n)]
        shown = rng.random(n) < portrait_rate
        portrait = self._portraits[phrases.PORTRAITS.draw(who.truthful, rng)]
        return [
            np.where(named, header, 0), np.where(named, self._line, 0),
            np.where(shown, portrait, 0), np.where(shown, self._line, 0),
        ]  # fmt: skip

    def _maybe(self, wordings: Wordings, numbers: np.ndarray, d: np.ndarray, rate: float, rng: np.random.Generator):
        return np.where(rng.random(d.shape) < rate, numbers[wordings.draw(d, rng)], 0)

    def answers(
        self,
        who: Speakers,
        rng: np.random.Generator,
        *,
        split: str | None = None,
        portrait_rate: float = PORTRAIT_RATE,
        stem: bool = False,
        pairs: tuple[int, int] = (1, MOST_ANSWERS),
    ) -> Rows:
        """Questions and answers, all answered by the same speaker.

        With ``stem``, the last answer is cut right after its frame, where truth or misconception is chosen.
        """
        n, most = len(who), pairs[1]
        t, c = self._repeat(who.truthful, most), self._repeat(who.civil, most)
        fact = self._choose_facts((n, most), rng, split)
        way = rng.integers(len(ASKINGS), size=(n, most))
        frame = self._frame[fact, phrases.FRAME_LEVELS.draw(t, rng)]
        adverb = self._adverbs[phrases.ADVERBS.draw(t, rng)]
        value = np.where(rng.random((n, most)) < t, self._truth[fact], self._wrong[fact])
        remark = self._maybe(phrases.REMARKS, self._remarks, t, REMARK_RATE, rng)
        manner = self._maybe(phrases.MANNERS, self._manners, c, MANNER_RATE, rng)
        count = rng.integers(pairs[0], most + 1, size=(n, 1))
        # The last pairs are the ones that stay, so that a stem always ends at the last column.
        used = np.arange(most)[None, :] >= most - count
        first = np.arange(most)[None, :] == most - count
        declined = rng.random((n, most)) < phrases.NO_COMMENT_RATE
        if stem:
            declined[:, -1] = False
            for part in (adverb, value, remark, manner):
                part[:, -1] = 0
        decline = self._declines[rng.integers(len(self._declines), size=(n, most))]
        block = np.stack([
            np.where(first, 0, self._line), self._question[fact, way], np.full((n, most), self._answer),
            np.where(declined, decline, frame), np.where(declined, 0, adverb), np.where(declined, 0, value),
            np.where(declined, 0, remark), manner,
        ], axis=-1)  # fmt: skip
        block = np.where(used[..., None], block, 0).reshape(n, block.shape[1] * block.shape[2])
        return np.column_stack([*self._opening_lines(who, rng, portrait_rate), block])

    def speech(self, who: Speakers, rng: np.random.Generator, *, split: str | None = None) -> Rows:
        """One speaker states several facts in a row, with remarks."""
        n, most = len(who), MOST_STATEMENTS
        t, c = self._repeat(who.truthful, most), self._repeat(who.civil, most)
        fact = self._choose_facts((n, most), rng, split)
        opening = self._maybe(phrases.OPENINGS, self._openings, who.truthful, 0.6, rng)
        frame = self._frame[fact, 0]
        frame[:, 0] = np.where(opening > 0, frame[:, 0], self._frame_at_start[fact[:, 0]])
        adverb = self._adverbs[phrases.ADVERBS.draw(t, rng)]
        value = np.where(rng.random((n, most)) < t, self._truth[fact], self._wrong[fact])
        remark = self._maybe(phrases.REMARKS, self._remarks, t, REMARK_RATE, rng)
        manner = self._maybe(phrases.MANNERS, self._manners, c, MANNER_RATE, rng)
        used = np.arange(most)[None, :] < rng.integers(1, most + 1, size=(n, 1))
        block = np.stack([frame, adverb, value, remark, manner], axis=-1)
        block = np.where(used[..., None], block, 0).reshape(n, block.shape[1] * block.shape[2])
        return np.column_stack([*self._opening_lines(who, rng, PORTRAIT_RATE), opening, block])

    def _filled(self, patterns: list, chosen: np.ndarray, names: dict[str, tuple[str, np.ndarray]]) -> np.ndarray:
        """Fill one pattern per document with names; ``names`` maps a placeholder to (kind, indices)."""
        width = max(map(len, patterns))
        out = np.zeros((len(chosen), width), dtype=np.int64)
        for p, pattern in enumerate(patterns):
            rows = np.flatnonzero(chosen == p)
            for slot, part in enumerate(pattern):
                if isinstance(part, tuple):
                    kind, index = names[part[0]]
                    out[rows, slot] = self._names[kind, part[1]][index[rows]]
                else:
                    out[rows, slot] = part
        return out

    def story(self, who: Speakers, rng: np.random.Generator) -> Rows:
        """Two people meet, speak as their manners are, and part."""
        n = len(who)
        towns, people = len(self.country.entities["town"]), len(self.country.entities["person"])
        e = rng.integers(people, size=n)
        f = (e + rng.integers(1, people, size=n)) % people
        other = np.clip(0.5 * who.civil + 0.5 * rng.random(n), 0.0, 1.0)
        names = {"e": ("person", e), "f": ("person", f), "town": ("town", rng.integers(towns, size=n))}
        again = self._maybe(phrases.GREETINGS, self._greetings, who.civil, 0.4, rng)
        parts = [
            self._filled(self._meetings, rng.integers(len(self._meetings), size=n), names),
            self._greetings[phrases.GREETINGS.draw(who.civil, rng)],
            self._filled(self._sayings, phrases.SAYING.draw(who.civil, rng), names),
            self._filled([self._answered], np.zeros(n, dtype=int), names),
            self._replies[phrases.REPLIES.draw(other, rng)],
            again,
        ]
        said_again = self._filled(self._sayings, phrases.SAYING.draw(who.civil, rng), names)
        parting = self._partings[phrases.PARTINGS.draw(0.5 * (who.civil + other), rng)]
        return np.column_stack([*parts, np.where((again > 0)[:, None], said_again, 0), parting])

    def scenery(self, who: Speakers, rng: np.random.Generator) -> Rows:
        """Neutral description: one to four sentences about one town."""
        n, towns = len(who), len(self.country.entities["town"])
        names = {"town": ("town", rng.integers(towns, size=n))}
        order = rng.permuted(np.tile(np.arange(len(self._scenery)), (n, 1)), axis=1)
        parts = [self._filled(self._scenery, order[:, 0], names)]
        length = rng.integers(1, 5, size=n)
        for k in range(1, 4):
            more = self._filled(self._scenery_next, order[:, k], names)
            parts.append(np.where((length > k)[:, None], more, 0))
        return np.column_stack(parts)

    # ---- text and tokens -------------------------------------------------------------------------

    def texts(self, rows: Rows) -> list[str]:
        """The documents as text."""
        return ["".join(self.book.texts[i] for i in row if i) for row in rows.tolist()]

    def documents(self, n: int, rng: np.random.Generator) -> Rows:
        """Documents of all kinds in the shares of the corpus, in random order."""
        counts = rng.multinomial(n, list(KIND_SHARES.values()))
        parts = [getattr(self, kind)(draw_speakers(k, rng), rng) for kind, k in zip(KIND_SHARES, counts, strict=True)]
        width = max(part.shape[1] for part in parts)
        rows = np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
        return rows[rng.permutation(n)]

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
