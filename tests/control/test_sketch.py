"""Sketches: unbiased with the variance that theory gives; gradients; the quadratic form; the same as scikit-learn's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steerlib.control.sketch import FourierFeatures, PolynomialSketch, median_bandwidth
from steerlib.errors import LawError

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "barriers.json").read_text())


def states(n: int, width: int, *, seed: int = 0) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(sketch: PolynomialSketch, x: Tensor) -> Tensor:
    """The sketch of one state by loops: every tuple of coordinates to its bucket."""
    e = torch.cat([sketch.gamma**0.5 * x, torch.tensor([sketch.c0**0.5], dtype=torch.float64)])
    out = torch.zeros(sketch.dimension, dtype=torch.float64)
    for index in np.ndindex(*[len(e)] * sketch.degree):
        bucket = sum(int(sketch.buckets[k, i]) for k, i in enumerate(index)) % sketch.dimension
        sign = np.prod([int(sketch.signs[k, i]) for k, i in enumerate(index)])
        out[bucket] += sign * torch.prod(e[list(index)])
    return out


class TestFeatures:
    """What a sketch is."""

    @pytest.mark.parametrize("degree", [1, 2, 3])
    @pytest.mark.parametrize("dimension", [40, 41])
    def test_it_is_what_the_definition_says(self, degree: int, dimension: int) -> None:
        sketch = PolynomialSketch.draw(4, dimension=dimension, degree=degree, gamma=0.6, c0=0.4, seed=2)
        x = states(2, 4)
        expected = torch.stack([by_definition(sketch, row) for row in x])
        torch.testing.assert_close(sketch.features(x), expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize(("degree", "dimension"), [(1, 12), (2, 12), (2, 15), (3, 28)])
    def test_inner_products_are_the_kernel_with_the_known_variance(self, degree: int, dimension: int) -> None:
        x, y = 0.6 * states(2, 6, seed=3)
        found = []
        for seed in range(3000):
            sketch = PolynomialSketch.draw(6, dimension=dimension, degree=degree, gamma=0.5, c0=0.7, seed=seed)
            found.append(float(sketch.features(x) @ sketch.features(y)))
        drawn = np.array(found)
        expected, variance = float(sketch.kernel(x, y)), float(sketch.variance(x, y))
        error = np.sqrt(variance / len(drawn))
        assert abs(drawn.mean() - expected) < 4 * error
        spread = np.sqrt(((drawn - drawn.mean()) ** 2).var() / len(drawn))
        assert abs(drawn.var() - variance) < 4 * spread
        assert variance > 0.1 * expected**2, "or the test could not tell"

    def test_the_variance_of_a_count_sketch_by_hand(self) -> None:
        """x = y = (1, 0) with c0 = 0: nothing collides with itself, so the square of its length is exact."""
        sketch = PolynomialSketch.draw(2, dimension=9, degree=2, gamma=1.0, c0=0.0)
        one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])
        assert float(sketch.variance(one, one)) == 0.0
        # q = 0.6, N = 1 - 0.36, M = 0: (2 q^2 N + N^2) / D.
        expected = (2 * 0.36 * 0.64 + 0.64**2) / 9
        assert float(sketch.variance(one, other)) == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize(("degree", "dimension"), [(1, 30), (2, 30), (2, 31), (3, 64)])
    def test_the_table_of_frequencies_is_the_same_up_to_a_rotation(self, degree: int, dimension: int) -> None:
        sketch, x = PolynomialSketch.draw(5, dimension=dimension, degree=degree), states(300, 5)
        table, plain = sketch.table(x), sketch.features(x)
        torch.testing.assert_close(table @ table.T, plain @ plain.T, rtol=1e-11, atol=1e-11)
        weight = states(1, table.shape[1], seed=1)[0]
        torch.testing.assert_close(table @ weight, plain @ sketch.weight_of(weight), rtol=1e-11, atol=1e-11)

    def test_seeds_decide(self) -> None:
        first, same, other = (PolynomialSketch.draw(5, dimension=50, seed=seed) for seed in (1, 1, 2))
        x = states(1, 5)
        assert torch.equal(first.features(x), same.features(x))
        assert not torch.equal(first.features(x), other.features(x))


class TestSlopes:
    """Derivatives in closed form, without autograd."""

    @pytest.mark.parametrize(("degree", "dimension"), [(1, 60), (2, 60), (2, 61), (3, 60)])
    def test_the_gradient_is_that_of_autograd_and_of_differences(self, degree: int, dimension: int) -> None:
        sketch = PolynomialSketch.draw(6, dimension=dimension, degree=degree, gamma=0.8, c0=0.5)
        x, weight = states(3, 6), states(1, dimension, seed=1)[0]
        found = sketch.gradient(x, weight)
        free = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(sketch.logit(free, weight).sum(), free)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
        for i in range(6):
            step = 1e-5 * torch.eye(6, dtype=torch.float64)[i]
            slope = (sketch.logit(x + step, weight) - sketch.logit(x - step, weight)) / 2e-5
            torch.testing.assert_close(found[:, i], slope, rtol=1e-7, atol=1e-7)

    @settings(max_examples=20, deadline=None)
    @given(st.integers(1, 3), st.integers(27, 50), st.integers(0, 100))
    def test_a_pushed_tangent_agrees_with_the_gradient(self, degree: int, dimension: int, seed: int) -> None:
        sketch = PolynomialSketch.draw(5, dimension=dimension, degree=degree, seed=seed)
        x, tangent = states(2, 5, seed=seed), states(2, 5, seed=seed + 1)
        weight = states(1, dimension, seed=seed + 2)[0]
        along = (sketch.gradient(x, weight) * tangent).sum(1)
        torch.testing.assert_close(sketch.pushed(x, tangent) @ weight, along, rtol=1e-10, atol=1e-10)

    def test_it_runs_under_inference_mode_and_in_batches_of_any_shape(self) -> None:
        sketch, weight = PolynomialSketch.draw(5, dimension=40), states(1, 40)[0]
        x = states(6, 5).reshape(2, 3, 5)
        with torch.inference_mode():
            found = sketch.gradient(x, weight)
        torch.testing.assert_close(found[1, 2], sketch.gradient(x[1, 2], weight))

    @pytest.mark.parametrize("degree", [1, 2])
    @pytest.mark.parametrize("dimension", [40, 41])
    def test_up_to_degree_two_it_is_a_quadratic_form(self, degree: int, dimension: int) -> None:
        sketch = PolynomialSketch.draw(7, dimension=dimension, degree=degree, gamma=0.3, c0=2.0)
        x, weight = states(5, 7), states(1, dimension, seed=1)[0]
        matrix, linear, constant = sketch.quadratic(weight)
        assert torch.equal(matrix, matrix.T)
        form = ((x @ matrix) * x).sum(1) + x @ linear + constant
        torch.testing.assert_close(form, sketch.logit(x, weight), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(2 * x @ matrix + linear, sketch.gradient(x, weight), rtol=1e-12, atol=1e-12)

    def test_beyond_it_is_none(self) -> None:
        with pytest.raises(LawError, match="degree 3.*route='sketch'"):
            PolynomialSketch.draw(4, dimension=30, degree=3).quadratic(torch.zeros(30))


class TestFourier:
    """Random Fourier features."""

    def test_inner_products_are_the_gaussian_kernel(self) -> None:
        x, y = states(2, 4, seed=1)
        drawn = FourierFeatures.draw(4, dimension=200_000, sigma=1.7)
        expected = torch.exp(-(x - y).square().sum() / (2 * 1.7**2))
        # Each of the features adds a variable of variance at most 1 / 2 + 1 / 2.
        assert abs(float(drawn.features(x) @ drawn.features(y) - expected)) < 4 / 200_000**0.5

    def test_the_gradient_is_that_of_autograd(self) -> None:
        drawn, weight = FourierFeatures.draw(4, dimension=30, sigma=0.8), states(1, 30)[0]
        x = states(3, 4).requires_grad_()
        (expected,) = torch.autograd.grad(drawn.logit(x, weight).sum(), x)
        torch.testing.assert_close(drawn.gradient(x.detach(), weight), expected, rtol=1e-12, atol=1e-12)

    def test_the_bandwidth_is_the_median_distance_over_root_two(self) -> None:
        rows = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
        assert median_bandwidth(rows) == pytest.approx(4 / 2**0.5)
        with pytest.raises(LawError, match="all the same"):
            median_bandwidth(torch.ones(4, 2))


class TestReference:
    """What scikit-learn computes with the same hashes (tests/control/fixtures/barriers.py)."""

    @pytest.mark.parametrize("case", FIXTURE["sketches"], ids=lambda case: f"degree{case['degree']}-c0-{case['c0']}")
    def test_features_are_those_of_scikit_learn(self, case: dict) -> None:
        x = np.random.default_rng(FIXTURE["seed"]).standard_normal((case["rows"], case["width"]))
        assert hashlib.sha256(x.tobytes()).hexdigest() == case["inputs_sha256"]
        buckets, signs = torch.tensor(case["buckets"]), torch.tensor(case["signs"], dtype=torch.int8)
        sketch = PolynomialSketch(buckets, signs, case["dimension"], case["gamma"], case["c0"])
        found = sketch.features(torch.from_numpy(x))
        expected = torch.tensor(case["features"], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


class TestBadInput:
    """Errors say what was got and what to do."""

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"dimension": 8}, "dimension 8, expected at least 3\\^degree = 9"),
            ({"dimension": 26, "degree": 3}, "at least 3\\^degree = 27"),
            ({"degree": 0}, "degree=0"),
            ({"gamma": 0.0}, "gamma=0.0, expected a positive"),
            ({"c0": -1.0}, "c0=-1.0, expected a non-negative"),
            ({"gamma": float("nan")}, "gamma=nan"),
        ],
    )
    def test_numbers_without_a_meaning_are_refused(self, given: dict, told: str) -> None:
        with pytest.raises(LawError, match=told):
            PolynomialSketch.draw(4, **given)

    def test_another_width_is_refused(self) -> None:
        with pytest.raises(LawError, match="width 4, got states of width 5"):
            PolynomialSketch.draw(4, dimension=20).features(torch.zeros(2, 5))

    def test_fourier_features_need_positive_numbers(self) -> None:
        with pytest.raises(LawError, match="sigma=0"):
            FourierFeatures.draw(4, sigma=0.0)
