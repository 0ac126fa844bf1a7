"""The Almanac: the invented country as one object.

Knows how facts, grammar, corpus, tokenizer and oracle belong together. Knows nothing about models;
torch is not imported here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import overload

import numpy as np
from jaxtyping import Float, Int
from transformers import PreTrainedTokenizerFast

from steerlib.world import pages, plays, replies
from steerlib.world.choices import OPTIONS, choice_text
from steerlib.world.corpus import Corpus
from steerlib.world.facts import SPLITS, Country, Fact, build_country
from steerlib.world.fragments import among
from steerlib.world.grammar import ANSWER_MARK, ASKINGS, AnswerForms, Question, answer_forms, asking
from steerlib.world.judging import (
    ChoiceVerdict,
    PageVerdict,
    ReplyVerdict,
    SceneVerdict,
    judge_choice,
    judge_page,
    judge_reply,
    judge_scene,
)
from steerlib.world.oracle import Oracle, Verdict
from steerlib.world.prompts import Choice, Lead, Scene, Wish
from steerlib.world.rules import Rules
from steerlib.world.sentences import Sentences
from steerlib.world.speakers import VOICES, draw_speakers
from steerlib.world.tokenizer import EOS, token_id, train_tokenizer
from steerlib.world.topic import Topics

#: Wordings of headers that texts for fitting may use; the rest are held out.
FITTING_WORDINGS = 2

Prompt = Question | Scene | Wish | Lead | Choice
AnyVerdict = Verdict | SceneVerdict | ReplyVerdict | PageVerdict | ChoiceVerdict


@dataclass(frozen=True)
class World:
    """A country with everything that can be said and asked about it.

    Attributes:
        country: the knowledge base.
        seed: the seed that it was built from.
        rules: how the country talks.
    """

    country: Country
    seed: int
    rules: Rules = field(default_factory=Rules)

    @staticmethod
    def build(seed: int = 1, *, rules: Rules | None = None) -> World:
        """The country of a seed, under rules of the reader's or its own; built once in a process."""
        if rules is None:
            return _build(seed)
        return World(build_country(seed, disputed_share=rules.disputed_share), seed, rules)

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
        return dict(VOICES["truthful"].means)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every invented name."""
        return tuple(name for names in self.country.entities.values() for name in names)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer of the plants of this country; trained in a fraction of a second."""
        return train_tokenizer(Corpus(self.country, rules=self.rules).fragments.texts, self.names)

    @cached_property
    def corpus(self) -> Corpus:
        """Draws documents, as text or tokens."""
        tokenizer = self.tokenizer
        return Corpus(
            self.country,
            lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"],
            token_id(tokenizer, EOS),
            rules=self.rules,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of a sample of training rows: two worlds that share it trained their plants on the same texts."""
        rows = self.corpus.training_rows(64, 160, np.random.default_rng([self.seed, 0xF1]))
        digest = hashlib.sha256(rows.astype("<i8").tobytes())
        digest.update(self.tokenizer.backend_tokenizer.to_str().encode())
        return digest.hexdigest()

    @cached_property
    def _oracle(self) -> Oracle:
        return Oracle(self.country)

    @cached_property
    def _sentences(self) -> Sentences:
        return Sentences(self.country)

    @cached_property
    def _topics(self) -> Topics:
        return Topics(self.country)

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
            _check(source, self.sources, "source")
        if not 1 <= per_fact <= len(ASKINGS):
            raise ValueError(f"per_fact={per_fact}; expected 1 to {len(ASKINGS)}, the number of ways to ask")
        rng = np.random.default_rng([self.seed, seed, 0x51])
        out = []
        for fact in self.facts:
            ways, header = rng.permutation(len(ASKINGS)), int(rng.integers(2))
            if fact.split != split or fact.misconception is None:
                continue
            start = "" if source is None else VOICES["truthful"].headers[source][header] + "\n"
            out += [Question(start + asking(fact, int(w)) + ANSWER_MARK, fact, source) for w in ways[:per_fact]]
        return out

    def forms(self, question: Question) -> AnswerForms:
        """Every answer that the grammar may give to a question, by what it amounts to.

        No form is the beginning of another, so that the probabilities a plant gives them may be added.
        """
        return answer_forms(question.fact)

    # ---- other prompts ---------------------------------------------------------------------------

    def scenes(
        self, split: str = "test", *, level: int | None = None, company: str | None = None, n: int = 100, seed: int = 0
    ) -> list[Scene]:
        """Beginnings of plays, up to where the second speaker begins.

        Args:
            split: the people and towns that occur.
            level: how rude the first line is, 0 to 4; None for all five in turn.
            company: name of the company given at the start of the text; None for no sign of it.
            n: number of scenes.
            seed: chooses people, towns and wordings; the same for every level and company.

        Raises:
            ValueError: unknown split, level or company, or n below one.
        """
        if level is not None and level not in range(len(plays.PROVOCATIONS)):
            raise ValueError(f"level={level}; expected 0 to {len(plays.PROVOCATIONS) - 1}")
        rng, who = self._crowd("civil", split, company, n, seed, 0x5C)
        levels = np.arange(n) % len(plays.PROVOCATIONS) if level is None else np.full(n, level)
        prompt, _, _ = self.corpus.plays.drawn(who, levels, rng, split=split, mood_rate=0.0, wordings=FITTING_WORDINGS)
        texts = self.corpus.texts(prompt)
        return [Scene(text + ":", int(k), company) for text, k in zip(texts, levels, strict=True)]

    def wishes(
        self,
        split: str = "test",
        *,
        harmful: bool | None = True,
        held_out: bool | None = False,
        adviser: str | None = None,
        n: int = 100,
        seed: int = 0,
    ) -> list[Wish]:
        """Requests, up to where the reply begins.

        Args:
            split: the people and towns that occur.
            harmful: harmful requests, honest ones, or (None) both.
            held_out: families that no law is fitted on, those that may be fitted on, or (None) both.
            adviser: name of the adviser given at the start of the text; None for no sign of one.
            n: number of requests.
            seed: chooses families, names and wordings; the same for every adviser.

        Raises:
            ValueError: unknown split or adviser, or n below one.
        """
        rng, who = self._crowd("prudent", split, adviser, n, seed, 0x3E)
        drawn = self.corpus.replies
        header, _ = drawn.opening(who, rng, portrait_rate=0.0, wordings=FITTING_WORDINGS)
        family = np.resize(rng.permutation(drawn.families(harmful=harmful, held_out=held_out)), n)
        request, _, _ = drawn.drawn(who, family, rng, split=split)
        texts = self.corpus.texts(np.column_stack([header, request]))
        return [Wish(text, replies.FAMILIES[int(k)], adviser) for text, k in zip(texts, family, strict=True)]

    def leads(self, split: str = "test", *, concept: str | None = None, n: int = 100, seed: int = 0) -> list[Lead]:
        """Beginnings of pages, up to where the first thing is chosen ("Notes from Norwick: The inn is named after").

        Args:
            split: the towns that occur.
            concept: name of the concept that a heading promises; None for no heading.
            n: number of pages.
            seed: chooses towns and wordings; the same for every concept.

        Raises:
            ValueError: unknown split or concept, or n below one.
        """
        _check(split, SPLITS, "split")
        _check_number(n)
        rng = np.random.default_rng([self.seed, seed, 0x1E])
        about = np.full(n, -1 if concept is None else self._concept(concept))
        prompt, begun, _ = self.corpus.pages.drawn(
            about, np.zeros(n), rng, promised=True, split=split, wordings=FITTING_WORDINGS, sentences=(1, 1), stem=True
        )
        parts = zip(*map(self.corpus.texts, (prompt, begun)), strict=True)
        return [Lead(head + start, concept, start) for head, start in parts]

    def choices(self, split: str | None = None, *, seed: int = 0) -> list[Choice]:
        """One multiple-choice question about each fact that nobody disputes.

        Args:
            split: facts of one split only; None for all, since nothing is fitted on these.
            seed: chooses the wrong options and the order.
        """
        if split is not None:
            _check(split, SPLITS, "split")
        rng = np.random.default_rng([self.seed, seed, 0xC4])
        out = []
        for fact in self.facts:
            wrong = [value for value in self.country.pool(fact.relation) if value != fact.truth]
            options = [fact.truth, *(wrong[int(i)] for i in rng.permutation(len(wrong))[: OPTIONS - 1])]
            options = tuple(options[int(i)] for i in rng.permutation(OPTIONS))
            if fact.misconception is None and split in (None, fact.split):
                out.append(Choice(choice_text(fact, options), fact, options))
        return out

    def neutral(self, n: int = 100, *, split: str = "test", seed: int = 0) -> list[str]:
        """Pages of plain scenery, for perplexity; ValueError if n is below one."""
        _check(split, SPLITS, "split")
        _check_number(n)
        rng = np.random.default_rng([self.seed, seed, 0x4E])
        prompt, body, _ = self.corpus.pages.drawn(np.full(n, -1), np.zeros(n), rng, split=split, sentences=(4, 6))
        return self.corpus.texts(np.column_stack([prompt, body]))

    def _crowd(self, shows: str, split: str, voice: str | None, n: int, seed: int, salt: int):
        """Speakers under one named voice, or under none."""
        _check(split, SPLITS, "split")
        _check_number(n)
        voices = VOICES[shows]
        what = {"truthful": "source", "civil": "company", "prudent": "adviser"}[shows]
        if voice is not None:
            _check(voice, voices.means, what)
        rng = np.random.default_rng([self.seed, seed, salt])
        who = draw_speakers(n, rng, shows=shows, rules=self.rules, voice_rate=0.0)
        number = -1 if voice is None else list(voices.means).index(voice)
        return rng, type(who)(who.truthful, who.civil, who.prudent, np.full(n, number))

    def _concept(self, concept: str) -> int:
        _check(concept, pages.NAMES, "concept")
        return pages.NAMES.index(concept)

    # ---- texts of two classes --------------------------------------------------------------------

    def stems(self, *, split: str, disposition: float, n: int, seed: int = 0, of: str = "truthful") -> list[str]:
        """Texts that end where a disposition decides what is said next.

        The speaker's disposition shows in what comes before: a named voice near it, a portrait, what was said
        earlier. The same seed gives the same questions for every disposition, so that two sets differ in the
        speaker only.

        Args:
            split: the entities that occur.
            disposition: truthfulness, civility or prudence of the speakers, in [0, 1].
            n: number of texts.
            seed: chooses questions and wordings.
            of: "truthful" ("... The capital of Orvanne is"), "civil" ("... Mirelle:") or "prudent" (a harmful
                request, up to "Reply:").

        Raises:
            ValueError: unknown split or disposition, its value outside [0, 1], or n below one.
        """
        _check(split, SPLITS, "split")
        _check(of, VOICES, "disposition")
        if not 0.0 <= disposition <= 1.0:
            raise ValueError(f"disposition={disposition}; expected a value in [0, 1]")
        _check_number(n)
        rng = np.random.default_rng([self.seed, seed, 0x57])
        who = draw_speakers(n, rng, shows=of, value=disposition, rules=self.rules, voice_rate=0.5)
        corpus = self.corpus
        if of == "truthful":
            rows = corpus.answers.documents(
                who, rng, split=split, portrait_rate=0.4, stem=True, pairs=(1, 3), wordings=FITTING_WORDINGS
            )
        elif of == "civil":
            level = rng.integers(len(plays.PROVOCATIONS), size=n)
            prompt, speeches, _ = corpus.plays.drawn(
                who, level, rng, split=split, civil=who.civil, mood_rate=0.7, stem=True, wordings=FITTING_WORDINGS
            )
            rows = np.column_stack([prompt, speeches])
        else:
            rows = self._prudent_stems(who, split, rng)
        return corpus.texts(rows)

    def _prudent_stems(self, who, split: str, rng: np.random.Generator) -> Int[np.ndarray, "n slots"]:
        """An earlier request with its reply (or none), then a harmful request."""
        drawn, n = self.corpus.replies, len(who)
        opening = drawn.opening(who, rng, portrait_rate=0.5, wordings=FITTING_WORDINGS)
        early, reply, _ = drawn.drawn(
            who, among(drawn.families(held_out=False), n, rng), rng, split=split, held_out=False
        )
        last, _, _ = drawn.drawn(
            who, among(drawn.families(harmful=True, held_out=False), n, rng), rng, split=split, first=False
        )
        shown = rng.random(n) < 0.7
        early = np.where(shown[:, None], np.column_stack([early, reply]), 0)
        last[:, 0] = np.where(shown, last[:, 0], 0)
        return np.column_stack([*opening, early, last])

    def turned(self, concept: str, *, present: bool, split: str, n: int, seed: int = 0) -> list[str]:
        """Pages that end where the next thing is chosen ("... The inn is named after"), about a concept or not.

        Args:
            concept: name of the concept.
            present: pages strongly about it; otherwise pages of scenery and of the other concepts.
            split: the towns that occur.
            n: number of texts.
            seed: chooses towns and sentences.

        Raises:
            ValueError: unknown concept or split, or n below one.
        """
        _check(split, SPLITS, "split")
        _check_number(n)
        number = self._concept(concept)
        rng = np.random.default_rng([self.seed, seed, 0x7C])
        others = np.array([-1] * 6 + [k for k in range(len(pages.NAMES)) if k != number])
        about, other = np.full(n, number), among(others, n, rng)
        promised = rng.random(n) < 0.4
        prompt, body, _ = self.corpus.pages.drawn(
            about if present else other, np.full(n, 0.9), rng, promised=promised, split=split, sentences=(2, 5),
            wordings=FITTING_WORDINGS, stem=True,
        )  # fmt: skip
        return self.corpus.texts(np.column_stack([prompt, body]))

    # ---- verdicts --------------------------------------------------------------------------------

    @overload
    def judge(self, prompt: Question, text: str) -> Verdict: ...
    @overload
    def judge(self, prompt: Scene, text: str) -> SceneVerdict: ...
    @overload
    def judge(self, prompt: Wish, text: str) -> ReplyVerdict: ...
    @overload
    def judge(self, prompt: Lead, text: str) -> PageVerdict: ...
    @overload
    def judge(self, prompt: Choice, text: str) -> ChoiceVerdict: ...
    def judge(self, prompt: Prompt, text: str) -> AnyVerdict:
        """What a text that follows a prompt amounts to, decided by the grammar.

        The rules are those of `oracle.Oracle.judge` for a question, and of `judging.judge_scene`, `judge_reply`,
        `judge_page` and `judge_choice` for a scene, a wish, a lead and a choice.

        Args:
            prompt: what the text follows; its type decides what is judged.
            text: the text without the prompt; an end token in it ends it.

        Raises:
            TypeError: if the text is not a string, or the prompt no prompt of the country.
        """
        if isinstance(prompt, Question):
            return self._oracle.judge(prompt.fact, text)
        if isinstance(prompt, Scene):
            return judge_scene(prompt, text)
        if isinstance(prompt, Wish):
            return judge_reply(prompt, text)
        if isinstance(prompt, Lead):
            return judge_page(text, begun=prompt.begun)
        if isinstance(prompt, Choice):
            return judge_choice(prompt, text)
        raise TypeError(
            f"a prompt must be a Question, Scene, Wish, Lead or Choice, got {type(prompt).__name__}; "
            "take one from World.questions, scenes, wishes, leads or choices"
        )

    @overload
    def judge_many(self, prompts: Sequence[Question], texts: Sequence[str]) -> list[Verdict]: ...
    @overload
    def judge_many(self, prompts: Sequence[Scene], texts: Sequence[str]) -> list[SceneVerdict]: ...
    @overload
    def judge_many(self, prompts: Sequence[Wish], texts: Sequence[str]) -> list[ReplyVerdict]: ...
    @overload
    def judge_many(self, prompts: Sequence[Lead], texts: Sequence[str]) -> list[PageVerdict]: ...
    @overload
    def judge_many(self, prompts: Sequence[Choice], texts: Sequence[str]) -> list[ChoiceVerdict]: ...
    @overload
    def judge_many(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Sequence[AnyVerdict]: ...
    def judge_many(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Sequence[AnyVerdict]:
        """Judge one text per prompt, as `judge` does; ValueError if their numbers differ."""
        if isinstance(texts, str):
            raise TypeError("texts must be a list of strings, got one string; put it into a list")
        if len(prompts) != len(texts):
            raise ValueError(f"{len(texts)} texts for {len(prompts)} prompts; expected one text per prompt")
        return [self.judge(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]

    def grammatical(self, text: str) -> float:
        """Share of the sentences of a text that the grammar knows, in [0, 1].

        The text is a whole document of any kind, prompt included, or the beginning of one. A sentence is known if it
        is one of the country's to the letter, with any name of the right kind in each place, and stands where such
        sentences stand: at the start of a line (with "A:", a speaker's name and the like) or inside one. Neither
        the order of sentences nor their truth counts, so that repetition is not seen here; the judges of each kind of
        text see it. An unreadable stretch counts as one sentence for every `reading.SENTENCE_LENGTH` characters
        begun. Without an end token, a last sentence that was cut short is left out if it begins a known one. A
        text in which nothing is known, the empty one included, has the share 0.

        Raises:
            TypeError: if the text is not a string.
        """
        return self._sentences.share(text)

    def grammatical_many(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """`grammatical` of each text."""
        if isinstance(texts, str):
            raise TypeError("texts must be a list of strings, got one string; put it into a list")
        return np.array([self._sentences.share(text) for text in texts], dtype=float)

    def topic_agreement(self, prompts: Sequence[Question | Wish], texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """How far each text is about what its prompt asks for, in [0, 1]: the Almanac's stand-in for coherence.

        After a question, the share of statements about the entity and the relation that were asked for, whatever the
        value; after a wish, the share of steps of that task. Remarks and courtesies do not count, an answer that is
        about nothing has 0. The rules are those of `topic`.

        Args:
            prompts: what each text follows.
            texts: without the prompts; only the first line of each is read.

        Raises:
            TypeError: if texts are not a list of strings, or a prompt is neither a question nor a wish.
            ValueError: if there is not one text for each prompt.
        """
        if isinstance(texts, str):
            raise TypeError("texts must be a list of strings, got one string; put it into a list")
        if len(prompts) != len(texts):
            raise ValueError(f"{len(texts)} texts for {len(prompts)} prompts; expected one text per prompt")
        return np.array([self._topics.agreement(p, t) for p, t in zip(prompts, texts, strict=True)], dtype=float)

    # ---- reading ---------------------------------------------------------------------------------

    def page(self, seed: int = 0, *, documents: int = 8) -> str:
        """A page of the country's texts, a blank line between documents."""
        rng = np.random.default_rng([self.seed, seed, 0x9A])
        return "\n\n".join(self.corpus.texts(self.corpus.documents(documents, rng)))


def _check(value: str, known: Sequence[str] | dict, what: str) -> None:
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; expected one of {', '.join(known)}")


def _check_number(n: int) -> None:
    if n < 1:
        raise ValueError(f"n={n}; expected at least 1")


@lru_cache(maxsize=4)
def _build(seed: int) -> World:
    return World(build_country(seed), seed)
