"""Every sentence of the country, whatever kind of text it stands in.

Knows which sentences the grammar can say at the start of a line and which inside one, with any name of the right
kind. Knows nothing about their order, about truth or about models: it measures damage where no question was asked.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import product

from steerlib.world import pages, phrases, plays, replies
from steerlib.world.choices import ANSWER, CHOICE_MARK
from steerlib.world.facts import RELATIONS, Country, Fact, Relation
from steerlib.world.fragments import PLACES
from steerlib.world.grammar import ANSWER_MARK, ASKINGS, asking, noun_phrase, statements
from steerlib.world.reading import beginning_with, pieces, until_end, weight
from steerlib.world.speakers import VOICES
from steerlib.world.tokenizer import EOS


def _blank(kind: str) -> str:
    """What stands for any name of a kind. No text that is judged contains it: it would have ended there."""
    return EOS + kind


class Sentences:
    """The sentences of one country, with names replaced by their kinds."""

    def __init__(self, country: Country) -> None:
        """List every sentence once for all names."""
        self._kinds = {name: _blank(kind) for kind, names in country.entities.items() for name in names}
        self._begun: dict[str, set[str]] = {}
        for name, blank in self._kinds.items():
            for length in range(1, len(name)):
                self._begun.setdefault(name[:length], set()).add(blank)
        initials = re.escape("".join(sorted({name[0] for name in self._kinds})))
        names = "|".join(map(re.escape, sorted(self._kinds, key=len, reverse=True)))
        self._names = re.compile(rf"\b(?=[{initials}])(?:{names})\b")
        self._options = {
            CHOICE_MARK.format(np=noun_phrase(_anybody(relation))): frozenset(country.pool(relation.name))
            for relation in RELATIONS
        }
        starts, inside = set(_starts(country)), set(_inside(country))
        self._known = (inside, starts)
        self._ordered = (sorted(inside), sorted({*starts, *self._options}))

    def share(self, text: str) -> float:
        """Share of the sentences of a text that the grammar knows; see `World.grammatical`."""
        said, ended = until_end(text)
        read = unread = 0
        kinds = self._kinds
        lines = said.split("\n")
        blanked = self._names.sub(lambda name: kinds[name[0]], said).split("\n")
        for number, (line, pattern) in enumerate(zip(lines, blanked, strict=True), start=1):
            last = number == len(lines) and not ended
            parts, patterns = pieces(line), pieces(pattern)
            for place, (part, known) in enumerate(zip(parts, patterns, strict=True), start=1):
                start, cut = place == 1, last and place == len(parts)
                if known in self._known[start] or (start and self._offers(part, known, cut=False)):
                    read += 1
                elif not (cut and self._begins(part, known, start=start)):
                    unread += weight(part)
            unread += not parts and not last
        return read / (read + unread) if read else 0.0

    def _offers(self, part: str, known: str, *, cut: bool) -> bool:
        """Whether a piece is the first line of a choice: four different values of the right type."""
        mark = known.partition(":")[0] + ":"
        if mark not in self._options or not part.partition(":")[2].startswith(" "):
            return False
        rest, pool = part.partition(": ")[2], self._options[mark]
        for separator in (", ", ", ", " or ", "?"):
            value = next((v for v in pool if rest.startswith(v + separator)), None)
            if value is None:
                return cut and any((v + separator).startswith(rest) for v in pool)
            pool, rest = pool - {value}, rest[len(value + separator) :]
        return True

    def _begins(self, part: str, known: str, *, start: bool) -> bool:
        """Whether a piece that was cut short, perhaps inside a name, begins a known sentence."""
        if any(beginning_with(known, self._ordered[start])) or (start and self._offers(part, known, cut=True)):
            return True
        longest = max(map(len, self._begun))
        for length in range(1, min(longest, len(known)) + 1):
            for blank in self._begun.get(known[-length:], ()):
                if any(beginning_with(known[:-length] + blank, self._ordered[start])):
                    return True
        return False


def _anybody(relation: Relation) -> Fact:
    return Fact(_blank(relation.kind), relation.name, "", None, "")


def _values(country: Country, relation: Relation) -> Collection[str]:
    return (_blank(relation.values),) if relation.values in country.entities else country.pool(relation.name)


def _filled(template: str) -> str:
    return template.format(**{place: _blank(kind) for place, kind in PLACES.items()})


def _starts(country: Country) -> Iterator[str]:
    """Sentences that stand at the start of a line, with the mark or name before them."""
    for voices in VOICES.values():
        for headers in voices.headers.values():
            yield from headers
    for wordings in (phrases.PORTRAITS, phrases.OPENINGS, replies.ADVISER_PORTRAITS, plays.PARTINGS):
        yield from wordings.texts
    answer, choice, reply = (mark[1:] for mark in (ANSWER_MARK, ANSWER, replies.REPLY_MARK))
    yield from (f"{answer} {text}" for text in phrases.NO_COMMENT)
    for relation in RELATIONS:
        anybody = _anybody(relation)
        yield from (asking(anybody, way) for way in range(len(ASKINGS)))
        for value in _values(country, relation):
            yield f"{choice} {value}."
            for number, text in enumerate(statements(anybody, value)):
                yield answer + text
                if number < len(phrases.ADVERBS.texts):  # a speech uses the full sentence only
                    yield text[1:]
    yield from map(_filled, plays.MEETINGS)
    name = _blank("person")
    yield from (f"{name}: {line}" for lines in plays.PROVOCATIONS for line in lines)
    yield from (f"{name}{gesture}: {line}" for gesture, line in product(plays.GESTURES.texts, plays.LINES.texts))
    for family, wish in product(replies.FAMILIES, replies.WISHES):
        yield replies.WISH_MARK + _filled(wish.format(deed=family.deed))
    yield from (f"{reply} {text}" for text in (*replies.AGREEMENTS.texts, *replies.REFUSALS))
    yield from (heading.format(concept=name) for heading, name in product(pages.HEADINGS, pages.NAMES))
    yield from (f"{_filled(lead)} {text}" for lead, text in product(pages.LEADS, _page_sentences()))


def _inside(country: Country) -> Iterator[str]:
    """Sentences that follow another one on the same line, with the space before them."""
    for relation in RELATIONS:
        for value in _values(country, relation):
            yield from statements(_anybody(relation), value)[: len(phrases.ADVERBS.texts)]
    for wordings in (phrases.REMARKS, phrases.MANNERS, plays.MOODS, plays.LINES, replies.CAUTIONS):
        yield from (f" {text}" for text in wordings.texts)
    steps = [step for family in replies.FAMILIES for step in family.steps]
    for ordinal, step, haste in product(replies.ORDINALS, steps, replies.HASTE.texts):
        yield f"{ordinal} {step}{haste}"
    yield from (f" {text}" for text in _page_sentences())


def _page_sentences() -> Iterator[str]:
    yield from pages.SCENERY
    for texts in pages.CONCEPTS.values():
        yield from texts
