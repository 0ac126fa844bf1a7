"""Scores of a plant, combined and compared."""

from __future__ import annotations

import numpy as np
import pytest

from steerlib.errors import MetricError
from steerlib.metrics import product_difference
from steerlib.tasks import Scores


def _scores(wanted: float, intact: float, seed: int, n: int = 400) -> Scores:
    rng = np.random.default_rng(seed)
    return Scores(rng.binomial(1, wanted, n).astype(float), rng.binomial(1, intact, n).astype(float))


def test_gain_is_the_difference_of_products_and_has_the_delta_method_interval() -> None:
    a, b = _scores(0.6, 0.9, 0), _scores(0.4, 0.8, 1)
    got = a.combined_gain(b)
    m = [x.mean() for x in (a.wanted, a.intact, b.wanted, b.intact)]
    assert got.value == pytest.approx(m[0] * m[1] - m[2] * m[3])
    assert got.value == pytest.approx(a.combined_mean - b.combined_mean)
    gradient = np.array([m[1], m[0], -m[3], -m[2]])
    spread = np.cov(np.stack([a.wanted, a.intact, b.wanted, b.intact]))
    half = 1.96 * np.sqrt(gradient @ spread @ gradient / 400)
    assert (got.high - got.low) / 2 == pytest.approx(half, rel=0.1)
    assert got.low < got.value < got.high


def test_pairing_counts() -> None:
    a = _scores(0.5, 0.9, 2)
    better = Scores(np.minimum(a.wanted + 0.1, 1.1), a.intact)
    paired = better.combined_gain(a)
    shuffled = Scores(better.wanted[::-1].copy(), better.intact[::-1].copy()).combined_gain(a)
    assert paired.value == pytest.approx(shuffled.value)
    assert paired.high - paired.low < 0.3 * (shuffled.high - shuffled.low)


def test_no_change_is_exactly_zero() -> None:
    a = _scores(0.5, 0.9, 3)
    assert (a.combined_gain(a).low, a.combined_gain(a).high) == (0.0, 0.0)


def test_lengths_must_agree() -> None:
    with pytest.raises(MetricError, match="as many of each"):
        product_difference((np.ones(3), np.ones(3)), (np.ones(2), np.ones(2)))
