"""Solvers: orders by halving steps, exact identities, parity with torchdiffeq, what stops, bad input."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steerlib.control import barrier as barriers
from steerlib.control.barrier import QuadraticForm
from steerlib.control.ode import ORDER, Solver, solve
from steerlib.errors import LawError
from tests.control.fixtures.barriers import flow_inputs

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "barriers.json").read_text())["flows"]


def form() -> QuadraticForm:
    """The barrier of the fixtures."""
    matrix, linear, _ = map(torch.from_numpy, flow_inputs())
    return QuadraticForm(matrix, linear, torch.zeros((), dtype=torch.float64), unit=True)


def starts() -> Tensor:
    return torch.from_numpy(flow_inputs()[2])


def unit_field(a: Tensor) -> Tensor:
    return barriers.direction(form(), a)


def spiral(a: Tensor) -> Tensor:
    """A linear field, whose flow is known: a turn that grows."""
    return a @ torch.tensor([[0.3, 1.0], [-1.0, 0.3]], dtype=torch.float64)


def spiralled(a: Tensor, time: float) -> Tensor:
    turn = torch.tensor([[math.cos(time), math.sin(time)], [-math.sin(time), math.cos(time)]], dtype=torch.float64)
    return math.exp(0.3 * time) * a @ turn


class TestOrder:
    """The error falls with the power of the step that the method promises."""

    @pytest.mark.parametrize("solver", ["euler", "midpoint", "rk4"])
    def test_halving_the_step_divides_the_error_by_two_to_the_order(self, solver: Solver) -> None:
        start = torch.tensor([[1.0, 0.5], [-0.2, 2.0]], dtype=torch.float64)
        errors = []
        for steps in (40, 80, 160):
            found = start + 2.0 * solve(spiral, start, 2.0, solver=solver, steps=steps).mean
            errors.append(float((found - spiralled(start, 2.0)).norm()))
        for coarse, fine in zip(errors, errors[1:], strict=False):
            assert math.log2(coarse / fine) == pytest.approx(ORDER[solver], abs=0.1)

    def test_the_geodesic_step_is_of_first_order_on_a_sphere(self) -> None:
        exact = torch.tensor(FIXTURE["ends"]["exact"], dtype=torch.float64)
        errors = [
            float((starts() + 2.0 * solve(unit_field, starts(), 2.0, solver="geodesic", steps=n).mean - exact).norm())
            for n in (40, 80, 160)
        ]
        for coarse, fine in zip(errors, errors[1:], strict=False):
            assert math.log2(coarse / fine) == pytest.approx(1.0, abs=0.1)

    def test_the_adaptive_error_follows_the_tolerance(self) -> None:
        start = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
        errors, taken = [], []
        for tolerance in (1e-3, 1e-6, 1e-9):
            found = solve(spiral, start, 2.0, solver="bosh3", steps=2000, tolerance=tolerance)
            assert bool((found.reached == 1).all())
            errors.append(float((start + 2.0 * found.mean - spiralled(start, 2.0)).norm()))
            taken.append(int(found.steps))
        for tolerance, error in zip((1e-3, 1e-6, 1e-9), errors, strict=True):
            assert error < 30 * tolerance
        # A method of order 3 takes ten times as many steps for a thousandth of the error of each.
        assert taken[2] / taken[1] == pytest.approx(10.0, rel=0.2)

    def test_the_embedded_pair_is_of_second_order(self) -> None:
        """One step of a small size: its error estimate falls with the third power of the step."""
        start = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
        sizes = []
        for length in (0.2, 0.1):
            first, second = spiral(start), spiral(start + length / 2 * spiral(start))
            third = spiral(start + 3 / 4 * length * second)
            after = spiral(start + length * (2 * first + 3 * second + 4 * third) / 9)
            sizes.append(float((length * (-5 / 72 * first + second / 12 + third / 9 - after / 8)).norm()))
        assert math.log2(sizes[0] / sizes[1]) == pytest.approx(3.0, abs=0.15)


class TestIdentities:
    """What holds exactly for a unit field that is orthogonal to the state."""

    @pytest.mark.parametrize("steps", [1, 2, 5, 10])
    def test_eulers_norm(self, steps: int) -> None:
        found = starts() + 2.0 * solve(unit_field, starts(), 2.0, steps=steps).mean
        expected = starts().square().sum(1) + 2.0**2 / steps
        torch.testing.assert_close(found.square().sum(1), expected, rtol=1e-13, atol=0)

    def test_midpoint_does_not_share_it(self) -> None:
        found = starts() + 2.0 * solve(unit_field, starts(), 2.0, solver="midpoint", steps=2).mean
        assert ((found.square().sum(1) - starts().square().sum(1)).abs() < 0.2).all()

    @pytest.mark.parametrize("horizon", [0.5, 20.0, 1000.0])
    def test_the_geodesic_keeps_the_norm(self, horizon: float) -> None:
        found = starts() + horizon * solve(unit_field, starts(), horizon, solver="geodesic", steps=7).mean
        torch.testing.assert_close(found.norm(dim=1), starts().norm(dim=1), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("solver", ["geodesic", "rk4", "bosh3"])
    def test_no_state_turns_farther_than_its_arc(self, solver: Solver) -> None:
        found = starts() + 2.0 * solve(unit_field, starts(), 2.0, solver=solver, steps=60).mean
        angle = torch.nn.functional.cosine_similarity(found, starts()).acos()
        assert (angle <= 2.0 / starts().norm(dim=1) + 1e-9).all()
        assert (angle > 0.5 * 2.0 / starts().norm(dim=1)).all()

    @pytest.mark.parametrize("solver", list(ORDER))
    def test_a_path_leads_from_the_start_to_the_end(self, solver: Solver) -> None:
        found = solve(unit_field, starts(), 2.0, solver=solver, steps=12, trace=True)
        assert found.path is not None and found.path.shape == (13, *starts().shape)
        assert torch.equal(found.path[0], starts())
        torch.testing.assert_close(found.path[-1], starts() + 2.0 * found.mean)

    @pytest.mark.parametrize("solver", list(ORDER))
    def test_a_horizon_that_is_a_tensor_may_be_zero_or_negative(self, solver: Solver) -> None:
        zero = solve(unit_field, starts(), torch.tensor(0.0), solver=solver, steps=8)
        assert torch.isfinite(zero.mean).all()
        torch.testing.assert_close(zero.mean, unit_field(starts()), rtol=1e-12, atol=1e-12)
        back = solve(unit_field, starts(), torch.tensor(-0.5, dtype=torch.float64), solver=solver, steps=20)
        h = form()
        assert (barriers.value(h, starts() - 0.5 * back.mean) < barriers.value(h, starts())).all()


class TestReference:
    """Where torchdiffeq ends (tests/control/fixtures/barriers.py)."""

    def test_the_inputs_are_the_same(self) -> None:
        digest = hashlib.sha256(b"".join(part.tobytes() for part in flow_inputs())).hexdigest()
        assert digest == FIXTURE["inputs_sha256"]

    @pytest.mark.parametrize("solver", ["euler", "midpoint"])
    def test_equal_steps(self, solver: Solver) -> None:
        found = solve(unit_field, starts(), FIXTURE["horizon"], solver=solver, steps=FIXTURE["steps"])
        expected = torch.tensor(FIXTURE["ends"][solver], dtype=torch.float64)
        torch.testing.assert_close(starts() + FIXTURE["horizon"] * found.mean, expected, rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize(("solver", "steps", "tolerance"), [("rk4", 200, 0.5), ("bosh3", 2000, 1e-9)])
    def test_the_exact_end(self, solver: Solver, steps: int, tolerance: float) -> None:
        found = solve(unit_field, starts(), FIXTURE["horizon"], solver=solver, steps=steps, tolerance=tolerance)
        expected = torch.tensor(FIXTURE["ends"]["exact"], dtype=torch.float64)
        torch.testing.assert_close(starts() + FIXTURE["horizon"] * found.mean, expected, rtol=1e-6, atol=1e-6)


class TestStops:
    """What has no way to go on stays, and says so; nothing becomes NaN."""

    @pytest.mark.parametrize("solver", list(ORDER))
    def test_a_critical_point_and_a_state_of_norm_zero_stay(self, solver: Solver) -> None:
        h = QuadraticForm(torch.diag(torch.tensor([2.0, 1.0, 0.0])), torch.zeros(3), torch.tensor(0.0), unit=True)
        still = torch.tensor([[3.0, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 0.0]])
        found = solve(lambda a: barriers.direction(h, a), still, 1.5, solver=solver, steps=6)
        assert torch.equal(found.mean, torch.zeros_like(still))

    def test_rows_do_not_mix(self) -> None:
        for solver in ORDER:
            whole = solve(unit_field, starts(), 2.0, solver=solver, steps=15).mean
            alone = torch.cat([solve(unit_field, row[None], 2.0, solver=solver, steps=15).mean for row in starts()])
            torch.testing.assert_close(whole, alone, rtol=1e-12, atol=1e-12)

    def test_an_adaptive_limit_is_told_and_the_state_is_where_it_came(self) -> None:
        whole = solve(unit_field, starts(), 2.0, solver="bosh3", steps=2000, tolerance=1e-8)
        short = solve(unit_field, starts(), 2.0, solver="bosh3", steps=5, tolerance=1e-8)
        assert (short.reached < 1).all() and (short.reached > 0).all() and (short.steps <= 5).all()
        assert (whole.reached == 1).all() and (whole.steps > 5).all()
        assert ((starts() + 2.0 * short.mean).norm(dim=1) - starts().norm(dim=1)).abs().max() < 1e-6
        part = solve(unit_field, starts()[:1], float(2.0 * short.reached[0]), solver="rk4", steps=100)
        torch.testing.assert_close(2.0 * short.mean[:1], 2.0 * short.reached[0] * part.mean, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            ({"horizon": 0.0}, "horizon: got 0.0, expected a positive number"),
            ({"horizon": -1.0}, "horizon: got -1.0"),
            ({"horizon": math.inf}, "horizon: got inf"),
            ({"steps": 0}, "steps: got 0, expected a whole number of at least 1"),
            ({"steps": 2.5}, "steps: got 2.5"),
            ({"solver": "heun"}, "solver: got 'heun', expected one of euler"),
            ({"solver": "bosh3", "tolerance": 0.0}, "tolerance: got 0.0"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, given: dict, told: str) -> None:
        options = {"horizon": 1.0, **given}
        with pytest.raises(LawError, match=told):
            solve(unit_field, starts(), options.pop("horizon"), **options)
