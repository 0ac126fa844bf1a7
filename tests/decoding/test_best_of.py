"""Best of n: the samples, and the curve from one pool against all subsets."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlib.decoding import BestOf, DecodingError, best_of_divergence, expected_best, pool_rewards
from tests.decoding.toys import PROMPTS, toy, word_rewards

HOW = {"max_new_tokens": 4, "seed": 3}


def test_the_best_of_the_plants_samples_is_kept() -> None:
    p = toy()
    pool = p.generate(PROMPTS, samples=4, **HOW)
    earned = np.array(word_rewards(pool.prompts, pool.texts)).reshape(4, 4)
    out = BestOf(word_rewards, n=2).generate(p, PROMPTS, samples=2, **HOW)
    # Two answers for each prompt, each the best of two of the four samples.
    best = [4 * i + 2 * j + int(earned[i, 2 * j : 2 * j + 2].argmax()) for i in range(4) for j in range(2)]
    assert out.texts == tuple(pool.texts[place] for place in best)
    assert out.tokens == tuple(pool.tokens[place] for place in best)
    assert out.rewards == pytest.approx([earned.flat[place] for place in best])
    assert out.prompts == tuple(q for q in PROMPTS for _ in range(2))
    assert (out.cost.reward_calls, out.cost.rewards) == (1, 16)
    assert out.cost.answer_tokens == sum(map(len, out.tokens))


def test_samples_of_a_prompt_go_in_one_batch() -> None:
    p = toy()
    one = BestOf(word_rewards, n=3).generate(p, PROMPTS[:1], batch_size=1, **HOW)
    assert one.cost.passes == 4 and one.cost.positions == 3 * 3 + 3 * 3


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=7), st.integers(1, 7))
def test_expected_best_is_the_mean_over_all_subsets(pool: list[int], n: int) -> None:
    n = min(n, len(pool))
    subsets = [max(some) for some in combinations(pool, n)]
    assert expected_best(np.array(pool), n) == pytest.approx(sum(subsets) / len(subsets), abs=1e-12)


def test_expected_best_goes_from_the_mean_to_the_highest() -> None:
    pools = np.random.default_rng(0).normal(size=(3, 500))
    np.testing.assert_allclose(expected_best(pools, 1), pools.mean(1), atol=1e-12)
    np.testing.assert_allclose(expected_best(pools, 500), pools.max(1), atol=1e-12)
    curve = np.stack([expected_best(pools, n) for n in range(1, 501)])
    assert (np.diff(curve, axis=0) > 0).all()
    # The highest of two standard normal numbers is 1/sqrt(pi) on average.
    many = np.random.default_rng(1).normal(size=20_000)
    assert float(expected_best(many, 2)) == pytest.approx(1 / math.sqrt(math.pi), abs=0.03)


def test_a_pool_has_the_plants_samples() -> None:
    p = toy()
    rewards, cost = pool_rewards(p, PROMPTS, word_rewards, size=3, max_new_tokens=4, seed=3)
    out = p.generate(PROMPTS, samples=3, **HOW)
    np.testing.assert_allclose(rewards, np.array(word_rewards(out.prompts, out.texts)).reshape(4, 3), rtol=1e-6)
    assert cost.rewards == 12 and cost.passes > 0 and cost.answer_tokens == sum(map(len, out.tokens))


def test_the_bound_on_the_divergence() -> None:
    assert best_of_divergence(1) == 0
    # A plant of very many equally likely answers: the best of n has the density n u^(n-1) over ranks u.
    u = (np.arange(200_000) + 0.5) / 200_000
    density = 4 * u**3
    assert best_of_divergence(4) == pytest.approx(float((density * np.log(density)).mean()), abs=1e-4)


def test_bad_pools_are_refused() -> None:
    for pool, n, message in (
        ([1.0, 2.0], 3, "n=3 from a pool of 2"),
        ([1.0], 0, "n=0"),
        ([1.0, np.nan], 1, "1 rewards that are no finite"),
    ):
        with pytest.raises(DecodingError, match=message):
            expected_best(np.array(pool), n)
    with pytest.raises(DecodingError, match="expected at least one sample at a positive one"):
        pool_rewards(toy(), PROMPTS, word_rewards, size=2, temperature=0.0, max_new_tokens=2, seed=0)
    with pytest.raises(DecodingError, match="n: got 0"):
        best_of_divergence(0)
