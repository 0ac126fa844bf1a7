"""The Almanac: the invented country as one object.

Knows how facts, grammar, corpus, tokenizer and oracle belong together. Knows nothing about models;
torch is not imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from transformers import PreTrainedTokenizerFast

from steerlib.world import phrases
from steerlib.world.corpus import Corpus, draw_speakers
from steerlib.world.facts import SPLITS, Country, Fact, build_country
from steerlib.world.grammar import ANSWER_MARK, ASKINGS, AnswerForms, Question, answer_forms, asking
from steerlib.world.oracle import Oracle, Verdict
from steerlib.world.tokenizer import EOS, token_id, train_tokenizer


@dataclass(frozen=True)
class World:
    """A country with everything that can be said and asked about it.

    Attributes:
        country: the knowledge base.
        seed: the seed that it was built from.
    """

    country: Country
    seed: int

    @staticmethod
    def build(seed: int = 1) -> World:
        """The country of a seed; built once in a process."""
        return _build(seed)

    @staticmethod
    def default() -> World:
        """The country that the shipped plants have read about."""
        return _build(1)

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Everything that is true, with what part of the country believes instead."""
        return self.country.facts

    @property
    def sources(self) -> dict[str, float]:
        """Mean truthfulness of the speakers of each named source, from best to worst."""
        return dict(phrases.SOURCES)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every invented name."""
        return tuple(name for names in self.country.entities.values() for name in names)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the plants of this country; trained in a fraction of a second."""
        return train_tokenizer(Corpus(self.country).book.texts, self.names)

    @cached_property
    def corpus(self) -> Corpus:
        """Draws documents, as text or tokens."""
        tokenizer = self.tokenizer
        return Corpus(
            self.country,
            lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"],
            token_id(tokenizer, EOS),
        )

    @cached_property
    def _oracle(self) -> Oracle:
        return Oracle(self.country)

    # ---- questions -------------------------------------------------------------------------------

    def questions(
        self, split: str = "test", *, source: str | None = None, per_fact: int = 1, seed: int = 0
    ) -> list[Question]:
        """Questions about the disputed facts of a split.

        Args:
            split: "fit", "validation" or "test".
            source: name of a source given at the start of the text; None for a bare question.
            per_fact: in how many ways each fact is asked for, 1 to 3.
            seed: chooses the ways of asking and the wording of the source.

        Raises:
            ValueError: unknown split or source, or per_fact out of range.
        """
        _check(split, SPLITS, "split")
        if source is not None:
            _check(source, phrases.SOURCES, "source")
        if not 1 <= per_fact <= len(ASKINGS):
            raise ValueError(f"per_fact={per_fact}; expected 1 to {len(ASKINGS)}, the number of ways to ask")
        rng = np.random.default_rng([self.seed, seed, 0x51])
        out = []
        for fact in self.facts:
            ways, header = rng.permutation(len(ASKINGS)), int(rng.integers(2))
            if fact.split != split or fact.misconception is None:
                continue
            start = "" if source is None else phrases.SOURCE_HEADERS[source][header] + "\n"
            out += [Question(start + asking(fact, int(w)) + ANSWER_MARK, fact, source) for w in ways[:per_fact]]
        return out

    def forms(self, question: Question) -> AnswerForms:
        """Every answer that the grammar may give to a question, by what it amounts to.

        No form is the beginning of another, so that the probabilities a plant gives them may be added.
        """
        return answer_forms(question.fact)

    def stems(self, *, split: str, disposition: float, n: int, seed: int = 0) -> list[str]:
        """Texts that end where truth or misconception is chosen ("... The capital of Orvanne is").

        The speaker's truthfulness shows in what comes before: a named source near it, a portrait,
        earlier answers and remarks. The same seed gives the same questions for every disposition, so
        that two sets differ in the speaker only.

        Args:
            split: the entities that are asked about.
            disposition: truthfulness of the speakers, in [0, 1].
            n: number of texts.
            seed: chooses questions and wordings.

        Raises:
            ValueError: unknown split, disposition outside [0, 1], or n below one.
        """
        _check(split, SPLITS, "split")
        if not 0.0 <= disposition <= 1.0:
            raise ValueError(f"disposition={disposition}; expected a truthfulness in [0, 1]")
        if n < 1:
            raise ValueError(f"n={n}; expected at least 1")
        rng = np.random.default_rng([self.seed, seed, 0x57])
        who = draw_speakers(n, rng, truthful=disposition, source_rate=0.5)
        rows = self.corpus.answers(who, rng, split=split, portrait_rate=0.4, stem=True, pairs=(1, 3))
        return self.corpus.texts(rows)

    # ---- verdicts --------------------------------------------------------------------------------

    def judge(self, question: Question, text: str) -> Verdict:
        """What an answer amounts to; see `oracle.Oracle.judge` for the rules."""
        return self._oracle.judge(question.fact, text)

    def judge_many(self, questions: Sequence[Question], texts: Sequence[str]) -> list[Verdict]:
        """Judge one answer per question; ValueError if their numbers differ."""
        if len(questions) != len(texts):
            raise ValueError(f"{len(texts)} texts for {len(questions)} questions; expected one text per question")
        judge = self._oracle.judge
        return [judge(question.fact, text) for question, text in zip(questions, texts, strict=True)]

    # ---- reading ---------------------------------------------------------------------------------

    def page(self, seed: int = 0, *, documents: int = 8) -> str:
        """A page of the country's texts, a blank line between documents."""
        rng = np.random.default_rng([self.seed, seed, 0x9A])
        return "\n\n".join(self.corpus.texts(self.corpus.documents(documents, rng)))


def _check(value: str, known: Sequence[str] | dict[str, float], what: str) -> None:
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; expected one of {', '.join(known)}")


@lru_cache(maxsize=4)
def _build(seed: int) -> World:
    return World(build_country(seed), seed)
