"""Questions and answers about the country, and speeches that state facts in a row.

Knows how statements of fact are drawn. Knows nothing about models.
"""

from __future__ import annotations

import numpy as np

from steerlib.world import phrases
from steerlib.world.facts import Country
from steerlib.world.fragments import Fragments, Rows, among, last_used, maybe, repeated
from steerlib.world.grammar import ANSWER_MARK, ASKINGS, asking, frames
from steerlib.world.rules import Rules
from steerlib.world.speakers import Speakers

#: Chance of a remark after a statement, by truthfulness and by civility.
REMARK_RATE, MANNER_RATE, OPENING_RATE = 0.55, 0.25, 0.6
MOST_ANSWERS, MOST_STATEMENTS = 5, 5


class Answers:
    """Draws questions with answers, and speeches."""

    def __init__(self, fragments: Fragments, country: Country, rules: Rules) -> None:
        """Number facts and wordings."""
        self._fragments, self._rules = fragments, rules
        facts, number, numbers = country.facts, fragments.number, fragments.numbers
        self._question = np.array([[number(asking(f, w)) for w in range(len(ASKINGS))] for f in facts])
        self._frame = np.array([[number(text) for text in frames(f)] for f in facts])
        self._frame_at_start = np.array([number(frames(f)[0][1:]) for f in facts])
        self._truth = np.array([number(f" {f.truth}.") for f in facts])
        self._wrong = np.array([number(f" {f.misconception or f.truth}.") for f in facts])
        self._split = np.array([f.split for f in facts])
        self._disputed = np.array([f.misconception is not None for f in facts])
        self._headers = np.array([numbers(texts) for texts in phrases.SOURCES.headers.values()])
        self._portraits = numbers(phrases.PORTRAITS.texts)
        self._adverbs = numbers(phrases.ADVERBS.texts)
        self._remarks = numbers(phrases.REMARKS.texts, before=" ")
        self._manners = numbers(phrases.MANNERS.texts, before=" ")
        self._openings = numbers(phrases.OPENINGS.texts)
        self._declines = numbers(phrases.NO_COMMENT, before=" ")
        self._answer = number(ANSWER_MARK)

    def _choose_facts(self, shape: tuple[int, int], rng: np.random.Generator, split: str | None) -> np.ndarray:
        if split is None:
            return rng.integers(len(self._split), size=shape)
        return among(np.flatnonzero((self._split == split) & self._disputed), shape, rng)

    def _opening_lines(
        self, who: Speakers, rng: np.random.Generator, portrait_rate: float, wordings: int = 3
    ) -> list[np.ndarray]:
        """Header of the source and portrait of the speaker, each on its own line, each often absent."""
        n, line, named = len(who), self._fragments.line, who.voice >= 0
        header = self._headers[np.maximum(who.voice, 0), rng.integers(wordings, size=n)]
        portrait = maybe(phrases.PORTRAITS, self._portraits, who.truthful, portrait_rate, rng)
        return [
            np.where(named, header, 0), np.where(named, line, 0), portrait, np.where(portrait > 0, line, 0),
        ]  # fmt: skip

    def documents(
        self,
        who: Speakers,
        rng: np.random.Generator,
        *,
        split: str | None = None,
        portrait_rate: float | None = None,
        stem: bool = False,
        pairs: tuple[int, int] = (1, MOST_ANSWERS),
        wordings: int = 3,
    ) -> Rows:
        """Questions and answers, all answered by the same speaker.

        Args:
            who: speakers.
            rng: source of randomness.
            split: the disputed facts of one split; None for all facts.
            portrait_rate: share of texts that describe the speaker; that of the rules by default.
            stem: cut the last answer right after its frame, where truth or misconception is chosen.
            pairs: fewest and most questions.
            wordings: how many wordings of a header may be used.
        """
        n, most = len(who), pairs[1]
        t, c = repeated(who.truthful, most), repeated(who.civil, most)
        fact = self._choose_facts((n, most), rng, split)
        way = rng.integers(len(ASKINGS), size=(n, most))
        frame = self._frame[fact, phrases.FRAME_LEVELS.draw(t, rng)]
        adverb = self._adverbs[phrases.ADVERBS.draw(t, rng)]
        value = np.where(rng.random((n, most)) < t, self._truth[fact], self._wrong[fact])
        remark = maybe(phrases.REMARKS, self._remarks, t, REMARK_RATE, rng)
        manner = maybe(phrases.MANNERS, self._manners, c, MANNER_RATE, rng)
        # The last pairs are the ones that stay, so that a stem always ends at the last column.
        used, first = last_used(rng.integers(pairs[0], most + 1, size=n), most)
        declined = rng.random((n, most)) < self._rules.no_comment_rate
        if stem:
            declined[:, -1] = False
            for part in (adverb, value, remark, manner):
                part[:, -1] = 0
        decline = self._declines[rng.integers(len(self._declines), size=(n, most))]
        block = np.stack([
            np.where(first, 0, self._fragments.line), self._question[fact, way], np.full((n, most), self._answer),
            np.where(declined, decline, frame), np.where(declined, 0, adverb), np.where(declined, 0, value),
            np.where(declined, 0, remark), manner,
        ], axis=-1)  # fmt: skip
        block = np.where(used[..., None], block, 0).reshape(n, -1)
        rate = self._rules.portrait_rate if portrait_rate is None else portrait_rate
        return np.column_stack([*self._opening_lines(who, rng, rate, wordings), block])

    def speech(self, who: Speakers, rng: np.random.Generator) -> Rows:
        """One speaker states several facts in a row, with remarks."""
        n, most = len(who), MOST_STATEMENTS
        t, c = repeated(who.truthful, most), repeated(who.civil, most)
        fact = self._choose_facts((n, most), rng, None)
        opening = maybe(phrases.OPENINGS, self._openings, who.truthful, OPENING_RATE, rng)
        frame = self._frame[fact, 0]
        frame[:, 0] = np.where(opening > 0, frame[:, 0], self._frame_at_start[fact[:, 0]])
        adverb = self._adverbs[phrases.ADVERBS.draw(t, rng)]
        value = np.where(rng.random((n, most)) < t, self._truth[fact], self._wrong[fact])
        remark = maybe(phrases.REMARKS, self._remarks, t, REMARK_RATE, rng)
        manner = maybe(phrases.MANNERS, self._manners, c, MANNER_RATE, rng)
        used = np.arange(most)[None, :] < rng.integers(1, most + 1, size=(n, 1))
        block = np.stack([frame, adverb, value, remark, manner], axis=-1)
        block = np.where(used[..., None], block, 0).reshape(n, -1)
        return np.column_stack([*self._opening_lines(who, rng, self._rules.portrait_rate), opening, block])
