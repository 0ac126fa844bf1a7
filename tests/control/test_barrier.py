"""Barriers: gradients by differences, forms that agree, critical points; pushes against a library's solver."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steerlib.control import barrier as barriers
from steerlib.control.ascent import ReluNet
from steerlib.control.barrier import (
    AffineForm,
    Barrier,
    FourierForm,
    QuadraticForm,
    SketchForm,
    ValueForm,
    direction,
    gradient,
    met,
    push_by_solver,
    smallest_push,
    smallest_push_of_several,
    value,
)
from steerlib.control.bellman import ValueNetwork
from steerlib.control.networks import seeded
from steerlib.control.sketch import FourierFeatures, PolynomialSketch
from steerlib.errors import LawError

WIDTH = 6


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def forms(unit: bool) -> dict[str, Barrier]:
    matrix, constant = drawn(WIDTH, WIDTH, seed=1), torch.tensor(0.3, dtype=torch.float64)
    sketch = PolynomialSketch.draw(WIDTH, dimension=50, gamma=0.7)
    net = ReluNet.of(seeded(lambda: ValueNetwork(WIDTH, 9, 3), seed=0), torch.float64)
    return {
        "affine": AffineForm(drawn(WIDTH, seed=2), constant, unit),
        "quadratic": QuadraticForm((matrix + matrix.T) / 2, drawn(WIDTH, seed=3), constant, unit),
        "sketched": SketchForm(sketch, drawn(50, seed=4), constant, unit),
        "fourier": FourierForm(FourierFeatures.draw(WIDTH, dimension=20), drawn(20, seed=5), constant, unit),
        "valued": ValueForm(net, constant, unit),
    }


class TestGradient:
    """Closed forms against differences, and what directions imply."""

    @pytest.mark.parametrize("unit", [True, False])
    @pytest.mark.parametrize("name", list(forms(True)))
    def test_it_is_that_of_differences(self, name: str, unit: bool) -> None:
        h, states = forms(unit)[name], 2 * drawn(4, WIDTH)
        found = gradient(h, states)
        for i in range(WIDTH):
            step = 1e-6 * torch.eye(WIDTH, dtype=torch.float64)[i]
            slope = (value(h, states + step) - value(h, states - step)) / 2e-6
            torch.testing.assert_close(found[:, i], slope, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("name", list(forms(True)))
    def test_of_directions_it_is_orthogonal_and_falls_with_the_norm(self, name: str) -> None:
        h, states = forms(True)[name], drawn(4, WIDTH)
        found = gradient(h, states)
        assert (found * states).sum(1).abs().max() < 1e-12
        torch.testing.assert_close(value(h, 3 * states), value(h, states))
        torch.testing.assert_close(gradient(h, 3 * states), found / 3)

    @pytest.mark.parametrize("unit", [True, False])
    @pytest.mark.parametrize("name", list(forms(True)))
    def test_the_direction_is_the_unit_gradient(self, name: str, unit: bool) -> None:
        h, states = forms(unit)[name], drawn(4, WIDTH)
        expected = torch.nn.functional.normalize(gradient(h, states), dim=1)
        torch.testing.assert_close(direction(h, states), expected)
        torch.testing.assert_close(direction(h, states, guard="released"), expected, rtol=1e-8, atol=1e-8)

    def test_the_quadratic_form_of_a_sketch_has_its_values_and_gradients(self) -> None:
        h, states = forms(True)["sketched"], drawn(5, WIDTH)
        assert isinstance(h, SketchForm)
        form = h.quadratic()
        torch.testing.assert_close(value(form, states), value(h, states), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient(form, states), gradient(h, states), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("unit", [True, False])
    def test_the_eigenbasis_changes_nothing(self, unit: bool) -> None:
        h, states = forms(unit)["quadratic"], drawn(5, WIDTH)
        assert isinstance(h, QuadraticForm)
        diagonal, basis = h.diagonal()
        torch.testing.assert_close(value(diagonal, states @ basis), value(h, states))
        torch.testing.assert_close(gradient(diagonal, states @ basis) @ basis.T, gradient(h, states))
        torch.testing.assert_close(direction(diagonal, states @ basis) @ basis.T, direction(h, states))


class TestCriticalPoints:
    """Where there is no gradient there is no direction, and no NaN."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_direction_is_zero_at_a_critical_point_up_to_rounding(self, dtype: torch.dtype) -> None:
        """At an eigenvector the slope is along the state; what is left of it by rounding is no direction."""
        matrix = drawn(40, 40).to(dtype)
        h = QuadraticForm(
            (matrix + matrix.T) / 2, torch.zeros(40, dtype=dtype), torch.zeros((), dtype=dtype), unit=True
        )
        states = 7.3 * torch.linalg.eigh(h.matrix.double()).eigenvectors.T.to(dtype)
        noise = direction(h, states, guard="released")
        assert (noise.norm(dim=1) > 0).any(), "without a guard rounding has a direction"
        still = direction(h, states)
        assert torch.equal(still, torch.zeros_like(still))
        assert direction(h, states + 0.01).norm(dim=1).min() > 0.99, "near by there is one"

    def test_a_state_of_norm_zero_has_no_direction(self) -> None:
        for h in forms(True).values():
            nothing = torch.zeros(2, WIDTH, dtype=torch.float64)
            assert torch.equal(gradient(h, nothing), nothing) and torch.equal(direction(h, nothing), nothing)
            assert torch.isfinite(value(h, nothing)).all()

    def test_half_of_the_range_of_numbers_does_not_overflow(self) -> None:
        h, states = forms(True)["quadratic"], drawn(3, WIDTH)
        small = QuadraticForm(*(part.float() for part in h[:3]), unit=True)  # type: ignore[union-attr]
        for size in (1e-15, 1e15):
            found = direction(small, (size * states).float())
            torch.testing.assert_close(found.double(), direction(h, states), rtol=1e-4, atol=1e-5)


class TestSmallestPush:
    """The filter of one barrier and of several."""

    def test_of_a_half_space_it_ends_on_the_plane_and_no_shorter_one_does(self) -> None:
        h, states = forms(False)["affine"], drawn(50, WIDTH)
        values = value(h, states)
        push = smallest_push(values, gradient(h, states))
        after = value(h, states + push)
        outside = values < 0
        assert 5 < int(outside.sum()) < 45
        assert after[outside].abs().max() < 1e-12 and torch.equal(push[~outside], torch.zeros_like(push[~outside]))
        assert (value(h, states + 0.999 * push)[outside] < 0).all()

    def test_without_a_gradient_there_is_none_and_a_bound_holds(self) -> None:
        values, slopes = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([[0.0, 0.0], [1e-15, 0.0], [2.0, 0.0]])
        free = smallest_push(values, slopes)
        assert torch.equal(free[0], torch.zeros(2)) and torch.isfinite(free).all()
        bound = smallest_push(values, slopes, most=torch.tensor([3.0, 3.0, 3.0]))
        torch.testing.assert_close(bound, torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.5, 0.0]]))

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 5), st.integers(0, 10_000))
    def test_of_several_it_is_what_the_solver_finds(self, count: int, seed: int) -> None:
        values, slopes = drawn(3, count, seed=seed), drawn(3, count, WIDTH, seed=seed + 1)
        found = smallest_push_of_several(values, slopes)
        assert found.violation.max() < 1e-9
        for row in range(3):
            expected = push_by_solver(values[row].numpy(), slopes[row].numpy())
            torch.testing.assert_close(found.push[row], expected.push, rtol=1e-6, atol=1e-8)

    def test_of_one_it_is_the_closed_form(self) -> None:
        values, slopes = drawn(20, 1), drawn(20, 1, WIDTH, seed=1)
        found = smallest_push_of_several(values, slopes).push
        torch.testing.assert_close(found, smallest_push(values[:, 0], slopes[:, 0]), rtol=1e-10, atol=1e-12)

    def test_two_by_hand(self) -> None:
        """x >= 1 and y >= 2 from the origin; and x >= 1 with the idle x >= -1."""
        values = torch.tensor([[-1.0, -2.0], [-1.0, 1.0]])
        slopes = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
        found = smallest_push_of_several(values, slopes)
        torch.testing.assert_close(found.push, torch.tensor([[1.0, 2.0], [1.0, 0.0]]), rtol=1e-4, atol=1e-5)

    def test_conditions_that_contradict_one_another_are_told(self) -> None:
        values, slopes = torch.tensor([[-1.0, -3.0]]), torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
        found = smallest_push_of_several(values, slopes)
        assert torch.isfinite(found.push).all() and float(found.violation) >= 1.0
        with pytest.raises(LawError, match="no push meets all of 2 conditions"):
            push_by_solver(values[0].double().numpy(), slopes[0].double().numpy())

    def test_many_are_refused(self) -> None:
        with pytest.raises(LawError, match="got 7 barriers, expected at most 6"):
            smallest_push_of_several(torch.zeros(1, 7), torch.zeros(1, 7, 2))

    def test_all_must_hold(self) -> None:
        assert met(torch.tensor([[0.0, 1.0], [1.0, -1e-9]])).tolist() == [True, False]


def test_a_difference_of_means_is_the_ratio_of_gaussians() -> None:
    """Table 1 of the paper: CAA's vector is the gradient of a log ratio of Gaussians with identity covariance."""
    mean, other = drawn(WIDTH, seed=6), drawn(WIDTH, seed=7)
    h = AffineForm(mean - other, -(mean.square().sum() - other.square().sum()) / 2, unit=False)
    states = drawn(4, WIDTH)
    one, two = (torch.distributions.MultivariateNormal(m, torch.eye(WIDTH, dtype=m.dtype)) for m in (mean, other))
    torch.testing.assert_close(value(h, states), one.log_prob(states) - two.log_prob(states))
    torch.testing.assert_close(barriers.gradient(h, states), (mean - other).expand_as(states))
