"""Static RE: the regression by other means, its penalty, the refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import lstsq
from torch import Tensor

from steerlib.errors import ContrastError, LawError
from steerlib.laws.base import Contrast
from steerlib.laws.regression import StaticRE
from steerlib.laws.scored import Scored

TRUE = torch.tensor([1.0, -2.0, 0.0, 0.5], dtype=torch.float64)


def rewarded(n: int = 60, width: int = 4, *, noise: float = 0.3, seed: int = 0) -> Scored:
    """Rewards that are linear in the state, with an offset, and noise."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(n, width, generator=generator, dtype=torch.float64) * 2 + 5
    weight = torch.nn.functional.pad(TRUE, (0, width - 4))
    return Scored(states, states @ weight + 7 + noise * torch.randn(n, generator=generator, dtype=torch.float64))


def ridge_by_rows(scored: Scored, ridge: float) -> Tensor:
    """The same problem as ordinary least squares with penalty rows added, solved by scipy."""
    states = (scored.states - scored.states.mean(0)).numpy()
    rewards = (scored.rewards - scored.rewards.mean()).numpy()
    width = states.shape[1]
    penalty = np.sqrt(ridge * (states**2).mean() * len(states)) * np.eye(width)
    return torch.from_numpy(lstsq(np.vstack([states, penalty]), np.r_[rewards, np.zeros(width)])[0])


class TestRegression:
    def test_without_noise_it_is_the_truth(self) -> None:
        law = StaticRE(ridge=0).fit_scored(rewarded(noise=0.0))
        torch.testing.assert_close(law.vector, TRUE.float(), atol=1e-5, rtol=0)
        assert float(law.explained) == pytest.approx(1.0)

    @pytest.mark.parametrize("ridge", [0.0, 0.01, 1.0])
    def test_tall_problems_agree_with_scipy(self, ridge: float) -> None:
        found = StaticRE(ridge=ridge).fit_scored(rewarded()).vector
        torch.testing.assert_close(found.double(), ridge_by_rows(rewarded(), ridge), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("n", [3, 12, 13])
    def test_wide_problems_agree_with_scipy(self, n: int) -> None:
        wide = rewarded(n, 12)
        found = StaticRE(ridge=0.05).fit_scored(wide).vector
        torch.testing.assert_close(found.double(), ridge_by_rows(wide, 0.05), atol=1e-5, rtol=1e-5)

    def test_a_push_earns_what_the_regression_says(self) -> None:
        """One unit of strength along w raises the estimate by |w|^2: the gradient step."""
        law = StaticRE(ridge=0).fit_scored(rewarded(noise=0.0))
        state = torch.zeros(1, 4)
        gained = (law.at(0.5)(state) - state) @ TRUE.float()
        assert float(gained) == pytest.approx(0.5 * float(TRUE @ TRUE), rel=1e-4)
        unit = StaticRE(scale="unit", ridge=0).fit_scored(rewarded())
        assert float(unit.vector.norm()) == pytest.approx(1.0)

    def test_units_of_states_and_rewards(self) -> None:
        plain = StaticRE().fit_scored(rewarded()).vector
        data = rewarded()
        scaled = StaticRE().fit_scored(Scored(data.states * 10, data.rewards * 3)).vector
        torch.testing.assert_close(scaled, plain * 0.3, rtol=1e-4, atol=1e-7)

    def test_what_it_explains_falls_with_noise(self) -> None:
        shares = [float(StaticRE().fit_scored(rewarded(noise=noise)).explained) for noise in (0.1, 5.0, 100.0)]
        assert 1 > shares[0] > shares[1] > shares[2] > 0

    def test_a_contrast_counts_as_rewards_of_one_and_zero(self) -> None:
        data = rewarded()
        contrast = Contrast(data.states[:20] + 1, data.states[20:])
        scored = Scored(torch.cat(tuple(contrast)), torch.cat([torch.ones(20), torch.zeros(40)]))
        assert torch.equal(StaticRE().fit(contrast).vector, StaticRE().fit_scored(scored).vector)
        moved = StaticRE().fit(contrast)(data.states.float()) - data.states.float()
        assert float((moved @ torch.ones(4)).mean()) > 0

    def test_files_keep_the_options(self, tmp_path: Path) -> None:
        law = StaticRE(ridge=0.5, scale="unit").fit_scored(rewarded())
        again = StaticRE.load(law.save(tmp_path / "law.safetensors"))
        assert again.options() == {"ridge": 0.5, "rewards": "expected", "scale": "unit"}
        assert torch.equal(again.vector, law.vector) and torch.equal(again.explained, law.explained)


class TestBadInput:
    def test_ordinary_least_squares_needs_more_examples_than_features(self) -> None:
        for n in (4, 3):
            with pytest.raises(LawError, match=f"got {n} examples of 4 features.*Fix: ridge > 0"):
                StaticRE(ridge=0).fit_scored(rewarded(n))

    def test_collinear_features(self) -> None:
        data = rewarded()
        twice = Scored(torch.cat([data.states, data.states[:, :1]], 1), data.rewards)
        with pytest.raises(LawError, match="collinear for a ridge of 0"):
            StaticRE(ridge=0).fit_scored(twice)
        shared = StaticRE(ridge=0.01).fit_scored(twice).vector
        torch.testing.assert_close(shared[0], shared[4])

    def test_nothing_varies(self) -> None:
        with pytest.raises(LawError, match="rewards: all 3 are 2, expected some that differ"):
            StaticRE().fit_scored(Scored(torch.randn(3, 2), torch.full((3,), 2.0)))
        with pytest.raises(LawError, match="states: all are the same"):
            StaticRE().fit_scored(Scored(torch.full((3, 2), 0.1), torch.arange(3.0)))

    def test_rewards_that_no_coordinate_goes_with(self) -> None:
        states = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
        with pytest.raises(LawError, match="no coordinate goes with the reward"):
            StaticRE().fit_scored(Scored(states, torch.tensor([1.0, 1.0, 0.0, 0.0])))

    def test_scored_states(self) -> None:
        states = torch.ones(3, 2)
        for bad, message in (
            ((states, torch.ones(2)), r"got shape \(2,\) for states of shape \(3, 2\)"),
            ((states[0], torch.ones(2)), "expected .examples,. for .examples, width."),
            ((states[:1], torch.ones(1)), r"got 1 state\(s\), expected two or more"),
            ((states, torch.tensor([1.0, torch.nan, 0.0])), "the reward of row 1"),
            ((torch.tensor([[1.0], [torch.inf]]), torch.ones(2)), "the state of row 1"),
        ):
            with pytest.raises(ContrastError, match=message):
                Scored(*bad)

    def test_options(self) -> None:
        for bad in (-0.1, float("nan"), float("inf")):
            with pytest.raises(LawError, match="ridge: got"):
                StaticRE(ridge=bad)
        with pytest.raises(LawError, match="expected 'raw' or 'unit'"):
            StaticRE(scale="sigma")  # type: ignore[arg-type]
        with pytest.raises(LawError, match="expected 'expected' or 'labels'"):
            StaticRE(rewards="sampled")  # type: ignore[arg-type]
