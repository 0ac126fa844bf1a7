"""Values by brute force against probabilities that can be read off, and answers that have ended."""

from __future__ import annotations

import math

import pytest
import torch

from steerlib.continuing import continued
from steerlib.errors import ContrastError, PlantError
from steerlib.trajectories import RolloutSampling
from tests.families import plant, words

PROMPTS = [words(5, 9, 30, 41), words(60, 3), words(12, 13, 14)]
BEGINNINGS = [(7, 50), (), (20, 21, 22)]
WORD = 33


def has_word(prompts, answers) -> list[float]:  # noqa: ANN001
    return [float(f"w{WORD}" in answer.split()) for answer in answers]


def test_the_share_of_a_next_token_is_its_probability() -> None:
    """One token is left to each of three beginnings of different lengths; the reward is that it is a certain word."""
    p = plant("llama")
    rows = [p._ids([prompt])[0] + list(begun) for prompt, begun in zip(PROMPTS, BEGINNINGS, strict=True)]
    likely = [p.forward(p._pad([row]))[0, -1].softmax(-1) for row in rows]
    words_ = [int(share[3:].argmax()) + 3 for share in likely]
    for i, (share, word) in enumerate(zip(likely, words_, strict=True)):
        how = RolloutSampling(max_new_tokens=len(BEGINNINGS[i]) + 1, seed=0, samples=400)
        found = continued(
            p, PROMPTS[i : i + 1], BEGINNINGS[i : i + 1],
            lambda _, answers, word=word: [float(a.split()[-1:] == [f"w{word}"]) for a in answers], how=how,
        )  # fmt: skip
        expected = float(share[word])
        assert expected > 0.02
        assert float(found.mean[0]) == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 400))
        spread = math.sqrt(float(found.mean[0]) * (1 - float(found.mean[0])) / 399)
        assert float(found.error[0]) == pytest.approx(spread)


def test_beginnings_count_and_do_not_depend_on_batches() -> None:
    p, calls = plant("llama"), []

    def lengths(prompts, answers) -> list[float]:  # noqa: ANN001
        calls.append(dict(zip(answers, prompts, strict=True)))
        return [float(len(answer.split())) for answer in answers]

    p.model.generation_config.eos_token_id = None  # answers have their full length, and depend on logits only
    how = RolloutSampling(max_new_tokens=4, seed=1, samples=3)
    one = continued(p, PROMPTS, BEGINNINGS, lengths, how=how)
    other = continued(p, PROMPTS, BEGINNINGS, lengths, how=how, batch_size=2)
    assert calls[0] == calls[1] and torch.equal(one.mean, other.mean)
    assert one.mean.tolist() == [4, 4, 4] and one.error.tolist() == [0, 0, 0]
    for answer, prompt in calls[0].items():
        assert answer.split()[: len(BEGINNINGS[PROMPTS.index(prompt)])] == [
            f"w{token}" for token in BEGINNINGS[PROMPTS.index(prompt)]
        ]
    fresh = set(p.generate(PROMPTS[1:2], max_new_tokens=4, seed=1, samples=6).texts)
    assert not fresh & set(calls[0]), "a continuation must not repeat the noise of the answer"


def test_answers_that_have_ended_are_rewarded_as_they_are() -> None:
    p, seen = plant("llama"), []

    def reward(prompts, answers) -> list[float]:  # noqa: ANN001
        seen.extend(answers)
        return [5.0] * len(answers)

    how = RolloutSampling(max_new_tokens=3, seed=0, samples=2)
    found = continued(p, PROMPTS, [(7, 2), (8, 9, 10), (WORD, 9, 2)], reward, how=how)
    assert found.mean.tolist() == [5, 5, 5] and found.error.tolist() == [0, 0, 0] and len(seen) == 3
    assert [text.split() for text in seen] == [["w7"], ["w8", "w9", "w10"], [f"w{WORD}", "w9"]]


def test_refusals() -> None:
    p = plant("llama")
    with pytest.raises(PlantError, match="got 3 tokens, expected at most 2"):
        continued(p, PROMPTS, BEGINNINGS, has_word, how=RolloutSampling(max_new_tokens=2, seed=0, samples=2))
    with pytest.raises(PlantError, match="expected several samples"):
        continued(p, PROMPTS, BEGINNINGS, has_word, how=RolloutSampling(max_new_tokens=4, seed=0))
    with pytest.raises(ContrastError, match="got 3 prompts and 1 beginnings"):
        continued(p, PROMPTS, [()], has_word, how=RolloutSampling(max_new_tokens=4, seed=0, samples=2))
    with pytest.raises(ContrastError, match="reward: got nan"):
        bad = RolloutSampling(max_new_tokens=4, seed=0, samples=2)
        continued(p, PROMPTS, BEGINNINGS, lambda _, answers: [math.nan] * len(answers), how=bad)
