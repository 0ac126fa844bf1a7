"""Repetition and variety, against counting by hand and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlib.errors import MetricError
from steerlib.metrics import dist_n, diversity, diversity_each, repetition, spaced_lower, words

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "the", "cat"]), max_size=12).map(" ".join)


def test_words_are_cut_as_english_is() -> None:
    assert words("It's a well-kept inn, isn't it?") == ["It's", "a", "well-kept", "inn", ",", "isn't", "it", "?"]
    assert words("") == []


def test_rep_n_has_one_more_in_its_denominator_than_there_are_ngrams() -> None:
    # a b a b: pairs ab, ba, ab; two distinct of three, so 1 - 2 / 4.
    assert repetition("a b a b", 2) == pytest.approx(0.5)
    assert repetition("a b c d e", 2) == pytest.approx(1 - 4 / 5)
    assert repetition("a", 2) == 1.0
    assert repetition("", 4) == 1.0


def test_diversity_is_the_product_over_two_to_four() -> None:
    # a b c d e: pairs 4 of 5, triples 3 of 4, fours 2 of 3.
    assert diversity(["a b c d e"]) == pytest.approx(4 / 5 * 3 / 4 * 2 / 3)
    assert diversity(["a b c d e", ""]) == pytest.approx(4 / 5 * 3 / 4 * 2 / 3 / 2), "an empty text counts as 0"
    assert list(diversity_each(["a b c", "x " * 50])) == pytest.approx([0.0, 1 / 50 * 1 / 49 * 1 / 48])
    with pytest.raises(MetricError, match="got no text"):
        diversity([])


@given(TEXTS)
def test_diversity_against_brute_force(text: str) -> None:
    tokens, expected = text.split(), 1.0
    for n in (2, 3, 4):
        grams = [tuple(tokens[i : i + n]) for i in range(len(tokens)) if i + n <= len(tokens)]
        expected *= len(set(grams)) / (len(grams) + 1)
    assert diversity([text]) == pytest.approx(expected)


def test_dist_n_over_outputs_and_pooled_differ_where_outputs_repeat_each_other() -> None:
    texts = ["the cat sat", "the cat sat"]
    assert dist_n(texts, 1) == 1.0
    assert dist_n(texts, 1, pooled=True) == pytest.approx(0.5)
    assert dist_n(["The the", "x"], 1, tokenize=spaced_lower) == pytest.approx((0.5 + 1) / 2)


def test_silence_earns_no_dist_n() -> None:
    assert dist_n(["", "", "a b c"], 1) == pytest.approx(1 / 3)
    assert dist_n(["a b", "c"], 2) == 0.5, "a text of one word has no pair"
    assert dist_n(["", " "], 1) == dist_n(["a b"], 3) == 0.0
    assert dist_n(["", "", "a b c"], 1, pooled=True) == 1.0, "pooled as A-LQR does, an empty output adds nothing"
    with pytest.raises(MetricError, match=r"no text of 3 words or more.*Fix: average over texts"):
        dist_n(["a b", ""], 3, pooled=True)
    for pooled in (False, True):
        with pytest.raises(MetricError, match="got no text"):
            dist_n([], 1, pooled=pooled)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.integers(1, 3))
def test_dist_n_against_brute_force(texts: list[str], n: int) -> None:
    rows = [[tuple(t.split()[i : i + n]) for i in range(len(t.split()) - n + 1)] for t in texts]
    assert dist_n(texts, n) == pytest.approx(sum(len(set(r)) / max(len(r), 1) for r in rows) / len(texts))
    assert dist_n([*texts, ""], n) == pytest.approx(dist_n(texts, n) * len(texts) / (len(texts) + 1))
    grams = list(itertools.chain.from_iterable(rows))
    if grams:
        assert dist_n(texts, n, pooled=True) == pytest.approx(len(set(grams)) / len(grams))


def test_ngrams_need_a_length() -> None:
    with pytest.raises(MetricError, match="got n = 0, expected at least 1"):
        dist_n(["a b"], 0)


def test_a_long_list_is_scored_at_once() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in rng.integers(50, size=60)) for _ in range(50)]
    assert len(diversity_each(texts)) == 50
