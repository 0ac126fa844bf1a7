"""Products over prompts and seeds: known answers, agreement with the one-seed forms, known errors of the first kind."""

from __future__ import annotations

import numpy as np
import pytest

from steerlib.errors import MetricError
from steerlib.metrics import detectable_effect, grid_interval, paired_grid_difference, product_difference
from steerlib.metrics.products import product_detectable_effect, product_grid_difference, product_grid_interval


def drawn(rng, *, seeds=3, prompts=30, shift=0.0):
    prompt = rng.normal(0.5 + shift, 0.1, prompts)
    return tuple(prompt + rng.normal(0, 0.05, (seeds, prompts)) for _ in range(2))


def test_with_a_second_score_of_one_the_product_is_the_first():
    rng = np.random.default_rng(0)
    a, b, ones = drawn(rng)[0], drawn(rng, shift=0.1)[0], np.ones((3, 30))
    assert product_grid_interval(a, ones) == grid_interval(a)
    found, plain = product_grid_difference((a, ones), (b, ones)), paired_grid_difference(a, b)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((plain.value, plain.low, plain.high, plain.n))
    assert found.p == pytest.approx(plain.p, abs=0.03)
    one = (np.ones((3, 30)), np.ones((3, 30)))
    assert product_detectable_effect((a, ones), (b, ones)) == pytest.approx(detectable_effect((a - b).mean(0)))
    assert product_detectable_effect(one, one) == 0.0


def test_what_was_asked_before_changes_nothing():
    """Draws are shared by all pairs of one shape; each set of shape, seed and number has its own."""
    rng = np.random.default_rng(1)
    a, b, wide = drawn(rng), drawn(rng, shift=0.1), drawn(rng, prompts=31)
    asked = [{"seed": 0}, {"seed": 1}, {"resamples": 300}, {"seed": 1, "resamples": 300}]
    first = [product_grid_difference(a, b, **options) for options in asked]
    for _ in range(10):
        product_grid_interval(*wide, seed=int(rng.integers(9)))
    assert [product_grid_difference(a, b, **options) for options in reversed(asked)] == first[::-1]
    assert len({(d.low, d.p) for d in first}) == 4


def test_the_value_is_a_product_of_means_and_not_a_mean_of_products():
    first, second = np.array([[1.0, 0.0, 1.0, 0.0]]), np.array([[0.0, 1.0, 0.0, 1.0]])
    assert product_grid_interval(first, second).value == 0.25
    found = product_grid_difference((first, second), (np.zeros((1, 4)), np.ones((1, 4))))
    assert found.value == 0.25


def test_one_seed_agrees_with_the_form_for_one_seed():
    rng = np.random.default_rng(4)
    a, b = drawn(rng, seeds=1, prompts=200), drawn(rng, seeds=1, prompts=200, shift=0.05)
    found = product_grid_difference(a, b)
    plain = product_difference((a[0][0], a[1][0]), (b[0][0], b[1][0]))
    assert found.value == pytest.approx(plain.value)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.004)


def test_chance_is_found_as_often_as_the_level_says_and_an_effect_nearly_always():
    def share(shift):
        rng = np.random.default_rng(1)
        pairs = [(drawn(rng), drawn(rng, shift=shift)) for _ in range(200)]
        return np.mean([product_grid_difference(b, a, resamples=400).p <= 0.05 for a, b in pairs])

    assert 0.01 <= share(0.0) <= 0.09
    assert share(0.1) > 0.85


def test_the_effect_that_is_called_detectable_is_detected_with_that_power():
    rng = np.random.default_rng(2)
    sizes = [product_detectable_effect(drawn(rng), drawn(rng), power=0.8) for _ in range(40)]
    least = float(np.mean(sizes))  # of the product; a shift s of both scores moves it by about s
    found = [product_grid_difference(drawn(rng, shift=least), drawn(rng), resamples=400).p <= 0.05 for _ in range(200)]
    assert 0.68 <= np.mean(found) <= 0.92


def test_no_difference_has_no_p():
    a = drawn(np.random.default_rng(0))
    found = product_grid_difference(a, a)
    assert (found.value, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("treated", "control", "message"),
    [
        ((np.ones((2, 3)), np.ones((2, 4))), (np.ones((2, 3)), np.ones((2, 3))), r"got shapes \(2, 3\) and \(2, 4\)"),
        ((np.ones((2, 3)),) * 2, (np.ones((1, 3)),) * 2, r"got shapes \(2, 3\) and \(1, 3\)"),
        ((np.ones((2, 1)),) * 2, (np.ones((2, 1)),) * 2, "at least two prompts"),
        ((np.full((1, 2), np.nan),) * 2, (np.ones((1, 2)),) * 2, "is not finite"),
    ],
)
def test_what_does_not_belong_together_is_refused(treated, control, message):
    for test in (product_grid_difference, product_detectable_effect):
        with pytest.raises(MetricError, match=message):
            test(treated, control)
