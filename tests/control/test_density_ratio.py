"""Density ratios: Gaussians with a known answer, the kernel that a sketch approximates, what is refused."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from steerlib.control.barrier import AffineForm, QuadraticForm, SketchForm, gradient, value
from steerlib.control.density_ratio import Features, Kind, auc, fit_ratio
from steerlib.control.logistic import fit_logistic
from steerlib.errors import ContrastError, LawError

KINDS = get_args(Kind)
WIDTH = 4
SMALL = Features(dimension=300, hidden=16, updates=200)


def gaussians(seed: int = 0) -> tuple[MultivariateNormal, MultivariateNormal]:
    """Two with different means and covariances."""
    drawn = torch.randn(2, WIDTH, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one, two = (0.3 * part @ part.T + torch.eye(WIDTH, dtype=torch.float64) for part in drawn)
    mean = torch.tensor([0.8, -0.4, 0.0, 0.2], dtype=torch.float64)
    return MultivariateNormal(mean, one), MultivariateNormal(-mean, two)


def sampled(n: int, m: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return tuple(one.sample((count,)) for one, count in zip(gaussians(), (n, m), strict=True))  # type: ignore[return-value]


class TestGaussians:
    """The log ratio is known."""

    def test_of_own_covariances_it_is_found(self) -> None:
        pos, neg = sampled(40_000, 60_000)
        h = fit_ratio(pos, neg, "gaussian", features=Features(unit=False, reg=1e-9)).barrier
        states = 1.5 * torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        one, two = gaussians()
        exact = one.log_prob(states) - two.log_prob(states)
        assert (value(h, states) - exact).abs().max() < 0.15
        assert exact.std() > 1.0

    def test_it_is_the_ratio_of_the_fitted_densities_exactly(self) -> None:
        pos, neg = sampled(30, 50)
        h = fit_ratio(pos, neg, "gaussian", features=Features(unit=False, reg=0.0 + 1e-12)).barrier
        fitted = [MultivariateNormal(rows.mean(0), rows.T.cov()) for rows in (pos, neg)]
        states = pos[:5] + neg[:5]
        torch.testing.assert_close(
            value(h, states), fitted[0].log_prob(states) - fitted[1].log_prob(states), rtol=1e-7, atol=1e-7
        )

    def test_of_one_covariance_it_is_linear_and_that_of_logistic_regression(self) -> None:
        generator = torch.Generator().manual_seed(2)
        noise = torch.randn(2, 30_000, WIDTH, generator=generator, dtype=torch.float64) * torch.tensor([1, 2, 0.5, 1])
        pos, neg = noise[0] + 0.4, noise[1, :15_000] - 0.1
        how = Features(unit=False, reg=1e-9)
        shared = fit_ratio(pos, neg, "shared", features=how).barrier
        learned = fit_ratio(pos, neg, "linear", features=how).barrier
        assert isinstance(shared, AffineForm) and isinstance(learned, AffineForm)
        exact = 0.5 / torch.tensor([1, 4, 0.25, 1], dtype=torch.float64)
        torch.testing.assert_close(shared.weight, exact, rtol=0, atol=0.06)
        torch.testing.assert_close(learned.weight, shared.weight, rtol=0, atol=0.03)
        # Twice as many positives do not move the ratio of densities: log(N- / N+) takes them out.
        torch.testing.assert_close(learned.constant, shared.constant, rtol=0, atol=0.03)

    def test_of_identity_covariances_the_gradient_is_the_difference_of_means(self) -> None:
        pos, neg = sampled(20, 25)
        h = fit_ratio(pos, neg, "means", features=Features(unit=False)).barrier
        assert isinstance(h, AffineForm)
        torch.testing.assert_close(h.weight, pos.mean(0) - neg.mean(0))
        middle = (pos.mean(0) + neg.mean(0)) / 2
        assert float(value(h, middle).abs()) < 1e-12

    def test_a_network_and_fourier_features_come_near(self) -> None:
        pos, neg = sampled(2000, 2000, seed=3)
        one, two = gaussians()
        test = torch.cat(sampled(500, 500, seed=4))
        exact = one.log_prob(test) - two.log_prob(test)
        for kind in ("neural", "fourier"):
            how = Features(unit=False, dimension=300, updates=400)
            h = fit_ratio(pos, neg, kind, features=how, c=10.0).barrier
            found = value(h, test.to(h.constant)).double()
            assert torch.corrcoef(torch.stack([found, exact]))[0, 1] > 0.9, kind


class TestLogistic:
    """Features, prior, penalty."""

    @pytest.mark.parametrize("unit", [True, False])
    def test_of_a_sketch_it_is_that_of_the_other_solver_on_its_features(self, unit: bool) -> None:
        pos, neg = sampled(50, 70)
        ratio = fit_ratio(pos, neg, "sketch", features=Features(unit=unit, dimension=200, gamma=0.5))
        h = ratio.barrier
        assert isinstance(h, SketchForm)
        rows = [torch.nn.functional.normalize(part, dim=1) if unit else part for part in (pos, neg)]
        fit = fit_logistic(*(h.sketch.features(part) for part in rows))
        torch.testing.assert_close(h.weight, fit.weight, rtol=1e-5, atol=1e-6)
        assert float(h.constant) == pytest.approx(float(fit.bias) + math.log(70 / 50), abs=1e-5)
        torch.testing.assert_close(value(h, pos), fit.logit(h.sketch.features(rows[0])) + math.log(70 / 50))

    def test_the_kernel_is_what_ever_larger_sketches_approach(self) -> None:
        pos, neg = sampled(60, 60)
        how = {"gamma": 1.0, "c0": 0.5}
        exact = fit_ratio(pos, neg, "kernel", features=Features(**how)).barrier
        at = value(exact, neg)

        def off(size: int) -> Tensor:
            """Root mean square of the difference over states and seeds."""
            hows = [Features(dimension=size, seed=seed, **how) for seed in range(4)]
            found = [value(fit_ratio(pos, neg, "sketch", features=one).barrier, neg) for one in hows]
            return (torch.stack(found) - at).square().mean().sqrt()

        errors = off(64), off(4096)
        # Noise falls with the root of the dimension: by 8 from one to the other.
        assert errors[1] < errors[0] / 3 and errors[1] < 0.1 * at.std()

    @pytest.mark.parametrize("degree", [1, 2])
    def test_the_kernel_is_logistic_regression_on_the_monomials(self, degree: int) -> None:
        """The feature map of (gamma x.y + c0)^p, written out."""
        pos, neg = sampled(25, 35)
        how = Features(unit=False, degree=degree, gamma=0.3, c0=0.8)
        h = fit_ratio(pos, neg, "kernel", features=how).barrier
        assert isinstance(h, QuadraticForm)

        def monomials(x: Tensor) -> Tensor:
            e = torch.cat([0.3**0.5 * x, torch.full((len(x), 1), 0.8**0.5, dtype=x.dtype)], 1)
            return e if degree == 1 else (e[:, :, None] * e[:, None, :]).flatten(1)

        fit = fit_logistic(monomials(pos), monomials(neg))
        expected = fit.logit(monomials(neg)) + math.log(35 / 25)
        torch.testing.assert_close(value(h, neg), expected, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_rises_along_its_gradient_and_tells_the_classes_apart(self, kind: Kind) -> None:
        pos, neg = sampled(150, 180)
        h = fit_ratio(pos, neg, kind, features=SMALL).barrier
        like = h.constant
        pos, neg = pos.to(like), neg.to(like)
        assert auc(value(h, pos), value(h, neg)) > 0.7
        up = neg + 1e-4 * gradient(h, neg)
        assert (value(h, up) >= value(h, neg)).double().mean() > 0.98

    def test_separable_classes_are_regularised_and_told(self) -> None:
        pos, neg = sampled(30, 30)
        for kind in ("sketch", "kernel", "linear", "fourier", "means"):
            apart = fit_ratio(pos + 40, neg - 40, kind, features=SMALL)
            assert apart.separates, kind
            assert torch.isfinite(value(apart.barrier, neg)).all()
            assert not fit_ratio(pos, neg, kind, features=SMALL).separates

    def test_more_examples_of_one_class_change_the_ratio_by_little(self) -> None:
        pos, neg = sampled(3000, 3000, seed=5)
        how = Features(unit=False, dimension=100)
        whole = fit_ratio(pos, neg, "linear", features=how).barrier
        fewer = fit_ratio(pos[:600], neg, "linear", features=how).barrier
        assert abs(float(value(whole, neg).mean() - value(fewer, neg).mean())) < 0.2 < math.log(5)

    def test_single_precision_takes_the_same_way(self) -> None:
        pos, neg = sampled(80, 80)
        exact = fit_ratio(pos, neg, "sketch", features=SMALL).barrier
        found = fit_ratio(pos.half(), neg.half(), "sketch", features=SMALL).barrier
        near = torch.nn.functional.cosine_similarity(gradient(exact, neg), gradient(found, neg))
        assert near.min() > 0.99


class TestBadInput:
    """Clear errors."""

    def test_too_few_examples(self) -> None:
        pos, neg = sampled(1, 20)
        for kind in KINDS:
            with pytest.raises(ContrastError, match=r"positive states.*\(1, 4\).*at least two"):
                fit_ratio(pos, neg, kind, features=SMALL)
        with pytest.raises(ContrastError, match="no inverse.*positive reg"):
            fit_ratio(*sampled(3, 20), "gaussian", features=Features(reg=0.0))

    def test_a_state_of_norm_zero(self) -> None:
        pos, neg = sampled(20, 20)
        neg[7] = 0
        with pytest.raises(ContrastError, match="negative state 7 has norm zero.*unit=False"):
            fit_ratio(pos, neg, "sketch", features=SMALL)
        fit_ratio(pos, neg, "linear", features=Features(unit=False))

    def test_states_that_are_not_finite_or_of_two_widths(self) -> None:
        pos, neg = sampled(20, 20)
        with pytest.raises(ContrastError, match="widths 4 and 3"):
            fit_ratio(pos, neg[:, :3], "linear")
        pos[1, 1] = torch.inf
        with pytest.raises(ContrastError, match="not finite"):
            fit_ratio(pos, neg, "linear")

    def test_options_without_a_meaning(self) -> None:
        pos, neg = sampled(20, 20)
        with pytest.raises(LawError, match="'polynomial', expected one of sketch"):
            fit_ratio(pos, neg, "polynomial")  # type: ignore[arg-type]
        with pytest.raises(LawError, match="dimension 4, expected at least"):
            fit_ratio(pos, neg, "sketch", features=Features(dimension=4))
        with pytest.raises(LawError, match="degree 3, expected 1 or 2"):
            fit_ratio(pos, neg, "kernel", features=Features(degree=3))
        with pytest.raises(ContrastError, match="all the same"):
            fit_ratio(torch.ones(5, 3), torch.ones(5, 3), "gaussian")


def test_auc_counts_ties_as_half() -> None:
    assert auc(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])) == pytest.approx((2 + 1.5) / 4)
