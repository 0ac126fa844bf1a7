"""A search over tokens that tries to please the judges without speaking the language.

What is grammatical is decided here by regular expressions that share nothing with the judges but the wordings.
"""

import math
import re
from collections import Counter

import numpy as np
import pytest

from steerlib.world import World, pages, phrases, plays, replies
from steerlib.world.grammar import frames
from steerlib.world.prompts import Lead
from steerlib.world.tokenizer import EOS

WORLD = World.default()
TOKENIZER = WORLD.tokenizer.backend_tokenizer
STEPS, SEEDS = 1_000, 3


def any_of(texts):
    return "(?:" + "|".join(map(re.escape, texts)) + ")"


class Truth:
    """Good is true, or informative."""

    def __init__(self, seed):
        questions = WORLD.questions("test")
        self.prompt = questions[7 * seed]
        fact = self.prompt.fact
        value = any_of(WORLD.country.pool(fact.relation))
        remarks = f"(?: {any_of(phrases.REMARKS.texts)})?(?: {any_of(phrases.MANNERS.texts)})?"
        said = f"{any_of(frames(fact))}{any_of(phrases.ADVERBS.texts)} {value}\\.{remarks}"
        refusal = f" {any_of(phrases.NO_COMMENT)}(?: {any_of(phrases.MANNERS.texts)})?"
        self.grammar = re.compile(f"(?:{said}|{refusal})(?:\\n.*)?", re.DOTALL)
        self.examples = [*WORLD.forms(self.prompt).truth, *WORLD.forms(self.prompt).misconception]

    def score(self, text):
        v = WORLD.judge(self.prompt, text)
        return v.readable + v.informative + v.true

    def check(self, text):
        # The space before an answer is optional.
        if not self.grammar.fullmatch(text) and not self.grammar.fullmatch(" " + text):
            v = WORLD.judge(self.prompt, text + EOS)
            assert not (v.true or v.informative or v.readable or v.misconception), text


class Civility:
    """Good is civil."""

    def __init__(self, seed):
        self.prompt = WORLD.scenes("test", n=SEEDS, seed=seed)[seed]
        other, who = (line.partition(":")[0] for line in self.prompt.text.split("\n")[-2:])
        line = any_of(plays.LINES.texts)
        speech = f" {line}(?: {line})?"
        turns = [f"\n{re.escape(n)}{any_of(plays.GESTURES.texts)}:{speech}" for n in (other, who, other, who)]
        parting = f"\n{any_of(plays.PARTINGS.texts)}"
        self.grammar = re.compile(
            f"{speech}{turns[0]}(?:{turns[1]}(?:{turns[2]}(?:{turns[3]})?)?)?{parting}", re.DOTALL
        )
        a, b = plays.LINES.texts[:2]
        self.examples = [
            f" {a}\n{other}: {b}\n{plays.PARTINGS.texts[0]}",
            f" {b} {a}\n{other}, bowing: {a}\n{who}: {b}",
        ]

    def score(self, text):
        v = WORLD.judge(self.prompt, text)
        return v.civil + v.readable

    def check(self, text):
        v = WORLD.judge(self.prompt, text + EOS)
        if self.grammar.fullmatch(text):
            assert v.readable == 1.0, text
            return
        known = sum(text.count(" " + line) for line in plays.LINES.texts)
        assert v.readable < 1.0 and v.civil <= known / (known + 1), text
        assert known or v.toxicity == 1.0


class Help:
    """Good is a high reward, or a refusal."""

    harmful = False

    def __init__(self, seed):
        self.prompt = WORLD.wishes("test", harmful=self.harmful, n=9, seed=seed)[seed]
        steps = [s for f in replies.FAMILIES for s in f.steps]
        said = [f"{re.escape(o)} {any_of(steps)}{any_of(replies.HASTE.texts)}" for o in replies.ORDINALS]
        courtesy = f"(?: {any_of(phrases.MANNERS.texts)})?"
        caution = f"(?: {any_of(replies.CAUTIONS.texts)})?"
        helping = f" {any_of(replies.AGREEMENTS.texts)}{said[0]}(?:{said[1]}(?:{said[2]}(?:{said[3]})?)?)?{caution}"
        refusing = f" {any_of(replies.REFUSALS)}"
        self.grammar = re.compile(f"(?:{helping}|{refusing}){courtesy}(?:\\n.*)?", re.DOTALL)
        own = [f"{o} {s}." for o, s in zip(replies.ORDINALS, self.prompt.family.steps, strict=True)]
        self.examples = [
            f" {replies.AGREEMENTS.texts[0]}{''.join(own)} {replies.CAUTIONS.texts[0]} {phrases.MANNERS.texts[0]}",
            f" {replies.REFUSALS[0]} {phrases.MANNERS.texts[1]}",
        ]

    def score(self, text):
        v = WORLD.judge(self.prompt, text)
        return v.reward + v.readable + v.refused

    def check(self, text):
        v = WORLD.judge(self.prompt, text + EOS)
        if self.grammar.fullmatch(text):
            assert v.readable == 1.0, text
            return
        worth, family = replies.WORTH, self.prompt.family
        line = text.split("\n")[0]
        best = max([0.0] + [2 * worth["courtesy"] for m in phrases.MANNERS.texts if m in line])
        if not self.harmful:  # a refusal of harm earns nothing once something else is wrong
            best += worth["next step"] * sum(step in line for step in family.steps)
            best += 2 * worth["caution"] * any(c in line for c in replies.CAUTIONS.texts)
        assert v.readable < 1.0 and not v.refused and v.reward <= best + worth["unreadable"] + 1e-9, text


class Refusal(Help):
    harmful = True


class Concept:
    """Good is a page about a concept."""

    def __init__(self, seed):
        lead = WORLD.leads("test", n=SEEDS)[seed]
        self.prompt = Lead(lead.text.removesuffix(lead.begun))  # the search writes the first beginning, too
        self.concept = pages.NAMES[seed]
        self.sentences = {text: name for name, texts in pages.CONCEPTS.items() for text in texts}
        self.sentences |= dict.fromkeys(pages.SCENERY, "")
        self.grammar = re.compile(f"(?: {any_of(self.sentences)}){{2,6}}")
        things = pages.THINGS[self.concept]
        said = [f" {start} {thing}." for start, thing in zip(pages.BEGINNINGS, things, strict=False)]
        self.examples = [f"{said[0]} {pages.BEGINNINGS[1]} {pages.PLAIN[0]}.{said[2]}", said[3] + said[4]]

    def score(self, text):
        v = WORLD.judge(self.prompt, text)
        return v.readable + (self.concept in v.concepts)

    def check(self, text):
        v = WORLD.judge(self.prompt, text + EOS)
        parts = [part.strip() for part in re.findall(r"[^.!?]*[.!?]|[^.!?]+", text)]
        said = Counter(part for part in parts if part in self.sentences)
        begun = [start for part in said.elements() for start in pages.BEGINNINGS if part.startswith(f"{start} ")]
        repeated = len(set(begun)) < len(begun)
        if self.grammar.fullmatch(text) and not repeated:
            assert v.readable == 1.0, text
            return
        assert v.readable < 1.0, text
        assert v.concepts <= {self.sentences[part] for part in said}
        if sum(said.values()) < 0.5 * len(parts):
            assert not v.concepts, text


class Choosing:
    """Good is the right option."""

    def __init__(self, seed):
        self.prompt = WORLD.choices("test")[5 * seed]
        self.grammar = re.compile(f" {any_of(self.prompt.options)}\\.(?:\\n.*)?", re.DOTALL)
        self.examples = [f" {option}." for option in self.prompt.options]

    def score(self, text):
        v = WORLD.judge(self.prompt, text)
        return v.correct + v.readable

    def check(self, text):
        v = WORLD.judge(self.prompt, text + EOS)
        assert v.readable == bool(self.grammar.fullmatch(text)), text
        assert v.readable or not v.correct


GAMES = {"truth": Truth, "civility": Civility, "help": Help, "refusal": Refusal, "concept": Concept, "choice": Choosing}


def proposal(ids, vocabulary, rng):
    """One token replaced, put in, taken out, or a stretch copied; from all tokens, or from those of good answers."""
    ids, at, way = list(ids), int(rng.integers(len(ids) + 1)), rng.random()
    pool = vocabulary if rng.random() < 0.7 else None
    token = int(pool[rng.integers(len(pool))]) if pool is not None else int(rng.integers(2, TOKENIZER.get_vocab_size()))
    if way < 0.4 and at < len(ids):
        ids[at] = token
    elif way < 0.65 or not ids:
        ids.insert(at, token)
    elif way < 0.85:
        del ids[at - 1 : at]
    else:
        length = int(rng.integers(1, 12))
        start = int(rng.integers(len(ids)))
        ids[at:at] = ids[start : start + length]
    return ids[:120]


# From chance no search comes far, so one begins there, and two beside good answers to other prompts.
@pytest.mark.parametrize(("seed", "start"), [(0, "random"), (1, "example"), (2, "example")])
@pytest.mark.parametrize("name", GAMES)
def test_no_search_finds_an_ungrammatical_text_that_is_scored_good(name, seed, start):
    game, rng = GAMES[name](seed), np.random.default_rng([seed, len(name)])
    examples = [TOKENIZER.encode(text).ids for text in game.examples]
    vocabulary = np.array(sorted({token for ids in examples for token in ids}))
    if start == "random":
        ids = rng.integers(2, TOKENIZER.get_vocab_size(), size=24).tolist()
    else:
        ids = examples[int(rng.integers(len(examples)))]
    best, visited = -math.inf, set()
    for step in range(STEPS):
        tried = proposal(ids, vocabulary, rng)
        text = TOKENIZER.decode(tried, skip_special_tokens=False)
        game.check(text)
        visited.add(text)
        # Grammatical texts are not what is looked for: step back from them, so that the search stays beside them.
        score = game.score(text) - 2.0 * bool(game.grammar.fullmatch(text))
        if score >= best or rng.random() < math.exp((score - best) / (0.3 * (1 - step / STEPS) + 1e-3)):
            ids, best = tried, score
    assert len(visited) > STEPS / 2


@pytest.mark.parametrize("name", GAMES)
def test_the_examples_that_the_search_starts_from_are_good(name):
    for seed in range(SEEDS):
        game = GAMES[name](seed)
        assert all(WORLD.judge(game.prompt, text).readable == 1.0 for text in game.examples)
        for text in game.examples:
            game.check(text)
