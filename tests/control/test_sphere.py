"""Heights on the sphere: the secular equation against other optimisers, hard cases, caps against a search."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steerlib.control import barrier as barriers
from steerlib.control.barrier import DiagonalForm, QuadraticForm
from steerlib.control.ode import solve
from steerlib.control.sphere import cap_maximum, local_maximum, sphere_maximum
from steerlib.errors import LawError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def form(values: list[float], linear: list[float], constant: float = 0.0) -> DiagonalForm:
    return DiagonalForm(*(torch.tensor(part, dtype=torch.float64) for part in (values, linear, constant)), unit=True)


def random_form(width: int, seed: int, size: float = 1.0) -> DiagonalForm:
    matrix = drawn(width, width, seed=seed)
    linear = size * drawn(width, seed=seed + 1)
    quadratic = QuadraticForm((matrix + matrix.T) / 2, linear, torch.tensor(-0.4, dtype=torch.float64), unit=True)
    return quadratic.diagonal()[0]


def climbed(h: DiagonalForm, starts: int = 40) -> Tensor:
    """The heights that gradient ascent on the sphere ends at, from many starts."""
    x = torch.nn.functional.normalize(drawn(starts, len(h.values), seed=9), dim=1)
    rate = 0.5 / float(2 * h.values.abs().max() + h.linear.norm())
    for _ in range(3000):
        slope = h.slope(x)
        x = torch.nn.functional.normalize(x + rate * (slope - (slope * x).sum(1, keepdim=True) * x), dim=1)
    return h.logit(x)


class TestSphere:
    """The highest point there is."""

    @settings(max_examples=15, deadline=None)
    @given(st.integers(2, 8), st.integers(0, 1000), st.sampled_from([0.0, 0.1, 1.0, 30.0]))
    def test_it_is_as_high_as_any_climb_and_stationary(self, width: int, seed: int, size: float) -> None:
        h = random_form(width, seed, size)
        peak = sphere_maximum(h)
        assert float(peak.point.norm()) == pytest.approx(1.0, abs=1e-12)
        assert float(h.logit(peak.point)) == pytest.approx(peak.value, abs=1e-11)
        slope = h.slope(peak.point) - 2 * peak.multiplier * peak.point
        assert slope.norm() < 1e-7 * (1 + size)
        assert peak.multiplier >= float(h.values[-1]) - 1e-12
        assert peak.value >= float(climbed(h, 10).max()) - 1e-9

    def test_the_hard_case_where_the_slope_misses_the_top_eigenvector(self) -> None:
        """l = (0, 1), m = (0.5, 0): x_1 = m_1 / (2 (1 - 0)) = 0.25 and the rest of the length goes along the top."""
        peak = sphere_maximum(form([0.0, 1.0], [0.5, 0.0]))
        assert peak.multiplier == 1.0
        torch.testing.assert_close(peak.point.abs(), torch.tensor([0.25, math.sqrt(1 - 0.0625)], dtype=torch.float64))
        assert peak.value == pytest.approx(1.0 + 0.0625)

    def test_without_a_quadratic_part_it_is_along_the_slope(self) -> None:
        peak = sphere_maximum(form([0.0, 0.0], [3.0, 4.0], 1.0))
        torch.testing.assert_close(peak.point, torch.tensor([0.6, 0.8], dtype=torch.float64))
        assert peak.value == pytest.approx(6.0)

    def test_a_constant_is_as_high_everywhere(self) -> None:
        peak = sphere_maximum(form([0.0, 0.0], [0.0, 0.0], 2.0))
        assert peak.value == 2.0 and float(peak.point.norm()) == 1.0

    def test_a_form_of_whole_states_has_no_maximum_on_directions(self) -> None:
        with pytest.raises(LawError, match="unit=True"):
            sphere_maximum(form([1.0], [1.0])._replace(unit=False))


class TestLocalMaximum:
    """The one that a flow may end at."""

    def test_the_counter_example_of_the_chapter(self) -> None:
        """l = (0, 0, 1), m = (0, 0, 0.2), c = -1: the maximum is 0.2, and a flow from the other side ends at -0.2."""
        h = form([0.0, 0.0, 1.0], [0.0, 0.0, 0.2], -1.0)
        lower = local_maximum(h)
        assert sphere_maximum(h).value == pytest.approx(0.2) and lower is not None
        assert lower.value == pytest.approx(-0.2)
        start = torch.tensor([[0.3, 0.1, -1.0]], dtype=torch.float64)
        end = start + 50.0 * solve(lambda a: barriers.gradient(h, a), start, 50.0, solver="rk4", steps=500).mean
        assert float(barriers.value(h, end)) == pytest.approx(-0.2, abs=1e-6)

    @settings(max_examples=15, deadline=None)
    @given(st.integers(2, 6), st.integers(0, 1000))
    def test_every_climb_ends_at_one_of_the_two(self, width: int, seed: int) -> None:
        h = random_form(width, seed, 0.3)
        ends, known = climbed(h), [sphere_maximum(h).value]
        lower = local_maximum(h)
        if lower is not None:
            known.append(lower.value)
            assert lower.value <= known[0] + 1e-12
            assert (h.slope(lower.point) - 2 * lower.multiplier * lower.point).norm() < 1e-7
        nearest = (ends[:, None] - torch.tensor(known, dtype=torch.float64)).abs().amin(1)
        assert nearest.max() < 1e-3, "slow climbs are allowed a little"

    def test_a_strong_slope_leaves_none(self) -> None:
        assert local_maximum(form([0.0, 1.0], [1.0, 5.0])) is None
        assert local_maximum(form([0.0, 1.0], [1.0, 0.0])) is None


class TestCap:
    """What a budget can reach."""

    @pytest.mark.parametrize("width", [2, 3, 6])
    @pytest.mark.parametrize("angle", [0.05, 0.4, 1.2, 2.5])
    def test_it_is_as_high_as_a_search_of_the_cap(self, width: int, angle: float) -> None:
        for seed in range(4):
            h, centre = random_form(width, seed, 0.4), drawn(1, width, seed=seed + 50)
            found = cap_maximum(h, 3 * centre, angle)
            p = torch.nn.functional.normalize(centre, dim=1)
            assert float(found.point.norm()) == pytest.approx(1.0, abs=1e-9)
            assert float(p @ found.point[0]) >= math.cos(angle) - 1e-9
            assert float(h.logit(found.point[0])) == pytest.approx(float(found.value[0]), abs=1e-9)
            best = float(h.logit(self.searched(h, p, angle)).max())
            assert float(found.value[0]) >= best - 1e-7
            assert float(found.value[0]) <= best + 1e-3, "the search comes near"

    def searched(self, h: DiagonalForm, p: Tensor, angle: float) -> Tensor:
        """Projected ascent inside of the cap from many points of it."""
        across = drawn(60, p.shape[1], seed=3)
        across = torch.nn.functional.normalize(across - (across @ p.T) * p, dim=1)
        turn = angle * torch.rand(60, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
        x = turn.cos() * p + turn.sin() * across
        rate = 0.3 / float(2 * h.values.abs().max() + h.linear.norm())
        for _ in range(1500):
            slope = h.slope(x)
            x = torch.nn.functional.normalize(x + rate * (slope - (slope * x).sum(1, keepdim=True) * x), dim=1)
            far = (x @ p.T).clamp(-1, 1).acos() > angle
            side = torch.nn.functional.normalize(x - (x @ p.T) * p, dim=1)
            x = torch.where(far, math.cos(angle) * p + math.sin(angle) * side, x)
        return x

    def test_it_grows_with_the_budget_from_the_state_to_the_sphere(self) -> None:
        h, centre = random_form(7, 3), drawn(1, 7, seed=8)
        angles = torch.linspace(0, math.pi, 30, dtype=torch.float64)
        found = cap_maximum(h, centre.expand(30, 7), angles)
        assert (found.value.diff() >= -1e-10).all()
        assert float(found.value[0]) == pytest.approx(float(barriers.value(h, centre)), abs=1e-10)
        assert float(found.value[-1]) == pytest.approx(sphere_maximum(h).value, abs=1e-10)
        assert bool(found.inside[-1]) and not bool(found.inside[1])

    def test_no_flow_comes_higher(self) -> None:
        h, starts = random_form(8, 5), 4 * drawn(20, 8, seed=6)
        horizon = 3.0
        end = starts + horizon * solve(lambda a: barriers.direction(h, a), starts, horizon, solver="rk4", steps=60).mean
        bound = cap_maximum(h, starts, horizon / starts.norm(dim=1))
        reached = barriers.value(h, end)
        assert (reached <= bound.value + 1e-6).all()
        assert (bound.value - reached).min() < 0.05, "or the bound would say nothing"

    def test_a_slope_that_misses_the_top_eigenvector_of_the_edge(self) -> None:
        """B = 0 and m along the centre: every point of the edge is as high, m cos t."""
        h = form([0.0, 0.0, 0.0], [2.0, 0.0, 0.0])
        found = cap_maximum(h, torch.tensor([[-1.0, 0.0, 0.0]], dtype=torch.float64), 0.7)
        assert float(found.value[0]) == pytest.approx(-2 * math.cos(0.7))

    def test_what_has_no_direction_is_refused(self) -> None:
        h = form([0.0, 1.0], [1.0, 0.0])
        for centre, angle in ((torch.zeros(1, 2), 0.5), (torch.ones(1, 2), -0.1)):
            with pytest.raises(LawError, match="norm zero or a negative angle"):
                cap_maximum(h, centre, angle)
