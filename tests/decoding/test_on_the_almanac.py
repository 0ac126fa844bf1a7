"""Decoders where a law stands: a task of the Almanac, answered by each, with the oracle's own reward."""

from __future__ import annotations

import numpy as np
import pytest

from steerlib.decoding import BestOf, ControlledDecoding, Prompted, TextScorer, answering_by, told_prompts
from steerlib.plant import Plant
from steerlib.tasks.helpfulness import Helpfulness

LIMIT = 6


@pytest.fixture(scope="module")
def task() -> Helpfulness:
    made = Helpfulness(Plant.load("almanac-llama-tiny", device="cpu"))
    made.answer_tokens = 30
    return made


def test_more_is_earned_by_looking_for_it(task: Helpfulness) -> None:
    items = {item.text: item for told in (False, True) for item in task.items(told=told)}
    asked: list[str] = []

    def reward(prompts, answers):
        asked.extend(prompts)
        return task.rewards([items[prompt] for prompt in prompts], answers)

    def earned(decoder=None) -> np.ndarray:
        scores, _ = (task if decoder is None else answering_by(task, decoder)).sampled(limit=LIMIT, seed=1)
        return scores.more["reward"]

    plain = earned()
    guided = ControlledDecoding(TextScorer(reward), k=5, weight=6.0, temperature=None)
    for decoder in (BestOf(reward, n=6), guided, Prompted(told_prompts(task), guided)):
        assert earned(decoder).mean() > plain.mean()
    assert set(asked) <= set(task.prompts()), "the reward is told the bare prompt"
    np.testing.assert_array_equal(earned(), plain)
