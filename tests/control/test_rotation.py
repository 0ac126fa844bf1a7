"""Rotations keep lengths, meet their angles, and are defined where the textbook formulas are not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from torch import Tensor

from steerlib.control.rotation import angle_between, plane, reflected, set_angle, turned
from steerlib.errors import LawError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


class TestAngles:
    def test_by_hand(self) -> None:
        first = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
        second = torch.tensor([[0.0, 5.0], [1.0, 1.0], [-7.0, 0.0], [0.1, 0.0]])
        wanted = torch.tensor([math.pi / 2, math.pi / 4, math.pi, 0.0])
        torch.testing.assert_close(angle_between(first, second), wanted)

    @pytest.mark.parametrize("angle", [1e-7, 1e-4, math.pi - 1e-6])
    def test_small_angles_keep_their_digits_in_single_precision(self, angle: float) -> None:
        first = torch.tensor([1.0, 0.0])
        second = torch.tensor([math.cos(angle), math.sin(angle)])
        assert float(angle_between(first, second)) == pytest.approx(angle, rel=1e-3 if angle < 1 else 1e-6)


class TestTurned:
    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 10_000), angle=st.floats(0.0, 3.1), size=st.floats(1e-3, 1e4))
    def test_it_is_a_rotation_towards_the_direction(self, seed: int, angle: float, size: float) -> None:
        state, towards = size * draw(5, seed=seed), unit(draw(5, seed=seed + 1))
        new = turned(state, towards, torch.tensor(angle, dtype=torch.float64))
        torch.testing.assert_close(new.norm(), state.norm())
        torch.testing.assert_close(
            angle_between(new, state), torch.tensor(angle, dtype=torch.float64), atol=1e-7, rtol=0
        )
        # Second derivation: the exponential of the skew matrix of the plane.
        a = unit(state)
        b = unit(towards - (towards @ a) * a)
        rotation = torch.from_numpy(expm(angle * (torch.outer(b, a) - torch.outer(a, b)).numpy()))
        torch.testing.assert_close(new, rotation @ state)

    def test_the_published_formula_away_from_its_poles(self) -> None:
        """[sin(g1) z_r + sin(g2 - g1) z] / sin(g2), of states against the normal."""
        normal, state = unit(draw(6, seed=1)), draw(200, 6, seed=2)
        state = torch.where((state @ normal)[:, None] > 0, reflected(state, normal), state)
        mirror = reflected(state, normal)
        g1 = torch.rand(200, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * math.pi
        g2 = torch.arccos((state * mirror).sum(1) / state.square().sum(1))
        written = (g1.sin()[:, None] * mirror + (g2 - g1).sin()[:, None] * state) / g2.sin()[:, None]
        torch.testing.assert_close(turned(state, normal, g1), written)
        torch.testing.assert_close(turned(state, normal, g2), mirror)
        torch.testing.assert_close(turned(state, normal, torch.zeros(200, dtype=torch.float64)), state)

    def test_poles(self) -> None:
        normal = torch.tensor([0.0, 1.0])
        state = torch.tensor([[0.0, 3.0], [0.0, -3.0], [0.0, 0.0]])
        assert torch.equal(turned(state, normal, torch.full((3,), 1.0)), state)
        # On the hyperplane, where a state is its own mirror image, the turn is towards the normal.
        torch.testing.assert_close(
            turned(torch.tensor([2.0, 0.0]), normal, torch.tensor(math.pi / 2)), torch.tensor([0.0, 2.0])
        )


def test_reflection_keeps_norms_and_is_its_own_inverse() -> None:
    normal, state = unit(draw(7, seed=4)), draw(3, 2, 7, seed=5)
    mirror = reflected(state, normal)
    torch.testing.assert_close(mirror.norm(dim=-1), state.norm(dim=-1))
    torch.testing.assert_close(mirror @ normal, -(state @ normal))
    torch.testing.assert_close(reflected(mirror, normal), state)
    torch.testing.assert_close(mirror, state @ (torch.eye(7, dtype=torch.float64) - 2 * torch.outer(normal, normal)))


class TestPlane:
    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 10_000), lean=st.floats(-1e4, 1e4))
    def test_orthonormal_and_spanning(self, seed: int, lean: float) -> None:
        first, aside = draw(6, seed=seed), draw(6, seed=seed + 1)
        second = aside + lean * first
        basis = plane(first, second)
        torch.testing.assert_close(basis @ basis.T, torch.eye(2, dtype=torch.float64), atol=1e-10, rtol=0)
        torch.testing.assert_close(basis[0], unit(first))
        torch.testing.assert_close(second @ basis.T @ basis, second)
        assert second @ basis[1] > 0

    def test_refusals(self) -> None:
        vector = torch.tensor([1.0, 2.0, 3.0])
        with pytest.raises(LawError, match="norm 0 and 3.74"):
            plane(torch.zeros(3), vector)
        with pytest.raises(LawError, match="two vectors on one line"):
            plane(vector, -2 * vector)

    @settings(max_examples=50, deadline=None)
    @given(seed=st.integers(0, 10_000), angle=st.floats(-7.0, 7.0))
    def test_set_angle(self, seed: int, angle: float) -> None:
        basis, state = plane(draw(6, seed=seed), draw(6, seed=seed + 1)), draw(2, 3, 6, seed=seed + 2)
        new = state + set_angle(state, basis, torch.tensor(angle, dtype=torch.float64))
        torch.testing.assert_close(new.norm(dim=-1), state.norm(dim=-1))
        inside = new @ basis.T
        torch.testing.assert_close(inside.norm(dim=-1), (state @ basis.T).norm(dim=-1))
        found = torch.atan2(inside[..., 1], inside[..., 0]) - angle
        torch.testing.assert_close(found.cos(), torch.ones_like(found))
        torch.testing.assert_close(new - inside @ basis, state - state @ basis.T @ basis)
