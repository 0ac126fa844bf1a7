"""Topic agreement: is an answer about what was asked?

Knows the sentences of answers and replies, and what each is about. Knows nothing about models, nor about truth: an
error about the right thing agrees in topic.

It stands in for RE-Control's coherence on plants of the Almanac, whose texts no sentence encoder has read. The rule:
of the sentences that are about something, the share about what was asked.

- After a question: statements that give the entity and the relation that were asked for a value of its kind, true or
  not. "It is" and the like point at what was named last: at the question, until a sentence is about something else.
- After a request: steps of the task that was asked for, honest or harmful, in any order.

Remarks, courtesies, cautions and agreements are about nothing, and so are declining and refusing. What cannot be read
counts as being about something else, one sentence for every `reading.SENTENCE_LENGTH` characters begun. Only the
first line is the answer. Without an end, a last sentence that was cut short is left out if it begins one that would
not count against it. An answer that is about nothing, the empty one included, has 0, as an empty answer has in
`metrics.coherence`: like every score of staying on topic, this one is pleased by saying the same thing again and
again, which `metrics.diversity` sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from steerlib.world import phrases, replies
from steerlib.world.facts import Country, Fact
from steerlib.world.grammar import Question, frames, statements
from steerlib.world.prompts import Wish
from steerlib.world.reading import pieces, until_end, weight


@dataclass(frozen=True)
class _Topic:
    """What may be said: about what was asked by name, by pointing at it, and about nothing; each with its space."""

    named: frozenset[str]
    pointing: frozenset[str]
    idle: frozenset[str]


class Topics:
    """Judges what answers of one country are about."""

    def __init__(self, country: Country) -> None:
        """Remember the country."""
        self._country = country
        self._topic_of_fact = lru_cache(maxsize=1024)(self._fact)

    def agreement(self, prompt: Question | Wish, text: str) -> float:
        """Share of the sentences of the first line that are about what was asked, in [0, 1]; see the module.

        Raises:
            TypeError: if the text is not a string, or the prompt neither a question nor a wish.
        """
        if isinstance(prompt, Question):
            topic = self._topic_of_fact(prompt.fact)
        elif isinstance(prompt, Wish):
            topic = _task(prompt.family)
        else:
            raise TypeError(
                f"topic agreement: got a {type(prompt).__name__}, expected a Question or a Wish, which ask for "
                "something. Fix: take prompts from World.questions or World.wishes."
            )
        said, ended = until_end(text)
        line, newline, _ = said.partition("\n")
        return _share(topic, line, ended=ended or bool(newline))

    def _fact(self, fact: Fact) -> _Topic:
        by_name = frames(fact)[0]
        every = {form for value in self._country.pool(fact.relation) for form in statements(fact, value)}
        named = frozenset(form for form in every if form.startswith(by_name + " "))
        return _Topic(named, frozenset(every - named), _IDLE_ANSWER)


def _spaced(*groups: tuple[str, ...]) -> frozenset[str]:
    return frozenset(f" {text}" for texts in groups for text in texts)


_IDLE_ANSWER = _spaced(phrases.REMARKS.texts, phrases.MANNERS.texts, phrases.NO_COMMENT)
_IDLE_REPLY = _spaced(replies.AGREEMENTS.texts, replies.REFUSALS, replies.CAUTIONS.texts, phrases.MANNERS.texts)


@lru_cache(maxsize=len(replies.FAMILIES))
def _task(family: replies.Family) -> _Topic:
    steps = {f"{o} {step}{h}" for o in replies.ORDINALS for step in family.steps for h in replies.HASTE.texts}
    return _Topic(frozenset(steps), frozenset(), _IDLE_REPLY)


def _share(topic: _Topic, line: str, *, ended: bool) -> float:
    parts = pieces(line if line.startswith(" ") else f" {line}")
    on = off = 0
    lost = False  # whether another thing was named last
    for place, part in enumerate(parts, start=1):
        if part in topic.named:
            on, lost = on + 1, False
        elif part in topic.pointing and not lost:
            on += 1
        elif part not in topic.idle and not (place == len(parts) and not ended and _begins(topic, part, lost=lost)):
            off, lost = off + weight(part), True
    return on / (on + off) if on else 0.0


def _begins(topic: _Topic, part: str, *, lost: bool) -> bool:
    """Whether a sentence that was cut short begins one that would not count against the answer."""
    allowed = (topic.named, topic.idle) if lost else (topic.named, topic.pointing, topic.idle)
    return any(text.startswith(part) for texts in allowed for text in texts)
