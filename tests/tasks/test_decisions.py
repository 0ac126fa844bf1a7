"""Where two answers part, and by how much a plant prefers one."""

from __future__ import annotations

import pytest
import torch
import transformers as hf

from steerlib.errors import MetricError
from steerlib.laws.additive import Additive
from steerlib.plant import Plant
from steerlib.tasks import Decisions, Pair, Sentiment, Truth
from steerlib.world import World
from tests.families import FAMILIES, WIDTH, plant, words

PAIRS = [
    Pair(words(5, 9), " " + words(30, 41, 8), " " + words(30, 77)),  # parts after one common token
    Pair(words(60, 3, 4, 6), " " + words(12), " " + words(13, 14)),  # parts at once
]


def almanac() -> Plant:
    """A random plant that reads the Almanac's tokens."""
    tokenizer = World.default().tokenizer
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    return Plant.from_model(hf.AutoModelForCausalLM.from_config(config), tokenizer)


def test_rows_end_where_the_answers_part() -> None:
    d = Decisions.of(plant("llama"), PAIRS)
    assert d.tokens.input_ids.tolist() == [[0, 5, 9, 30], [60, 3, 4, 6]]
    assert d.tokens.attention_mask.tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert (d.wanted.tolist(), d.unwanted.tolist()) == ([41, 12], [77, 13])
    assert d.prompt_lengths.tolist() == [2, 4]
    assert len(d) == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_the_margin_is_the_difference_of_conditional_log_probabilities(family: str) -> None:
    p = plant(family)
    heads, tails = [words(5, 9, 30), words(60, 3, 4, 6)], [(" w41", " w77"), (" w12", " w13")]
    for law in (Additive(torch.zeros(WIDTH)), Additive(torch.linspace(-3, 3, WIDTH))):
        with p.under(law, layer=1, scope="last"):
            got = Decisions.of(p, PAIRS).margins(p)
            logs = [p.logprobs(heads, [tail[i] for tail in tails]).numpy() for i in (0, 1)]
        assert got == pytest.approx(logs[0] - logs[1], abs=1e-4)


def test_generated_tokens_are_steered_from_the_end_of_the_prompt() -> None:
    p = plant("llama")
    law, seen = Additive(torch.ones(WIDTH)), []
    tap = lambda state: seen.append(state) or state  # noqa: E731 - two lines would say no more
    before, after = (p.under(tap, layer=1, scope="all") for _ in range(2))
    with before, p.under(law, layer=1, scope="generated"), after:
        Decisions.of(p, PAIRS).logits(p)
    changed = (seen[0] != seen[1]).any(-1)
    assert changed.tolist() == [[False, False, True, True], [False, False, False, True]]


@pytest.mark.parametrize("answers", [(" w30", " w30"), (" w30", " w30 w31")])
def test_answers_that_never_part_are_refused(answers: tuple[str, str]) -> None:
    with pytest.raises(MetricError, match="never part"):
        Decisions.of(plant("llama"), [Pair("w5 w9", *answers)])


@pytest.mark.parametrize("split", ["fit", "validation", "test"])
def test_truth_pairs_part_inside_the_answer_and_are_judged_as_they_say(split: str) -> None:
    task = Truth(almanac())
    pairs = task.pairs(split)  # type: ignore[arg-type]
    assert [pair.prompt for pair in pairs] == task.prompts(split)  # type: ignore[arg-type]
    for question, pair in zip(task.questions(split), pairs, strict=True):  # type: ignore[arg-type]
        assert task.world.judge(question, pair.wanted).true
        assert not task.world.judge(question, pair.unwanted).true
    d = Decisions.of(task.plant, pairs)
    assert (d.tokens.lengths > d.prompt_lengths).all()


def test_sentiment_pairs_are_a_happy_and_a_sad_word() -> None:
    task = Sentiment(plant("llama"))
    pairs = task.pairs("test")
    assert [pair.prompt for pair in pairs] == task.words.stems["test"]
    assert {(task.happiness(p.wanted), task.happiness(p.unwanted)) for p in pairs} == {(1.0, 0.0)}
