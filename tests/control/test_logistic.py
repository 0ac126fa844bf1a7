"""Logistic regression: the optimum itself, by its gradient and by another solver; bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import softplus

from steerlib.control import logistic
from steerlib.control.logistic import fit_logistic
from steerlib.errors import ContrastError


def classes(n: int, width: int, gap: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two classes with a common offset, coordinates of very different size, and unequal numbers."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(2 * n, width, generator=generator, dtype=torch.float64)
    states[:n] += gap / width**0.5
    states = states * torch.logspace(-1, 1, width, dtype=torch.float64) + 3
    return states[:n], states[n + n // 4 :]


def objective(positive: Tensor, negative: Tensor, weight: Tensor, bias: Tensor, c: float) -> Tensor:
    """The definition, written a second time."""
    losses = softplus(-(positive @ weight + bias)).sum() + softplus(negative @ weight + bias).sum()
    return c * losses + weight @ weight / 2


def slopes(positive: Tensor, negative: Tensor, weight: Tensor, bias: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """Gradient of the objective by autograd."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    return torch.autograd.grad(objective(positive, negative, weight, bias, c), (weight, bias))  # type: ignore[return-value]


class TestOptimum:
    """The objective is strictly convex: a zero gradient is the optimum."""

    @pytest.mark.parametrize(("n", "width", "gap"), [(200, 6, 1.0), (60, 20, 8.0), (12, 90, 1.0), (1, 5, 1.0)])
    @pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
    def test_the_gradient_vanishes(self, n: int, width: int, gap: float, c: float) -> None:
        positive, negative = classes(n, width, gap)
        fit = fit_logistic(positive, negative, c=c)
        by_weight, by_bias = slopes(positive, negative, fit.weight, fit.bias, c)
        scale = float(torch.cat([positive, negative]).norm()) * c
        assert by_weight.norm() < 1e-6 * scale and by_bias.abs() < 1e-6 * scale
        held = fit_logistic(positive, negative, c=c, bias=False)
        assert float(held.bias) == 0.0
        assert slopes(positive, negative, held.weight, held.bias, c)[0].norm() < 1e-6 * scale

    def test_another_solver_agrees(self) -> None:
        positive, negative = classes(80, 7, 1.5, seed=3)

        def loss(point: np.ndarray) -> float:
            at = torch.from_numpy(point)
            return float(objective(positive, negative, at[:-1], at[-1], 0.5))

        found = minimize(loss, np.zeros(8), method="Powell", options={"maxiter": 100_000, "xtol": 1e-10, "ftol": 1e-15})
        fit = fit_logistic(positive, negative, c=0.5)
        torch.testing.assert_close(fit.weight, torch.from_numpy(found.x[:-1]), rtol=1e-4, atol=1e-4)
        assert float(fit.bias) == pytest.approx(found.x[-1], rel=1e-4, abs=1e-4)

    def test_one_state_each_by_hand(self) -> None:
        """States +1 and -1: w solves w = 2 c / (1 + exp w), and the plane lies half way."""
        fit = fit_logistic(torch.tensor([[1.0]]), torch.tensor([[-1.0]]), c=0.7)
        w = float(fit.weight)
        assert w == pytest.approx(1.4 / (1 + np.exp(w)), rel=1e-9)
        assert abs(float(fit.bias)) < 1e-9

    def test_the_log_odds_of_gaussians(self) -> None:
        """With equal covariance the true log odds are linear: weight = covariance^-1 (difference of means)."""
        generator = torch.Generator().manual_seed(5)
        noise = torch.randn(2, 20_000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5])
        fit = fit_logistic(noise[0] + torch.tensor([1.0, 1.0, 0.0]), noise[1], c=1.0)
        torch.testing.assert_close(fit.weight, torch.tensor([1.0, 0.25, 0.0], dtype=torch.float64), atol=0.08, rtol=0)
        assert float(fit.probability(torch.tensor([0.5, 0.5, 0.0]))) == pytest.approx(0.5, abs=0.02)

    @settings(max_examples=15, deadline=None)
    @given(factor=st.floats(0.01, 100), c=st.floats(0.01, 10))
    def test_units_trade_against_the_penalty(self, factor: float, c: float) -> None:
        positive, negative = classes(30, 4, 1.0)
        scaled = fit_logistic(positive * factor, negative * factor, c=c).weight * factor
        torch.testing.assert_close(
            scaled, fit_logistic(positive, negative, c=c * factor**2).weight, rtol=1e-4, atol=1e-6
        )

    def test_fewer_examples_than_features_is_the_same_problem(self, monkeypatch: pytest.MonkeyPatch) -> None:
        positive, negative = classes(10, 64, 2.0)
        compact = fit_logistic(positive, negative)
        monkeypatch.setattr(logistic, "_compact", lambda columns, _width: (columns, None))
        torch.testing.assert_close(compact.weight, fit_logistic(positive, negative).weight, rtol=1e-5, atol=1e-8)

    def test_large_sets_take_the_float32_road_to_the_same_optimum(self, monkeypatch: pytest.MonkeyPatch) -> None:
        positive, negative = classes(300, 40, 2.0)
        positive[:, 7], negative[:, 7] = positive[:, 7] * 500, negative[:, 7] * 500
        plain = fit_logistic(positive, negative)
        monkeypatch.setattr(logistic, "_LARGE", 0)
        torch.testing.assert_close(fit_logistic(positive, negative).weight, plain.weight, rtol=1e-4, atol=1e-7)


class TestOptions:
    """Standardised features, and what a fit reports."""

    @pytest.mark.parametrize("bias", [True, False])
    def test_standardised_is_the_fit_of_standardised_states(self, bias: bool) -> None:
        positive, negative = classes(50, 5, 1.0)
        both = torch.cat([positive, negative])
        middle = both.mean(0) if bias else torch.zeros(5, dtype=torch.float64)
        unit = (both - middle).square().mean(0).sqrt()
        by_hand = fit_logistic((positive - middle) / unit, (negative - middle) / unit, bias=bias)
        fit = fit_logistic(positive, negative, standardise=True, bias=bias)
        torch.testing.assert_close(fit.weight, by_hand.weight / unit, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(fit.logit(both), by_hand.logit((both - middle) / unit), rtol=1e-5, atol=1e-6)

    def test_constant_coordinates_get_no_weight(self) -> None:
        positive, negative = classes(20, 3, 1.0)
        positive[:, 1], negative[:, 1] = 1000.1, 1000.1
        fit = fit_logistic(positive, negative, standardise=True)
        assert float(fit.weight[1]) == 0.0 and torch.isfinite(fit.weight).all() and fit.weight[0] != 0

    def test_separable_classes_are_finite_and_reported(self) -> None:
        positive, negative = classes(40, 6, 60.0)
        fit = fit_logistic(positive, negative)
        assert fit.separates and torch.isfinite(fit.weight).all()
        assert fit_logistic(positive, negative, c=100.0).weight.norm() > fit.weight.norm()
        assert not fit_logistic(*classes(40, 6, 0.5)).separates

    def test_equal_classes_have_weight_zero(self) -> None:
        same = torch.ones(5, 3)
        fit = fit_logistic(same, same)
        assert float(fit.weight.norm()) == 0.0 and not fit.separates

    def test_logits_have_the_shape_of_the_batch(self) -> None:
        positive, negative = classes(20, 3, 1.0)
        fit = fit_logistic(positive, negative)
        assert fit.probability(torch.zeros(2, 4, 3)).shape == (2, 4)
        assert fit.probability(positive).mean() > fit.probability(negative).mean()


class TestBadInput:
    """Each with its message."""

    def test_refused(self) -> None:
        good = torch.ones(2, 3)
        broken = good.clone()
        broken[1, 0] = torch.nan
        for positive, negative, c, message in (
            (good[:0], good, 1.0, r"positive states: got shape \(0, 3\)"),
            (good, good[0], 1.0, r"negative states: got shape \(3,\)"),
            (good, broken, 1.0, "negative states: got some that are not finite"),
            (good, good[:, :2], 1.0, "got widths 3 and 2"),
            (good, good, 0.0, "c: got 0.0, expected a positive number"),
            (good, good, float("nan"), "c: got nan"),
        ):
            with pytest.raises(ContrastError, match=message):
                fit_logistic(positive, negative, c=c)

    def test_a_fit_that_does_not_converge_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(logistic, "_STEPS", 1)
        with pytest.raises(ContrastError, match="after 1 steps"):
            fit_logistic(*classes(20, 3, 1.0))
