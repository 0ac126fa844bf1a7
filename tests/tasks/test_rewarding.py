"""Answers with their rewards: the states that tokens were drawn from, the task's own reward, what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from steerlib.actuator import Site
from steerlib.errors import ContrastError, PlantError
from steerlib.laws.value import ReControl
from steerlib.plant import Plant
from steerlib.tasks.base import Scores
from steerlib.tasks.helpfulness import Helpfulness
from steerlib.tasks.rewarding import answering, reward_among, rewarded_answers, rewarded_texts
from steerlib.tasks.sentiment import Sentiment
from steerlib.tasks.source import TaskSource
from steerlib.tasks.truth import Truth
from steerlib.trajectories import RolloutSampling
from steerlib.world import World
from tests.laws.chatter import Chatter

WORLD = World.default()
READ_OUT = Site(-1, "final_norm")


@pytest.fixture(scope="module")
def plant() -> Plant:
    tokenizer = WORLD.tokenizer
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = hf.LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
            num_attention_heads=2, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        return Plant.from_model(hf.AutoModelForCausalLM.from_config(config), tokenizer)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights would go on to the longest answer."""
    monkeypatch.setattr(Helpfulness, "answer_tokens", 4)
    monkeypatch.setattr(Truth, "answer_tokens", 4)


@pytest.mark.usefixtures("short")
class TestTasks:
    def test_the_reward_is_the_one_that_the_task_reports(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        task = Helpfulness(plant, held_out=True)
        seen: list[tuple[list[Any], list[str]]] = []

        def rewards(items: Sequence[Any], texts: Sequence[str]) -> np.ndarray:
            seen.append((list(items), list(texts)))
            return np.arange(len(items)) - 2.5

        monkeypatch.setattr(task, "rewards", rewards)
        found = rewarded_answers(task, READ_OUT, n=6, seed=3, scope="all")
        assert found.trajectories.rewards.tolist() == [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
        items, texts = seen[0]
        assert not any(item.family.held_out for item in items), "nothing is fitted on a family that is held out"
        expected = plant.generate([item.text for item in items], max_new_tokens=4, seed=3)
        assert tuple(texts) == expected.texts
        assert found.trajectories.lengths.tolist() == [len(tokens) for tokens in expected.tokens]
        assert found.header is not None
        assert (found.header.layer, found.header.point, found.header.scope) == (1, "final_norm", "all")
        assert found.header.weight_hash == plant.weight_hash and found.header.width == 16

    def test_the_first_state_is_the_one_behind_the_first_token(self, plant: Plant) -> None:
        task = Truth(plant)
        found = rewarded_answers(task, READ_OUT, n=3, seed=0)
        prompts = [item.text for item in answering(task, n=3, seed=0)[0]]
        batch = found.trajectories.take(torch.arange(3))
        first = batch.states[batch.lengths.cumsum(0) - batch.lengths]
        with torch.no_grad():
            logits = plant.model.get_output_embeddings()(first)  # type: ignore[misc]
        torch.testing.assert_close(logits, plant.forward(prompts)[:, -1])

    def test_judged_answers_earn_nothing_or_one(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        task = Truth(plant)
        seen: list[str] = []

        def verdicts(items: Sequence[Any], texts: Sequence[str]) -> Scores:
            seen.extend(texts)
            wanted = np.array([1.0, 0.0] * (len(items) // 2))
            return Scores(wanted, np.ones_like(wanted), missing={1: "no answer"})

        monkeypatch.setattr(task, "verdicts", verdicts)
        found = rewarded_answers(task, READ_OUT, n=4, seed=0)
        assert found.trajectories.rewards.tolist() == [1.0, 1.0, 0.0], "what nobody judged is left out"
        assert len(seen) == 4 and not any("\n" in text for text in seen), "cut before it is judged, as the task cuts it"

    def test_a_law_is_fitted_from_a_task(self, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Helpfulness, "rewards", lambda _task, items, _texts: np.arange(len(items)) / 4)
        source = TaskSource(Helpfulness(plant), READ_OUT, n=8, seed=1)
        law = ReControl(steps=3, passes=2, hidden=8).fit_from(source)
        assert law.header is not None and law.header.point == "final_norm" and law.header.seed == 1
        with plant.under(law):
            assert plant.generate(source.task.prompts()[:2], max_new_tokens=2, seed=0).tokens
        mixed = TaskSource(Helpfulness(plant), READ_OUT, n=8, seed=1, labels="shuffled").trajectories([READ_OUT])[0]
        plain = source.trajectories([READ_OUT])[0]
        assert torch.equal(mixed.trajectories.rewards, plain.shuffled(seed=1).trajectories.rewards)
        assert len(plain.trajectories) == 16

    def test_another_seed_is_other_answers(self, plant: Plant) -> None:
        task = Helpfulness(plant)
        one, same, other = (rewarded_answers(task, READ_OUT, n=4, seed=s) for s in (0, 0, 1))
        assert one.header == same.header and one.header is not None and other.header is not None
        assert one.header.data_hash != other.header.data_hash


class TestRefused:
    def test_a_task_without_answers_of_its_own(self, plant: Plant) -> None:
        with pytest.raises(ContrastError, match="chatter: this task samples no answers"):
            answering(Chatter(plant), n=2, seed=0)
        with pytest.raises(ContrastError, match="n: got 0"):
            answering(Truth(plant), n=0, seed=0)

    def test_rewards_that_nobody_gave_or_that_are_no_numbers(self, plant: Plant) -> None:
        how, prompt = RolloutSampling(2, 0), Helpfulness(plant).prompts("fit")[0]

        def collected(*rewards: float) -> Any:
            given = np.array(rewards)
            return rewarded_texts(plant, [prompt] * len(rewards), lambda _: given, how=how, named="r", site=READ_OUT)

        assert collected(np.nan, 2.0, np.nan, 3.0).trajectories.rewards.tolist() == [2.0, 3.0]
        with pytest.raises(ContrastError, match="none of 2 answers has a reward"):
            collected(np.nan, np.nan)
        with pytest.raises(ContrastError, match="reward: got inf"):
            collected(1.0, np.inf)

    def test_under_a_law(self, plant: Plant) -> None:
        with plant.under(lambda s: s, layer=0), pytest.raises(PlantError, match="a law is attached"):
            rewarded_answers(Helpfulness(plant), READ_OUT, n=2, seed=0)


class TestRewardOfTexts:
    def test_it_is_the_reward_of_the_item_that_was_asked(self, plant: Plant) -> None:
        task = Helpfulness(plant)
        items = task.items("validation")[:4]
        texts = [" Never, not for a sack of gold.", " Gladly, if we are careful.", "", " Ask for something kinder."]
        reward = reward_among(task, items)
        prompts = [item.text for item in items]
        assert reward(prompts, texts).tolist() == task.rewards(items, texts).tolist()
        back = reward(prompts[::-1], texts[::-1])
        assert back.tolist() == task.rewards(items, texts)[::-1].tolist(), "by prompt, not by place"
        assert len(set(back.tolist())) > 1

    def test_where_a_task_reports_no_reward_it_is_the_wanted_score_of_the_first_line(self, plant: Plant) -> None:
        task = Truth(plant)
        items = task.items("validation")[:2]
        texts = [task.forms(item).texts[0] + "\nand so on" for item in items]
        expected = task.verdicts(items, [text.partition("\n")[0] for text in texts]).wanted
        assert reward_among(task, items)([item.text for item in items], texts).tolist() == expected.tolist()

    def test_a_prompt_that_was_not_named_and_a_task_that_samples_nothing_are_refused(self, plant: Plant) -> None:
        task = Helpfulness(plant)
        with pytest.raises(ContrastError, match="not among the 2 whose answers are rewarded .*Fix: reward_among"):
            reward_among(task, task.items()[:2])(["Wish: sing.\nReply:"], [" No."])
        with pytest.raises(ContrastError, match="samples no answers"):
            reward_among(Sentiment(plant), [])
