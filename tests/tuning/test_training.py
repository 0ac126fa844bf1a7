"""DPO and PPO themselves, on random models of a few thousand weights: identities of the methods, and what is kept."""

from __future__ import annotations

import copy
import importlib.util
import json
import math
import random
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from steerlib.loading import weight_hash
from steerlib.plant import Plant
from steerlib.tasks.base import Pair
from steerlib.tuning import Lora, Training, Tuned, TuningError, dpo, linear_names, ppo, preferences
from steerlib.tuning.adapters import CARD, WEIGHTS
from steerlib.tuning.running import STATE
from tests.families import model, plant, tokenizer, words

if importlib.util.find_spec("trl") is None or importlib.util.find_spec("peft") is None:
    pytest.skip("trl and peft are not there: make env EXTRAS=1", allow_module_level=True)

PAIR = Pair(words(5, 9), " " + words(10, 11), " " + words(20, 21, 22))
PROMPTS = [words(5, 9), words(7), words(8, 8, 9), words(30, 31)]
FAST = Training(steps=3, batch=2, learning_rate=1e-2, save_every=1)
BETA = 0.3


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing here may ask for an address, let alone connect."""

    def refuse(*_):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def margin(tuned: Plant, base: Plant, pair: Pair) -> float:
    """Beta times how much more the preferred answer's log probability has grown, by the plants' own passes."""
    ends = [answer + " <eos>" for answer in (pair.wanted, pair.unwanted)]
    grown = [p.logprobs([pair.prompt] * 2, ends) for p in (tuned, base)]
    chosen, rejected = (grown[0] - grown[1]).tolist()
    return BETA * (chosen - rejected)


# ---- preference ----------------------------------------------------------------------------------------


def test_the_loss_begins_at_log_2_and_the_margin_is_that_of_the_plants(tmp_path):
    p = plant("llama")
    three = dpo(p, [PAIR], folder=tmp_path / "3", how=FAST, beta=BETA)
    two = dpo(p, [PAIR], folder=tmp_path / "2", how=Training(**{**vars(FAST), "steps": 2}), beta=BETA)
    told = [entry["rewards/margins"] for entry in three.history]
    assert three.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6) and told[0] == 0.0
    # What step 3 saw is the plant that two steps left: merged, and read by passes of our own.
    assert told[2] == pytest.approx(margin(two.plant, p, PAIR), rel=1e-3)
    assert three.history[2]["loss"] == pytest.approx(math.log1p(math.exp(-told[2])), rel=1e-4)
    assert 0 < told[1] < told[2] < margin(three.plant, p, PAIR)
    assert three.plant.name == f"random-llama-0+dpo-{three.adapter[:8]}"


def test_a_gpt2_is_tuned_through_its_transposed_matrices(tmp_path):
    p = plant("gpt2")
    tuned = dpo(p, [PAIR], folder=tmp_path, how=Training(**{**vars(FAST), "steps": 2}), beta=BETA)
    assert margin(tuned.plant, p, PAIR) > tuned.history[1]["rewards/margins"] > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merging_equals_running_with_the_adapter(dtype, tmp_path):
    import peft

    p = Plant.from_model(model("llama").to(dtype), tokenizer(), name="toy")  # type: ignore[arg-type]
    how = Training(steps=2, batch=2, learning_rate=5e-2)
    tuned = dpo(p, [PAIR], folder=tmp_path, how=how, lora=Lora(rank=3, alpha=5.0, targets=("v_proj", "up_proj")))
    live = peft.PeftModel.from_pretrained(copy.deepcopy(model("llama").to(dtype)), str(tmp_path)).eval()
    batch = p.encode([words(3, 4, 5, 6), words(9, 8, 7, 5)])
    with torch.inference_mode():
        wanted = live(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    got, bare = tuned.plant.forward(batch), p.forward(batch)
    assert got.dtype == dtype and tuned.plant.dtype == dtype
    moved = (wanted - bare).abs().max()
    assert (got - wanted).abs().max() < (1e-5 if dtype == torch.float32 else 0.2) * moved
    # rank 3 at 32 -> 16 values (two of four heads) and 32 -> 48, in three blocks
    assert tuned.parameters == 3 * 3 * ((32 + 16) + (32 + 48)) and tuned.others == 0


def test_what_was_there_before_is_there_afterwards(tmp_path):
    p = plant("llama")
    before, flags = weight_hash(p.model), [w.requires_grad for w in p.model.parameters()]
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    wanted = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    tuned = dpo(p, [PAIR], folder=tmp_path, how=FAST)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == wanted
    assert weight_hash(p.model) == before and [w.requires_grad for w in p.model.parameters()] == flags
    assert not p.model.training and not tuned.plant.model.training
    assert sorted(f.name for f in tmp_path.iterdir()) == ["adapter_config.json", WEIGHTS, CARD]
    assert tuned.seconds > 0 and json.loads((tmp_path / CARD).read_text())["seconds"] == tuned.seconds


def test_a_seed_decides(tmp_path):
    made = [dpo(plant("llama"), [PAIR], folder=tmp_path / str(i), how=FAST).adapter for i in range(2)]
    other = dpo(plant("llama"), [PAIR], folder=tmp_path / "x", how=Training(**{**vars(FAST), "seed": 1})).adapter
    assert made[0] == made[1] != other


def test_a_pretrained_model_learns_from_posts_that_people_answered(
    sample_data: Path, sample_models: Path, tmp_path: Path
):
    from steerlib.tasks.real import Preference

    p = Plant.load(str(sample_models / "stories260K"), device="cpu")
    task = Preference(p, of="shp", data=sample_data, settings={"max_new_tokens": 8, "temperature": 1.0})
    pairs = sorted(preferences(task, n=40), key=lambda pair: len(pair.prompt + pair.wanted + pair.unwanted))[:2]
    tuned = dpo(p, pairs, folder=tmp_path, how=Training(steps=2, batch=2, rows=1, learning_rate=1e-3))
    assert tuned.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert tuned.history[1]["rewards/margins"] > 0


# ---- reward --------------------------------------------------------------------------------------------

LOUD = ["w5", "w6", "w7", "w8", "w9", "w10"]


def loud(_: Sequence[str], answers: Sequence[str]) -> list[float]:
    """How many words of an answer are among six."""
    return [float(sum(word in LOUD for word in answer.split())) for answer in answers]


def raised(folder: Path, reward, *, steps: int = 10, rate: float = 3e-3, **more) -> Tuned:
    how = Training(steps=steps, batch=32, learning_rate=rate, save_every=5)
    return ppo(plant("llama"), PROMPTS, reward, folder=folder, max_new_tokens=6, how=how, kl=0.02, **more)


def test_a_reward_is_raised_and_a_constant_one_leaves_the_plant_nearly_alone(tmp_path):
    told, idle = raised(tmp_path / "a", loud), raised(tmp_path / "b", lambda _, answers: [7.0] * len(answers))
    assert told.history[0]["objective/kl"] == pytest.approx(0.0, abs=1e-4)
    moved, drifted = (max(entry["objective/kl"] for entry in t.history) for t in (told, idle))
    assert all(entry["objective/scores"] == 0.0 for entry in idle.history)
    earned = []
    for p in (plant("llama"), told.plant, idle.plant):
        texts = p.generate(PROMPTS, max_new_tokens=6, seed=1, samples=50).texts
        earned.append(np.mean(loud([], texts)))
    assert earned[1] > earned[0] + 0.3 > earned[2]
    assert drifted < 0.5 * moved
    # The critic is trained, counted and not kept: 32 states into 64 units and out.
    assert told.others == 32 * 64 + 64 + 64 + 1
    assert not any("score" in name for name in _names(tmp_path / "a"))


def _names(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return list(file.keys())


def test_the_reward_is_told_the_prompt_and_the_answer_up_to_its_end(tmp_path):
    p = plant("llama")
    p.model.generation_config.eos_token_id = [40, 2]  # type: ignore[union-attr]
    seen: list[tuple[str, str]] = []

    def look(prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        seen.extend(zip(prompts, answers, strict=True))
        return [0.0] * len(answers)

    how = Training(steps=2, batch=16, rows=4, learning_rate=1e-3)
    ppo(p, PROMPTS, look, folder=tmp_path, max_new_tokens=20, how=how)
    # Four prompts, as often each; none of their words in an answer's place, nothing after the end.
    assert sorted(prompt for prompt, _ in seen) == sorted(PROMPTS * 8)
    lengths = [len(answer.split()) for _, answer in seen]
    assert max(lengths) <= 20 and len(set(lengths)) > 2
    assert all("w40" not in answer.split()[:-1] for _, answer in seen)


def test_a_run_that_was_broken_off_ends_as_if_it_had_not_been(tmp_path):
    calls = []

    def fails_later(prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        calls.append(1)
        return loud(prompts, answers) if len(calls) < 4 else [math.nan] * len(answers)

    def run(folder: Path, reward) -> Tuned:
        how = Training(steps=4, batch=8, learning_rate=1e-2, save_every=2)
        return ppo(plant("llama"), PROMPTS, reward, folder=folder, max_new_tokens=4, how=how)

    whole = run(tmp_path / "whole", loud)
    with pytest.raises(TuningError, match="the reward of the answer to .* is nan, expected a finite number"):
        run(tmp_path / "broken", fails_later)
    assert (tmp_path / "broken" / STATE).exists() and not (tmp_path / "broken" / CARD).exists()
    resumed = run(tmp_path / "broken", loud)
    assert resumed.adapter == whole.adapter and len(resumed.history) == 4
    assert [e["objective/scores"] for e in resumed.history] == [e["objective/scores"] for e in whole.history]

    def nobody(*_):
        raise AssertionError("a finished run is read")

    assert run(tmp_path / "broken", nobody).adapter == whole.adapter
    with pytest.raises(TuningError, match="holds another run, which differs in data_hash"):
        ppo(plant("llama"), PROMPTS[:2], loud, folder=tmp_path / "broken", max_new_tokens=4,
            how=Training(steps=4, batch=8, learning_rate=1e-2, save_every=2))  # fmt: skip


def test_rewards_that_are_not_one_for_each_answer(tmp_path):
    with pytest.raises(TuningError, match=r"rewards of shape \(3,\) for 8 answers"):
        ppo(plant("llama"), PROMPTS, lambda *_: [1.0, 2.0, 3.0], folder=tmp_path, max_new_tokens=2,
            how=Training(steps=1, batch=8))  # fmt: skip


def test_a_rate_that_diverges_is_reported(tmp_path):
    with pytest.raises(TuningError, match="is no number any more. Fix: a smaller learning rate"):
        dpo(plant("llama"), [PAIR], folder=tmp_path, how=Training(steps=3, batch=2, learning_rate=1e30))


def test_every_family_has_modules_that_peft_finds(tmp_path):
    names = linear_names(plant("opt"))
    tuned = dpo(plant("opt"), [PAIR], folder=tmp_path, how=Training(steps=1, batch=1), lora=Lora(targets=names[:1]))
    assert tuned.parameters == 3 * 8 * (32 + 32)
