"""Toxicity, refusal, help, concepts and utility on a small random plant: exact scores are sums over forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf

from steerlib.judges import OracleJudge
from steerlib.plant import Plant
from steerlib.tasks import Concept, Helpfulness, Refusal, Task, Toxicity, Truth, Utility
from steerlib.tasks.base import NotTellable
from steerlib.world import World
from steerlib.world.replies import AGREEMENTS, ORDINALS, REFUSALS


@pytest.fixture(scope="module")
def plant() -> Plant:
    tokenizer = World.default().tokenizer
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return Plant.from_model(hf.AutoModelForCausalLM.from_config(config), tokenizer)


def every(plant: Plant) -> list[Task]:
    return [
        Truth(plant), Toxicity(plant), Refusal(plant), Concept(plant, "winter"), Helpfulness(plant), Utility(plant),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(6))
def test_exact_scores_are_sums_of_plain_probabilities(plant: Plant, number: int) -> None:
    task = every(plant)[number]
    items = task.items("test")[:2]  # type: ignore[attr-defined]
    found = task.scored(items)  # type: ignore[attr-defined]
    for i, item in enumerate(items):
        forms = task.forms(item)  # type: ignore[attr-defined]
        mass = plant.logprobs([item.text] * len(forms.texts), list(forms.texts)).exp().numpy()
        assert found.wanted[i] == pytest.approx(float(mass @ np.array(forms.wanted)), rel=1e-4)
        assert found.intact[i] == pytest.approx(float(mass @ np.array(forms.intact)), rel=1e-4)
        # Where one form begins another, the shorter one holds the probability of both.
        apart = [not any(text != other and text.startswith(other) for other in forms.texts) for text in forms.texts]
        assert 0 < mass[apart].sum() <= 1


@pytest.mark.parametrize("number", range(5))
def test_told_and_bare_prompts_belong_together(plant: Plant, number: int) -> None:
    task = every(plant)[number]
    bare, told = task.items("test"), task.items("test", told=True)  # type: ignore[attr-defined]
    assert len(bare) == len(told)
    for a, b in zip(bare, told, strict=True):
        assert b.text.endswith(a.text)
        assert len(b.text) > len(a.text)


@pytest.mark.parametrize("number", range(5))
def test_classes_differ_and_end_alike(plant: Plant, number: int) -> None:
    task = every(plant)[number]
    positive, negative = task.contrast_texts(n=20, seed=0)
    assert len(positive) == len(negative) == 20
    assert set(positive) != set(negative)
    for stems, wholes in zip((positive, negative), task.contrast_texts(n=20, seed=0, at="end"), strict=True):
        assert all(w.startswith(s + " ") and w.endswith((".", "!")) for s, w in zip(stems, wholes, strict=True))
    if number in (1, 2, 4):  # the same question to two speakers
        assert [t[-6:] for t in positive] == [t[-6:] for t in negative]
    with pytest.raises(ValueError, match="expected 'choice' or 'end'"):
        task.contrast_texts(n=2, seed=0, at="middle")


def test_held_out_families_are_never_fitted_on(plant: Plant) -> None:
    held = {item.family.name for item in Refusal(plant, held_out=True).items("test")}
    used = {item.family.name for item in Refusal(plant).items("test")}
    assert held
    assert not held & used
    deeds = [item.family.deed.partition("{")[0] for item in Refusal(plant, held_out=True).items("test")]
    fitted = [text for group in Refusal(plant).contrast_texts(n=200, seed=0) for text in group]
    assert not [deed for deed in set(deeds) for text in fitted if deed in text]


def test_utility_is_a_share_of_right_choices_and_never_fitted_on(plant: Plant) -> None:
    task = Utility(plant)
    right = task.chosen()
    assert set(right) <= {0.0, 1.0}
    assert 0.05 < right.mean() < 0.5, "a random plant guesses among four"
    items = task.items()[:5]
    for i, item in enumerate(items):
        forms = item.forms()
        logs = plant.logprobs([item.text] * 4, list(forms.texts))
        assert task.chosen(items)[i] == forms.wanted[int(logs.argmax())]
    with pytest.raises(ValueError, match="never fitted on"):
        task.contrast_texts(n=1, seed=0)
    assert task.reference() is None


def test_utility_cannot_be_told(plant: Plant) -> None:
    task = Utility(plant)
    for split in ("validation", "test"):
        with pytest.raises(NotTellable, match="utility: got told=True, .* Fix: leave told out"):
            task.items(split, told=True)
        assert task.reference(split=split) is None
    # The oracle knows its bare prompts none the less.
    item = task.items("test")[0]
    right = task.forms(item).texts[int(np.argmax(task.forms(item).wanted))]
    assert OracleJudge(task).score([item.text], [right]).scores.tolist() == [1.0]


def test_unknown_concept_lists_the_known_ones(plant: Plant) -> None:
    with pytest.raises(ValueError, match="unknown concept 'taxes'; expected one of music"):
        Concept(plant, "taxes")


def test_help_with_harm_is_told_apart_from_what_is_no_refusal() -> None:
    task = Refusal(None)  # type: ignore[arg-type]
    item = task.items("test")[0]
    refusal = f" {REFUSALS[0]}"
    agreed, helped = (f" {AGREEMENTS.texts[0]}{step}" for step in ("", f"{ORDINALS[0]} {item.family.steps[0]}."))
    found = task.verdicts([item] * 4, [refusal, helped, agreed, " The sea is wide."])
    assert found.wanted.tolist() == [1.0, 0.0, 0.0, 0.0] and found.more["attack-success"].tolist() == [
        0.0,
        1.0,
        0.0,
        0.0,
    ]
    honest = Refusal(None, harmful=False)  # type: ignore[arg-type]
    assert not honest.verdicts(honest.items("test")[:2], [refusal, helped]).more
