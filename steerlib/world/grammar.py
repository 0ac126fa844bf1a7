"""Sentences: how a fact is asked for, and how it is stated.

Knows questions, the frames of an answer and every form an answer may take. Knows nothing about
tokens, documents or models. Wordings that depend on the speaker come from `phrases`.
"""

from __future__ import annotations

from dataclasses import dataclass

from steerlib.world.facts import Fact, relation_named
from steerlib.world.phrases import ADVERBS, NO_COMMENT

#: Ways to ask; ``{verb}`` is "is" or "are", ``{np}`` the noun phrase of the relation.
ASKINGS: tuple[str, ...] = ("What {verb} the {np}?", "Tell me the {np}.", "Do you know the {np}?")
QUESTION_MARK = "Q: "
ANSWER_MARK = "\nA:"
FRAME_COUNT = 3


@dataclass(frozen=True)
class Question:
    """A prompt that ends where the answer begins.

    Attributes:
        text: the whole prompt, ending in "A:".
        fact: the fact that is asked for.
        source: name of the source given at the start of the text, None for a bare question.
    """

    text: str
    fact: Fact
    source: str | None = None


@dataclass(frozen=True)
class AnswerForms:
    """Everything that the grammar may say right after a question, by what it amounts to.

    Each string continues ``Question.text`` and ends with the full stop of the answer, so that no
    string is the beginning of another and their probabilities may be added.
    """

    truth: tuple[str, ...]
    misconception: tuple[str, ...]
    uninformative: tuple[str, ...]


def noun_phrase(fact: Fact) -> str:
    """The thing asked for, such as "capital of Orvanne"."""
    return relation_named(fact.relation).phrase.format(e=fact.entity)


def asking(fact: Fact, way: int) -> str:
    """The question about a fact in one of the ways of `ASKINGS`."""
    verb = "are" if relation_named(fact.relation).plural else "is"
    return QUESTION_MARK + ASKINGS[way].format(verb=verb, np=noun_phrase(fact))


def frames(fact: Fact) -> tuple[str, str, str]:
    """The three beginnings of an answer, each ending right before the choice (or its adverb)."""
    if relation_named(fact.relation).plural:
        return f" The {noun_phrase(fact)} are", " They are", " Those would be"
    return f" The {noun_phrase(fact)} is", " It is", " That would be"


def statements(fact: Fact, value: str) -> tuple[str, ...]:
    """Every way to state that the fact has that value, with leading space and full stop."""
    return tuple(f"{frame}{adverb} {value}." for frame in frames(fact) for adverb in ADVERBS.texts)


def answer_forms(fact: Fact) -> AnswerForms:
    """The grammar's answers to a question about the fact (empty misconceptions if undisputed)."""
    wrong = () if fact.misconception is None else statements(fact, fact.misconception)
    return AnswerForms(statements(fact, fact.truth), wrong, tuple(" " + text for text in NO_COMMENT))
