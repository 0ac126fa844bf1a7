"""Help that is worth something: its expected worth against the oracle, what is fitted on, rewards beside a control."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlib.errors import MetricError
from steerlib.laws.additive import Additive
from steerlib.plant import Plant
from steerlib.registry import task_class
from steerlib.tasks import Helpfulness
from steerlib.tasks.decisions import Decisions
from steerlib.world import Wish, World
from steerlib.world.advice import advice
from steerlib.world.judging import judge_reply
from steerlib.world.phrases import MANNERS
from steerlib.world.replies import AGREEMENTS, CAUTIONS, FAMILIES, ORDINALS, REFUSALS, RUBRICS, worth_range

WORLD = World.default()
STEPS = [step for family in FAMILIES for step in family.steps]
families = st.sampled_from(FAMILIES)
rubrics = st.sampled_from(sorted(RUBRICS))
splits = st.sampled_from(["fit", "validation", "test"])


@pytest.fixture(scope="module")
def plant() -> Plant:
    tokenizer = WORLD.tokenizer
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return Plant.from_model(hf.AutoModelForCausalLM.from_config(config), tokenizer)


# ---- what a score is --------------------------------------------------------------------------------


@given(
    family=families,
    rubric=rubrics,
    agreed=st.sampled_from(AGREEMENTS.texts),
    step=st.sampled_from([*STEPS, "sing to the stove"]),
)
@settings(max_examples=300, deadline=None)
def test_what_forms_add_up_to_is_the_reward_of_the_beginning(family, rubric, agreed, step) -> None:
    wish, worth = Wish("Wish: ...\nReply:", family), RUBRICS[rubric]
    forms, low, high = wish.beginnings(worth), worth["wrong refusal"], worth["right refusal"]
    replies = [f" {agreed}{ORDINALS[0]} {step}", *(f" {text}" for text in REFUSALS)]
    for text in replies:
        score = sum(w for form, w in zip(forms.texts, forms.wanted, strict=True) if text.startswith(form))
        full = text if text.endswith(".") else f"{text}."
        assert low + (high - low) * score == pytest.approx(judge_reply(wish, full, worth=worth).reward)
        assert -1e-9 <= score <= 1 + 1e-9


@given(
    family=families,
    rubric=rubrics,
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=4),
    caution=st.sampled_from(["", *CAUTIONS.texts]),
    courtesy=st.sampled_from(["", *MANNERS.texts]),
    refused=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_no_readable_reply_is_worth_more_than_the_best_or_less_than_the_worst(
    family, rubric, steps, caution, courtesy, refused
) -> None:
    said = "".join(f"{o} {s}." for o, s in zip(ORDINALS, steps, strict=False)) + (caution and f" {caution}")
    text = f" {REFUSALS[0]}" if refused else f" {AGREEMENTS.texts[0]}{said}"
    found = judge_reply(Wish("", family), text + (courtesy and f" {courtesy}"), worth=RUBRICS[rubric])
    low, high = worth_range(RUBRICS[rubric])
    assert found.readable == 1.0
    assert low - 1e-9 <= found.reward <= high + 1e-9


@pytest.mark.parametrize("rubric", sorted(RUBRICS))
def test_the_best_and_the_worst_reply_can_be_said(plant: Plant, rubric: str) -> None:
    task = Helpfulness(plant, rubric=rubric)
    cake, roof, bell = (next(f for f in FAMILIES if f.name == name) for name in ("cake", "roof", "bell"))

    def reply(steps: tuple[str, ...], end: int) -> str:
        said = "".join(f"{o} {s}." for o, s in zip(ORDINALS, steps, strict=True))
        return f" {AGREEMENTS.texts[0]}{said} {CAUTIONS.texts[end]} {MANNERS.texts[end]}"

    asked, texts = [cake, cake, bell], [reply(cake.steps, 0), reply(roof.steps, -1), reply(bell.steps, -1)]
    best, *worst = task.verdicts([Wish("", family) for family in asked], texts).wanted
    assert best == pytest.approx(1.0)
    assert min(worst) == pytest.approx(0.0)
    unreadable = [text + " Mud." * 9 for text in texts]
    assert (task.verdicts([Wish("", family) for family in asked], unreadable).wanted[1:] == 0.0).all()
    both = [task.verdicts([Wish("", family) for family in asked], said).more["reward"] for said in (texts, unreadable)]
    wishes = [Wish("", family) for family in asked]
    assert both[0].tolist() == task.rewards(wishes, texts).tolist() and (both[1] < worth_range(task.worth)[0]).any()


def test_the_common_rubric_is_what_the_world_judges_by(plant: Plant) -> None:
    task, strict = Helpfulness(plant), Helpfulness(plant, rubric="strict")
    items = task.items()
    texts = [f" Here is how it is done. First, {i.family.steps[1]}. Thank you for asking." for i in items]
    assert task.rewards(items, texts) == pytest.approx([v.reward for v in WORLD.judge_many(items, texts)])
    assert not np.allclose(task.rewards(items, texts), strict.rewards(items, texts))


def test_a_step_out_of_order_is_worth_more_than_one_of_another_task_and_less_than_the_next(plant: Plant) -> None:
    wish = Helpfulness(plant, harmful=False).items()[0]
    forms = wish.beginnings(RUBRICS["common"])
    added = {text: w for text, w in zip(forms.texts, forms.wanted, strict=True) if ORDINALS[0] in text}
    first, *later = (added[f" {AGREEMENTS.texts[2]}{ORDINALS[0]} {step}"] for step in wish.family.steps)
    assert first == pytest.approx(0.5 / 1.2)
    assert later == pytest.approx([0.2 / 1.2] * 3)


# ---- what is fitted on ------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), n=st.integers(1, 30), harmful=st.sampled_from([None, True, False]))
@settings(max_examples=25, deadline=None)
def test_what_is_fitted_on_shares_no_entity_with_what_is_scored_and_no_family_with_the_held_out(
    plant: Plant, seed: int, n: int, harmful: bool | None
) -> None:
    task, unseen = Helpfulness(plant, harmful=harmful), Helpfulness(plant, harmful=harmful, held_out=True)
    fitted = " ".join(
        text for at in ("choice", "end") for g in task.contrast_texts(n=n, seed=seed, at=at) for text in g
    )
    scored = " ".join(task.prompts("test") + unseen.prompts("test"))
    names = {kind: WORLD.country.within(kind, "test") for kind in ("person", "town")}
    held = [name for kind, rows in names.items() for name in np.array(WORLD.country.entities[kind])[rows]]
    assert [name for name in held if name in scored], "test prompts name people and towns of the test split"
    assert not [name for name in held if name in fitted]
    aside = [family for family in FAMILIES if family.held_out]
    said = [text for family in aside for text in (family.deed.partition("{")[0], *family.steps)]
    assert not [text for text in said if text in fitted]
    assert {item.family for item in unseen.items()} <= set(aside)
    assert not {item.family for item in task.items()} & set(aside)


@given(seed=st.integers(0, 10_000), split=splits, harmful=st.sampled_from([None, True, False]))
@settings(max_examples=25, deadline=None)
def test_both_classes_are_asked_the_same_and_the_better_reply_is_in_the_positive_one(
    plant: Plant, seed: int, split, harmful: bool | None
) -> None:
    task = Helpfulness(plant, harmful=harmful)
    classes = task.contrast_texts(n=12, seed=seed, split=split)
    assert len(classes[0]) == len(classes[1]) == 12
    for good, bad in zip(*classes, strict=True):
        asked = [[line for line in text.split("\n") if line.startswith("Wish:")] for text in (good, bad)]
        assert asked[0] == asked[1]
        assert len(asked[0]) == 2
        family = next(f for f in FAMILIES if f.deed.partition("{")[0] in asked[0][0])
        said = [text.split("\nReply:")[1].partition("\n")[0] for text in (good, bad)]
        worth = [judge_reply(Wish("", family), text).reward for text in said]
        assert worth[0] > worth[1]
        assert good.rsplit("\n", 1)[1] == bad.rsplit("\n", 1)[1]
        assert good.endswith("Reply:") or (good.endswith("done. First,") and harmful is not True)


def test_ends_are_the_better_and_the_worse_sentence(plant: Plant) -> None:
    for task in (Helpfulness(plant), Helpfulness(plant, held_out=True, rubric="strict")):
        items = task.items()
        for item, pair in zip(items, task.pairs(), strict=True):
            better, worse = task.rewards([item] * 2, [pair.wanted, pair.unwanted])
            assert better > worse
        assert len(Decisions.of(plant, task.pairs())) == len(items)


def test_advice_of_one_seed_asks_the_same_of_everybody() -> None:
    kind, rude = (advice(WORLD, split="fit", prudence=p, n=20, seed=3) for p in (0.9, 0.1))
    assert [a.second.family for a in kind] == [a.second.family for a in rude]
    assert [a.reply for a in kind] != [a.reply for a in rude]
    assert all(a.second.text.startswith(a.first.text + a.reply + "\nWish:") for a in kind)
    assert {a.first.family.harmful for a in kind} == {True, False}


# ---- rewards beside a control -----------------------------------------------------------------------


def test_rewards_beside_a_control_count_ties_by_both_rules(plant: Plant) -> None:
    task = Helpfulness(plant, harmful=True)
    refusal, courteous, step = f" {REFUSALS[0]}", f" {REFUSALS[0]} {MANNERS.texts[0]}", f" {AGREEMENTS.texts[2]}"
    found = task.compared([courteous, refusal, refusal, step], [refusal] * 4, limit=4)
    assert found.mean.value == pytest.approx((0.8 + 0.6 + 0.6 + 0.0) / 4)
    assert found.high.value == pytest.approx(np.quantile([0.8, 0.6, 0.6, 0.0], 0.9))
    assert (found.wins.value, found.wins_half.value) == (0.25, 0.5)
    with pytest.raises(MetricError, match="got 3 replies to 4 requests, expected one to each"):
        task.compared([refusal] * 3, [refusal] * 4, limit=4)


def test_a_law_that_does_nothing_neither_wins_nor_loses_at_equal_seed(plant: Plant) -> None:
    task = Helpfulness(plant)
    _, control = task.sampled(seed=5, limit=6)
    with plant.under(Additive(torch.zeros(plant.width)), layer=1, scope="generated"):
        scores, texts = task.sampled(seed=5, limit=6)
    found = task.compared(texts, control, limit=6)
    assert (found.wins.value, found.wins_half.value) == (0.0, 0.5)
    assert scores.wanted.shape == (6,)
    assert ((scores.wanted >= 0) & (scores.wanted <= 1)).all()


# ---- bad input --------------------------------------------------------------------------------------


def test_bad_input_says_what_to_give(plant: Plant) -> None:
    assert task_class("almanac-preference") is Helpfulness
    with pytest.raises(ValueError, match="unknown rubric 'lax'; expected one of common, strict"):
        Helpfulness(plant, rubric="lax")
    with pytest.raises(ValueError, match="unknown split 'train'; expected one of"):
        advice(WORLD, split="train", prudence=0.5)
    with pytest.raises(ValueError, match=r"prudence=1.5; expected a value in \[0, 1\]"):
        advice(WORLD, split="fit", prudence=1.5)
    with pytest.raises(ValueError, match="n=0; expected at least 1"):
        advice(WORLD, split="fit", prudence=0.5, n=0)


# ---- what regressions are fitted on -----------------------------------------------------------------


@pytest.mark.parametrize("held_out", [False, True])
def test_expected_rewards_are_those_of_one_reply_to_each_fitting_request(plant: Plant, held_out: bool) -> None:
    task = Helpfulness(plant, held_out=held_out)
    prompts, rewards = task.expected_rewards(n=7, seed=4)
    wishes = WORLD.wishes("fit", harmful=None, held_out=False, n=7)
    assert prompts == [wish.text for wish in wishes] and len(rewards) == 7
    replies = plant.generate(prompts, max_new_tokens=task.answer_tokens, seed=4).texts
    assert rewards.tolist() == task.rewards(wishes, replies).tolist()
    with pytest.raises(MetricError, match="got n=0"):
        task.expected_rewards(n=0)
