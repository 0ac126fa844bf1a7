"""Prefix scorers: the states they learn from, and that they learn what the targets say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from steerlib.control.networks import Training
from steerlib.control.rollouts import Trajectories
from steerlib.decoding import ControlledDecoding, DecodingError, prefix_states, small_reader, state_scorer, token_scorer
from steerlib.errors import ContrastError, PlantError
from steerlib.trajectories import RolloutSampling, collect
from tests.decoding.test_controlled import read_anew
from tests.decoding.toys import PROMPTS, ids_of, next_logits, toy, word_rewards, worth

HOW = RolloutSampling(max_new_tokens=5, seed=2, samples=2)


def test_states_are_those_after_each_token_the_end_included(tmp_path: Path) -> None:
    p = toy(ending=True)
    out = p.generate(PROMPTS, max_new_tokens=5, seed=2, samples=2)
    for folder in (None, tmp_path / "prefixes"):
        found = prefix_states(p, PROMPTS, word_rewards, folder, how=HOW, rewarded_by="words", batch_size=3, shard=5)
        assert found.lengths.tolist() == [len(tokens) for tokens in out.tokens]
        assert found.rewards.tolist() == pytest.approx(word_rewards(out.prompts, out.texts))
        head = p.model.get_output_embeddings()
        for i, (prompt, tokens) in enumerate(zip(out.prompts, out.tokens, strict=True)):
            states = found.take(torch.tensor([i])).states
            for t, state in enumerate(states):
                anew = next_logits(p, [*ids_of(prompt), *tokens[: t + 1]])
                torch.testing.assert_close(head(state), anew, atol=3e-4, rtol=1e-4)  # type: ignore[misc]


def test_with_the_start_one_value_can_be_ascended_and_searched_with() -> None:
    p = toy(ending=True)
    found = prefix_states(p, PROMPTS, word_rewards, how=HOW, rewarded_by="words", start=True)
    after = prefix_states(p, PROMPTS, word_rewards, how=HOW, rewarded_by="words")
    before = collect(p, PROMPTS, word_rewards, how=HOW, rewarded_by="words")
    assert found.lengths.tolist() == [n + 1 for n in after.lengths.tolist()]
    for i in range(len(found)):
        whole, later, first = (t.take(torch.tensor([i])).states for t in (found, after, before))
        torch.testing.assert_close(whole[1:], later)
        torch.testing.assert_close(whole[:-1], first)


def test_states_before_and_after_tokens_do_not_mix(tmp_path: Path) -> None:
    p = toy()
    collect(p, PROMPTS, word_rewards, tmp_path, how=HOW, rewarded_by="words")
    with pytest.raises(ContrastError, match="holds other trajectories"):
        prefix_states(p, PROMPTS, word_rewards, tmp_path, how=HOW, rewarded_by="words")
    with pytest.raises(PlantError, match="max_new_tokens: got 0"):
        prefix_states(p, PROMPTS, word_rewards, how=RolloutSampling(max_new_tokens=0, seed=0), rewarded_by="words")


def test_a_value_of_states_learns_the_reward_from_every_beginning_or_from_the_end() -> None:
    # One-hot states in a fixed order: two middles a, b lead to one state c or d; r is 0 or 4 by the first state alone.
    states = torch.eye(3)
    rows = [(0, 2), (1, 2)] * 20
    data = Trajectories(torch.stack([states[list(row)] for row in rows]), [2] * 40, [4.0 * row[0] for row in rows])
    how = Training(steps=400, batch=40, rate=3e-2, held_out=0.0)
    values = {}
    for method in ("fudge", "cd-q"):
        scorer = state_scorer(data, method=method, hidden=16, how=how, seed=0)  # type: ignore[arg-type]
        values[method] = scorer.value(states).tolist()
    # Both know that state c is worth 2; only regression on the outcome knows what the first state foretells.
    assert values["fudge"] == pytest.approx([0.0, 4.0, 2.0], abs=0.15)
    assert values["cd-q"] == pytest.approx([2.0, 2.0, 2.0], abs=0.15)


def test_a_model_of_tokens_learns_what_beginnings_earn() -> None:
    p = toy()
    answers = p.generate(PROMPTS * 10, max_new_tokens=4, seed=1)
    # Known from the first token on: what it is worth. No further token matters.
    rewards = [worth(tokens[0]) for tokens in answers.tokens]
    model = small_reader(p, width=16, depth=1, heads=2, seed=0)
    how = Training(steps=300, batch=40, rate=1e-2, held_out=0.0)
    scorer, history = token_scorer(model, p, answers, rewards, method="fudge", how=how, seed=0)
    assert history.steps == 300 and not any(q.requires_grad for q in model.parameters())
    errors = [
        read_anew(model, [*ids_of(q), *a[:length]]) - r
        for q, a, r in zip(answers.prompts, answers.tokens, rewards, strict=True)
        for length in range(1, len(a) + 1)
    ]
    assert float(torch.tensor(errors).square().mean()) < 0.1 * float(torch.tensor(rewards).var())
    out = ControlledDecoding(scorer, k=4).generate(p, PROMPTS, max_new_tokens=2, seed=0)
    assert out.rewards[0] == pytest.approx(read_anew(model, [*ids_of(PROMPTS[0]), *out.tokens[0]]), abs=1e-4)


def test_methods_differ_and_seeds_repeat() -> None:
    p = toy()
    answers = p.generate(PROMPTS, max_new_tokens=4, seed=1)
    rewards = word_rewards(answers.prompts, answers.texts)
    how = Training(steps=2, batch=4, rate=1e-2, held_out=0.0)

    def weights(method: str) -> torch.Tensor:
        model = small_reader(p, width=8, depth=1, heads=1, seed=3)
        token_scorer(model, p, answers, rewards, method=method, how=how, seed=0)  # type: ignore[arg-type]
        return torch.cat([q.flatten() for q in model.parameters()])

    fudge = weights("fudge")
    assert torch.equal(fudge, weights("fudge")) and not torch.equal(fudge, weights("cd-q"))


def test_bad_rewards_are_refused() -> None:
    p = toy()
    answers, model = p.generate(PROMPTS, max_new_tokens=2, seed=1), small_reader(p, width=8, depth=1, heads=1)
    how = Training(steps=1, batch=4, rate=1e-2)
    for rewards, message in (
        ([1.0, 2.0], r"shape \(2,\) for 4 answers"),
        ([1.0, 2.0, 3.0, float("nan")], "1 no finite numbers"),
        ([1.0] * 4, "all equal 1"),
    ):
        with pytest.raises(DecodingError, match=message):
            token_scorer(model, p, answers, rewards, method="fudge", how=how, seed=0)
    with pytest.raises(DecodingError, match="method: .*'cdq'"):
        token_scorer(model, p, answers, [1.0, 2.0, 3.0, 4.0], method="cdq", how=how, seed=0)  # type: ignore[arg-type]
    with pytest.raises(DecodingError, match="width: got 10, expected a multiple of 4"):
        small_reader(p, width=10)
