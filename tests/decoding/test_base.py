"""Prompting, and a decoder where a law stands."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from steerlib.decoding import (
    BestOf,
    ControlledDecoding,
    Cost,
    DecodingError,
    Plain,
    Prompted,
    TextScorer,
    answering_by,
    told_prompts,
)  # fmt: skip
from steerlib.errors import PlantError
from steerlib.plant import Plant
from tests.decoding.toys import PROMPTS, toy, word_rewards
from tests.families import words

PREFACE = words(50, 51) + " "
HOW = {"max_new_tokens": 4, "seed": 3}


def test_an_instruction_goes_before_every_prompt_and_before_any_decoder() -> None:
    p, told = toy(), []

    def rewards(prompts, answers):
        told.extend(prompts)
        return word_rewards(prompts, answers)

    longer = [PREFACE + prompt for prompt in PROMPTS]
    out = Prompted(PREFACE).generate(p, PROMPTS, samples=2, **HOW)
    assert out.tokens == p.generate(longer, samples=2, **HOW).tokens != p.generate(PROMPTS, samples=2, **HOW).tokens
    assert out.prompts == tuple(q for q in PROMPTS for _ in range(2))
    for inner in (ControlledDecoding(TextScorer(rewards), k=5), BestOf(rewards, n=3)):
        assert Prompted(PREFACE, inner).generate(p, PROMPTS, **HOW).tokens == inner.generate(p, longer, **HOW).tokens
        told.clear()
        out = Prompted(PREFACE, inner).generate(p, PROMPTS, **HOW)
        assert set(told) == set(PROMPTS), "rewards are told what was asked, not how"
        assert out.prompts == tuple(PROMPTS) and out.rewards


@dataclass
class Item:
    text: str


class Told:
    """A task whose prompts can be told."""

    def __init__(self, bare: list[str], told: list[str]) -> None:
        self.bare, self.told = bare, told

    def items(self, split: str, *, told: bool) -> list[Item]:
        assert split == "validation"
        return [Item(text) for text in (self.told if told else self.bare)]


def test_prompts_are_told_as_the_task_tells_them() -> None:
    p, told = toy(), [words(61 + i) for i in range(4)]
    mapping = told_prompts(Told(PROMPTS, told), "validation")
    assert Prompted(mapping).generate(p, PROMPTS, **HOW).tokens == p.generate(told, **HOW).tokens
    assert told_prompts(Told([PROMPTS[0]] * 2, told[:2]), "validation") == {PROMPTS[0]: told[0]}
    with pytest.raises(DecodingError, match="a prompt that the mapping does not have .*told_prompts of the split"):
        Prompted(mapping).generate(p, [words(90)], **HOW)
    with pytest.raises(DecodingError, match="instruction: got nothing"):
        Prompted("")


class Asks:
    """What tasks have in common: a plant that they let generate."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant

    def ask(self) -> tuple[str, ...]:
        return self.plant.generate(PROMPTS, **HOW).texts


def test_a_decoder_answers_where_the_plant_did() -> None:
    p = toy()
    task, best = Asks(p), BestOf(word_rewards, n=3)
    own = answering_by(task, best)
    assert own.ask() == best.generate(p, PROMPTS, **HOW).texts != task.ask()
    assert own.plant.name == p.name and own.plant.depth == p.depth and task.plant is p
    with p.under(lambda z: z + 3.0, layer=1):
        assert own.ask() == best.generate(p, PROMPTS, **HOW).texts
        pushed = own.ask()
    assert pushed != own.ask(), "a law outside does not reach the decoder"
    with pytest.raises(DecodingError, match="expected a task, which has a plant"):
        answering_by(object(), best)


def test_the_plain_decoder_is_the_plant_and_counts() -> None:
    p = toy()
    out = Plain().generate(p, PROMPTS, temperature=0, **HOW)
    assert out.tokens == p.generate(PROMPTS, temperature=0, **HOW).tokens
    assert out.cost.passes == max(map(len, out.tokens)) and out.cost.rewards == 0
    assert out.cost.positions == 4 * 5 + 4 * (out.cost.passes - 1)
    assert out.cost.tokens_per_second == out.cost.answer_tokens / out.cost.seconds
    hooks = len(p.model._forward_pre_hooks)
    Plain().generate(p, PROMPTS, **HOW)
    assert len(p.model._forward_pre_hooks) == hooks, "the counter is left behind"


def test_costs_add() -> None:
    both = Cost(1, 2, 3, 4, 5, 6, 0.5) + Cost(10, 20, 30, 40, 50, 60, 0.25)
    assert both == Cost(11, 22, 33, 44, 55, 66, 0.75)
    assert Cost().tokens_per_second == 0


def test_what_decoders_are_asked_wrongly() -> None:
    p = toy()
    decoders = (ControlledDecoding(TextScorer(word_rewards)), BestOf(word_rewards, n=2))
    for decoder in decoders:
        with pytest.raises(DecodingError, match="asked: got 1 for 4 prompts"):
            decoder.generate(p, PROMPTS, asked=["one"], **HOW)
        with pytest.raises(PlantError, match="max_new_tokens: got 0"):
            decoder.generate(p, PROMPTS, max_new_tokens=0, seed=0)
        with pytest.raises(TypeError, match="expected a list of strings"):
            decoder.generate(p, "text", **HOW)
    with pytest.raises(DecodingError, match="cache: got 'none', expected dynamic or static"):
        decoders[0].generate(p, PROMPTS, cache="none", **HOW)  # type: ignore[arg-type]
