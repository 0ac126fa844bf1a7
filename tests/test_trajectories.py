"""Rollouts: the very states that tokens were drawn from, in every family, and collections that survive a kill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlib import trajectories as module
from steerlib.actuator import Site
from steerlib.control.networks import Training
from steerlib.control.rollouts import Trajectories
from steerlib.control.values import fit_value
from steerlib.errors import ContrastError, PlantError, SiteError
from steerlib.laws.additive import DifferenceOfMeans
from steerlib.laws.base import Contrast, LawHeader
from steerlib.plant import Plant
from steerlib.recorder import record
from steerlib.trajectories import READ_OUT, RolloutSampling, collect, collected, given
from tests.families import DEPTH, FAMILIES, WIDTH, plant, words

PROMPTS = [words(5, 9, 30, 41, 8, 77), words(60, 3), words(12, 13, 14, 15), words(60, 3, 9), words(20)]
HOW = RolloutSampling(max_new_tokens=6, seed=3)


def length(prompts, answers) -> list[float]:  # noqa: ANN001
    return [float(len(answer)) for answer in answers]


def ids(p: Plant, how: RolloutSampling = HOW) -> list[tuple[int, ...]]:
    sampled = p.generate(PROMPTS, max_new_tokens=how.max_new_tokens, seed=how.seed, temperature=how.temperature)
    return list(sampled.tokens)


def split(found: Trajectories) -> list[Tensor]:
    batch = found.take(torch.arange(len(found)))
    return list(batch.states.split(batch.lengths.tolist()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_makes_of_a_state_the_logits_its_token_was_drawn_from(family: str) -> None:
    p = plant(family)
    tokens = ids(p)
    found = collect(p, PROMPTS, length, how=HOW, rewarded_by="length", batch_size=3)
    assert found.lengths.tolist() == [len(answer) for answer in tokens]
    cap = getattr(p.model.config, "final_logit_softcapping", None)
    head = p.model.get_output_embeddings()
    for prompt, answer, states in zip(PROMPTS, tokens, split(found), strict=True):
        asked = p._ids([prompt])[0]
        expected = p.forward(p._pad([asked + list(answer)]))[0, len(asked) - 1 : -1]
        with torch.inference_mode():
            logits = head(states)
        torch.testing.assert_close(cap * torch.tanh(logits / cap) if cap else logits, expected, atol=2e-4, rtol=2e-4)
        # Of states that were shifted by a token, or of another answer, this would not hold.
        assert not torch.allclose(logits[0], logits[-1], atol=1e-2) or len(answer) == 1


def test_greedy_tokens_are_the_largest_logits() -> None:
    p, how = plant("llama"), RolloutSampling(max_new_tokens=6, seed=0, temperature=0.0)
    found = collect(p, PROMPTS, length, how=how, rewarded_by="length")
    for answer, states in zip(ids(p, how), split(found), strict=True):
        assert tuple(p.model.get_output_embeddings()(states).argmax(-1).tolist()) == answer


def test_states_of_any_site_are_those_of_the_recorder() -> None:
    p, site = plant("gpt_neox"), Site(1)
    found = collect(p, PROMPTS, length, how=HOW, rewarded_by="length", site=site, batch_size=2)
    whole = [prompt + " " + words(*answer[:-1]) if len(answer) > 1 else prompt for prompt, answer in zip(
        PROMPTS, ids(p), strict=True)]  # fmt: skip
    for prompt, text, states in zip(PROMPTS, whole, split(found), strict=True):
        every = record(p, [text], sites=[site], position="all").at(site)
        torch.testing.assert_close(states, every[len(p._ids([prompt])[0]) - 1 :], atol=2e-4, rtol=2e-4)


def test_several_answers_and_their_rewards_stay_with_their_prompts() -> None:
    p = plant("llama")
    calls: list[tuple[list[str], list[str]]] = []

    def reward(prompts, answers) -> np.ndarray:  # noqa: ANN001
        calls.append((list(prompts), list(answers)))
        return np.arange(len(answers)) + 100 * len(calls)

    how = RolloutSampling(max_new_tokens=4, seed=1, samples=2)
    found = collect(p, PROMPTS, reward, how=how, rewarded_by="count", shard=4, batch_size=3)
    sampled = p.generate(PROMPTS, max_new_tokens=4, seed=1, samples=2)
    assert [prompt for prompts, _ in calls for prompt in prompts] == list(sampled.prompts)
    assert [answer for _, answers in calls for answer in answers] == list(sampled.texts)
    assert found.rewards.tolist() == [100, 101, 102, 103, 200, 201, 202, 203, 300, 301]
    assert found.lengths.tolist() == [len(answer) for answer in sampled.tokens]


def test_a_collection_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    p = plant("llama")
    options = {"how": HOW, "rewarded_by": "length", "shard": 2}
    whole = collect(p, PROMPTS, length, how=HOW, rewarded_by="length", shard=5)
    generate, batches = module.generate_batch, []

    def interrupted(*args):  # noqa: ANN002, ANN202
        batches.append(1)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return generate(*args)

    monkeypatch.setattr(module, "generate_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        collect(p, PROMPTS, length, tmp_path, **options)
    assert not p.wiring.active(), "nothing may stay attached"
    with pytest.raises(ContrastError, match="holds 1 of 3 shards"):
        collected(tmp_path)
    batches[:] = [1, 1]
    again = collect(p, PROMPTS, length, tmp_path, **options)
    assert len(batches) == 2 + 2, "the finished shard must not be made again"
    for kept in (again, Trajectories.open(tmp_path)):
        assert torch.equal(kept.lengths, whole.lengths) and torch.equal(kept.rewards, whole.rewards)
        for one, other in zip(split(kept), split(whole), strict=True):
            torch.testing.assert_close(one, other, atol=2e-5, rtol=2e-5)  # other batches round otherwise
    said, sampled = collected(tmp_path), p.generate(PROMPTS, max_new_tokens=6, seed=3)
    assert (said.prompts, said.answers, said.tokens) == (PROMPTS, list(sampled.texts), list(sampled.tokens))
    with pytest.raises(ContrastError, match=r"holds other trajectories \(rewarded_by, seed differ\)"):
        collect(p, PROMPTS, length, tmp_path, **{**options, "how": RolloutSampling(6, seed=4), "rewarded_by": "x"})
    with pytest.raises(ContrastError, match=r"\(law, plant, weights differ\)"):
        collect(plant("llama", seed=1), PROMPTS, length, tmp_path, law=pushing(plant("llama", seed=1)), **options)


def pushing(p: Plant, by: float = 3.0, layer: int = DEPTH - 1, point: str = "final_norm") -> DifferenceOfMeans:
    chance = torch.Generator().manual_seed(0)
    negative = torch.randn(8, WIDTH, generator=chance)
    header = LawHeader(
        layer=layer, point=point, scope="generated", plant=p.name, weight_hash=p.weight_hash, width=WIDTH, data_hash="",
        seed=0,
    )  # fmt: skip
    return DifferenceOfMeans(strength=by).fit(Contrast(negative + 1.0, negative, header))


def test_under_a_law_states_are_those_that_it_saw(tmp_path: Path) -> None:
    """The push at the final norm shifts logits and leaves the cache alone: the recorded states lack it."""
    p = plant("llama")
    law = pushing(p)
    push = law(torch.zeros(1, WIDTH))
    assert float(push.abs().max()) > 0.1
    found = collect(p, PROMPTS, length, tmp_path, how=HOW, rewarded_by="length", law=law)
    with p.under(law):
        tokens = ids(p)
    assert tokens != ids(p)
    assert found.lengths.tolist() == [len(answer) for answer in tokens]
    for prompt, answer, states in zip(PROMPTS, tokens, split(found), strict=True):
        asked = p._ids([prompt])[0]
        expected = p.forward(p._pad([asked + list(answer)]))[0, len(asked) - 1 : -1]
        torch.testing.assert_close(p.model.get_output_embeddings()(states), expected, atol=2e-4, rtol=2e-4)
    with pytest.raises(ContrastError, match=r"\(law differ\)"):
        collect(p, PROMPTS, length, tmp_path, how=HOW, rewarded_by="length", law=law.at(2.0))
    with pytest.raises(ContrastError, match=r"\(law differ\)"):
        collect(p, PROMPTS, length, tmp_path, how=HOW, rewarded_by="length")


def test_refusals(tmp_path: Path) -> None:
    p = plant("llama")

    def go(reward=length, **options):  # noqa: ANN001, ANN003, ANN202
        return collect(p, PROMPTS, reward, **{"how": HOW, "rewarded_by": "length", **options})

    with p.under(lambda state: state, layer=0), pytest.raises(PlantError, match=r"or collect\(..., law=law\)"):
        go()
    with pytest.raises(ContrastError, match=r"got shape \(4,\) for 5 answers"):
        go(lambda _, __: [1.0] * 4)
    with pytest.raises(ContrastError, match="reward: got nan for the answer ' w.*' to 'w60 w3'. Fix"):
        go(lambda _, __: [1.0, float("nan"), 1.0, 1.0, 1.0], folder=tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))
    with pytest.raises(PlantError, match="max_new_tokens: got 0"):
        go(how=RolloutSampling(max_new_tokens=0, seed=0))
    with pytest.raises(PlantError, match="shard: got 0, expected at least 1"):
        go(shard=0)
    with pytest.raises(SiteError, match="layer 9 is out of range"):
        go(site=Site(9))
    with pytest.raises(PlantError, match="texts: got an empty list"):
        collect(p, [], length, how=HOW, rewarded_by="length")
    with pytest.raises(PlantError, match="got 2 prompts and 1 continuations"):
        given(p, PROMPTS[:2], [" w3"], length, rewarded_by="length")
    with pytest.raises(PlantError, match="got 65 tokens with the prompt, but random-llama-0 reads 64"):
        given(p, ["w3"], [" w3" * 63], length, rewarded_by="length")
    p.model.generation_config.eos_token_id = None
    with pytest.raises(PlantError, match="has no token that ends an answer. Fix: ended=False"):
        given(p, ["w3"], [" w3"], length, rewarded_by="length")
    assert READ_OUT.resolve(DEPTH) == Site(DEPTH - 1, "final_norm") and not p.wiring.active()


@pytest.mark.parametrize("family", ["llama", "falcon", "gemma2", "opt"])
def test_answers_that_are_given_have_the_states_they_would_have_been_sampled_with(family: str, tmp_path: Path) -> None:
    p = plant(family)
    sampled = p.generate(PROMPTS, max_new_tokens=6, seed=3)
    kept = [i for i, tokens in enumerate(sampled.tokens) if tokens[-1] != 2]  # those that were cut off, not ended
    assert len(kept) >= 3
    prompts, answers = [PROMPTS[i] for i in kept], [sampled.texts[i] for i in kept]
    wanted = [split(collect(p, PROMPTS, length, how=HOW, rewarded_by="length"))[i] for i in kept]
    found = given(p, prompts, answers, length, tmp_path, rewarded_by="length", ended=False, batch_size=2, shard=2)
    assert found.rewards.tolist() == length(prompts, answers)
    for one, other in zip(split(found), wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=2e-4)
    assert collected(tmp_path).tokens == [sampled.tokens[i] for i in kept]
    whole = given(p, prompts, answers, length, rewarded_by="length")
    assert (whole.lengths - found.lengths).unique().tolist() == [1]
    for one, other in zip(split(whole), wanted, strict=True):
        torch.testing.assert_close(one[:-1], other, atol=2e-4, rtol=2e-4)
    with pytest.raises(ContrastError, match=r"\(ended differ\)"):
        given(p, prompts, answers, length, tmp_path, rewarded_by="length", shard=2)


def test_end_to_end_on_a_real_model(sample_models: Path, tmp_path: Path) -> None:
    """Stories are rewarded for being short of one letter; the folder is all that the fit sees."""
    p = Plant.load(str(sample_models / "stories260K"))
    prompts = ["Once upon a time", "Lily", "The dog", "One day, a cat"] * 6

    def rare(_prompts, answers) -> list[float]:  # noqa: ANN001
        return [-answer.count("a") / max(1, len(answer)) for answer in answers]

    collect(p, prompts, rare, tmp_path, how=RolloutSampling(12, seed=0), rewarded_by="no a", shard=10, batch_size=8)
    manifest = json.loads((tmp_path / "trajectories.json").read_text())
    assert manifest["count"] == 24 and manifest["about"]["weights"] == p.weight_hash
    found = fit_value(
        tmp_path, target="td0", hidden=32, how=Training(steps=20, batch=8, rate=1e-3, held_out=0.25, check=10), seed=0
    )
    assert found.network.width == p.width and len(found.history.looks) == 3
    assert found.history.looks[-1].error < found.history.looks[0].error
