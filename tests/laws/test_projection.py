"""Projection onto a probe's half-space: the unique nearest point, by hand and by a quadratic program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from steerlib.errors import LawError
from steerlib.laws.base import Contrast
from steerlib.laws.projection import HalfSpaceProjection
from tests.laws.test_additive import gaussians


def fitted(setpoint: float = 0.1, *, width: int = 5) -> tuple[HalfSpaceProjection, Contrast]:
    """A law on overlapping Gaussians, and what it was fitted on."""
    contrast = gaussians(200, torch.linspace(0.4, 1.2, width, dtype=torch.float64))
    return HalfSpaceProjection(setpoint=setpoint).fit(contrast), contrast


class TestProjection:
    def test_by_hand(self) -> None:
        law = HalfSpaceProjection(setpoint=0.5)
        law.weight, law.bias = torch.tensor([3.0, 4.0]), torch.tensor(-5.0)
        # At even odds the boundary is 3 x + 4 y = 5, at distance 1 from the origin, nearest point (0.6, 0.8).
        torch.testing.assert_close(law(torch.zeros(2)), torch.tensor([0.6, 0.8]))
        torch.testing.assert_close(law(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]]))

    @pytest.mark.parametrize("setpoint", [0.01, 0.1, 0.5, 0.9])
    def test_afterwards_no_state_is_likelier_unwanted_than_the_setpoint(self, setpoint: float) -> None:
        law, contrast = fitted(setpoint)
        states = torch.cat(tuple(contrast)).float()
        before, after = law.unwanted(states), law.unwanted(law(states))
        inside = before <= setpoint
        assert 0 < int(inside.sum()) < len(states)
        assert torch.equal(law(states)[inside], states[inside])
        torch.testing.assert_close(after[~inside], torch.full_like(after[~inside], setpoint), atol=1e-5, rtol=1e-4)

    def test_it_is_the_nearest_such_point(self) -> None:
        law, contrast = fitted(0.05)
        weight, bias = law.weight.double().numpy(), float(law.bias)
        for state in contrast.negative[:3]:
            origin = state.numpy()
            rule = {"type": "ineq", "fun": lambda x: weight @ x + bias - np.log(0.95 / 0.05)}
            found = minimize(
                lambda x, z=origin: ((x - z) ** 2).sum(), np.ones(5) * 9, constraints=rule, method="SLSQP",
                options={"ftol": 1e-14},
            )  # fmt: skip
            torch.testing.assert_close(law(state.float()).double(), torch.from_numpy(found.x), atol=1e-4, rtol=0)

    def test_twice_is_once(self) -> None:
        law, contrast = fitted()
        once = law(contrast.negative.float())
        torch.testing.assert_close(law(once), once, atol=1e-5, rtol=0)

    def test_strength_goes_part_of_the_way(self) -> None:
        law, contrast = fitted()
        states = contrast.negative.float()
        whole, half = law(states) - states, law.at(0.5)(states) - states
        torch.testing.assert_close(half, whole / 2)
        assert torch.equal(law.at(0.0)(states), states)

    def test_the_setpoint_is_apart_from_strength_and_moves_in_place(self) -> None:
        law, contrast = fitted(0.3)
        states, held = contrast.negative.float(), law.setpoint
        pushes = [(law.aim(p)(states) - states).norm(dim=1).mean() for p in (0.9, 0.3, 0.1, 0.001)]
        assert pushes == sorted(pushes)
        assert law.setpoint is held and float(law.strength) == 1.0

    def test_the_unwanted_class_is_the_negative_one(self) -> None:
        law, contrast = fitted()
        assert law.unwanted(contrast.negative).mean() > 0.5 > law.unwanted(contrast.positive).mean()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_near_and_never_infinite(self, dtype: torch.dtype) -> None:
        law, contrast = fitted()
        states = contrast.negative.to(dtype)
        torch.testing.assert_close(law(states).float(), law(states.float()), atol=0.05, rtol=0.02)
        assert torch.isfinite(law.at(1e30)(states)).all()

    def test_any_leading_shape(self) -> None:
        law, contrast = fitted()
        states = contrast.negative.float()
        torch.testing.assert_close(law(states.reshape(2, 100, 5)).reshape(200, 5), law(states))
        assert law.unwanted(states.reshape(2, 100, 5)).shape == (2, 100)

    def test_files_keep_probe_and_setpoint(self, tmp_path: Path) -> None:
        law, contrast = fitted(0.02)
        again = HalfSpaceProjection.load(law.save(tmp_path / "law.safetensors"))
        assert torch.equal(again(contrast.negative.float()), law(contrast.negative.float()))
        assert float(again.setpoint) == pytest.approx(0.02)
        again.aim(0.4)
        assert float(again.setpoint) == pytest.approx(0.4)


class TestBadInput:
    def test_setpoints(self) -> None:
        for bad in (0.0, 1.0, -0.1, float("nan"), "low"):
            with pytest.raises(LawError, match="strictly between 0 and 1"):
                HalfSpaceProjection(setpoint=bad)  # type: ignore[arg-type]

    def test_no_boundary(self) -> None:
        with pytest.raises(LawError, match="probe: got norm 0.0"):
            HalfSpaceProjection().fit(Contrast(torch.ones(3, 2), torch.ones(3, 2)))

    def test_not_fitted_or_another_width(self) -> None:
        with pytest.raises(LawError, match="no probe: it is not fitted"):
            HalfSpaceProjection()(torch.zeros(1, 3))
        with pytest.raises(LawError, match="a probe of width 5; the state has width 3"):
            fitted()[0](torch.zeros(1, 3))

    def test_separable_classes_and_few_examples_have_a_finite_boundary(self) -> None:
        law = HalfSpaceProjection(setpoint=1e-6).fit(gaussians(3, torch.full((40,), 5.0, dtype=torch.float64)))
        assert law.probe is not None and law.probe.separates
        state = torch.zeros(1, 40)
        assert torch.isfinite(law(state)).all() and float(law.unwanted(law(state))) < 2e-6
