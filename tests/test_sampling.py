"""Counter-based sampling: the right distribution, the same noise in any batch."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from steerlib.sampling import GumbelSampler, hash64, truncate, uniforms
from tests.families import plant, words


def test_hash_is_splitmix64() -> None:
    # The first outputs of the reference generator with seed 0: state k * golden through the finaliser.
    golden = -7046029254386353131
    states = torch.tensor([golden]) * torch.tensor([1, 2])  # wraps around, as the generator's state does
    got = [value % 2**64 for value in hash64(states).tolist()]
    assert got == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_uniforms_are_uniform_and_uncorrelated() -> None:
    draws = uniforms(3, torch.arange(200), 5, 500).double().numpy()
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-3
    rows = np.corrcoef(draws[:50])
    assert np.abs(rows[~np.eye(50, dtype=bool)]).max() < 0.25
    steps = uniforms(3, torch.arange(200), 6, 500).double().numpy()
    seeds = uniforms(4, torch.arange(200), 5, 500).double().numpy()
    for other in (steps, seeds):
        assert abs(np.corrcoef(draws.ravel(), other.ravel())[0, 1]) < 0.01


def test_samples_follow_the_softmax() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    rows = torch.arange(20_000)
    sampler = GumbelSampler(seed=1, rows=rows, temperature=0.7, prompt_columns=1)
    picked = sampler(torch.zeros(len(rows), 1, dtype=torch.long), scores.expand(len(rows), -1)).argmax(1)
    counts = np.bincount(picked.numpy(), minlength=4)
    expected = (scores[0] / 0.7).softmax(0).numpy() * len(rows)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


def test_truncation_keeps_what_it_says() -> None:
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    assert torch.isfinite(truncate(scores, top_k=2)).tolist() == [[True, True, False, False]]
    assert torch.isfinite(truncate(scores, top_p=0.75)).tolist() == [[True, True, False, False]]
    assert torch.isfinite(truncate(scores, top_p=0.85)).tolist() == [[True, True, True, False]]
    assert torch.isfinite(truncate(scores, top_p=1e-9)).tolist() == [[True, False, False, False]]


def test_an_answer_does_not_depend_on_its_batch() -> None:
    p = plant("llama")
    prompts = [words(5, 9, 30), words(7), words(40, 41, 42, 43, 44), words(8, 8)]
    together = p.generate(prompts, max_new_tokens=8, seed=11, batch_size=4)
    apart = p.generate(prompts, max_new_tokens=8, seed=11, batch_size=1)
    assert together.tokens == apart.tokens
    assert p.generate(prompts, max_new_tokens=8, seed=12).tokens != together.tokens
    assert len(set(p.generate([prompts[0]], max_new_tokens=8, seed=11, samples=5).tokens)) > 1


def test_the_global_generator_is_left_alone() -> None:
    p = plant("llama")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    p.generate([words(5, 9)], max_new_tokens=3, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_rows_and_steps_never_share_noise() -> None:
    seen = {}
    for seed in range(6):
        for step in range(6):
            for row, first in enumerate(uniforms(seed, torch.arange(6), step, 4).tolist()):
                seen.setdefault(tuple(first), []).append((seed, row, step))
    assert all(len(owners) == 1 for owners in seen.values()), "two coordinates share their noise"
    p = plant("llama")
    first = p.generate([words(5, 9)], max_new_tokens=6, seed=0, samples=4).tokens
    second = p.generate([words(5, 9)], max_new_tokens=6, seed=1, samples=4).tokens
    assert first[1:] != second[:3]


def test_uniforms_stay_inside_the_interval() -> None:
    top = torch.tensor([2**41 - 1, 0]) << 23  # the largest and the smallest hash
    largest, smallest = ((((top >> 41) & (2**23 - 1)).float() + 0.5) * 2.0**-23).tolist()
    assert largest == 1 - 2**-24 and smallest == 2**-24
    draws = uniforms(0, torch.arange(300), 33, 4000)
    assert float(draws.min()) > 0 and float(draws.max()) < 1
    assert torch.isfinite(torch.log(-torch.log(draws))).all()
