"""Bounds: that they hold on systems whose curvature is known, how wide they are, that K = 0 contracts, bad input."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlib.control.bounds import (
    certificate,
    contractions,
    curvatures,
    error_sizes,
    lyapunov_weights,
    operator_norm,
    posterior_bound,
    released_bound,
    remainders,
    transition_norms,
    weighted_curvature,
    weighted_norm,
)
from steerlib.control.riccati import gain_stack, riccati
from steerlib.errors import LawError
from tests.control.systems import draw, system

LAYERS, WIDTH = 6, 8
#: The largest second derivative of tanh.
BEND = 4 / 27**0.5


class Tanh:
    """phi_k(z) = z + c U tanh(V z), U and V orthogonal: the Jacobian's Lipschitz constant is at most c * BEND."""

    def __init__(self, seed: int, size: float = 0.5) -> None:
        self.size = size
        self.out, self.into = (torch.linalg.qr(draw(LAYERS, WIDTH, WIDTH, seed=seed + k))[0] for k in (0, 100))

    def step(self, k: int, z: Tensor) -> Tensor:
        return z + self.size * torch.tanh(z @ self.into[k].T) @ self.out[k].T

    def jacobian(self, k: int, z: Tensor) -> Tensor:
        slope = 1 - torch.tanh(self.into[k] @ z) ** 2
        return torch.eye(WIDTH, dtype=torch.float64) + self.size * self.out[k] * slope @ self.into[k]

    def nominal(self, start: Tensor) -> tuple[Tensor, Tensor]:
        """States zbar and Jacobians there."""
        states = [start]
        for k in range(LAYERS):
            states.append(self.step(k, states[-1]))
        return torch.stack(states), torch.stack([self.jacobian(k, states[k]) for k in range(LAYERS)])

    def errors(self, nominal: Tensor, gains: Tensor, starts: Tensor) -> Tensor:
        """e_0 .. e_l of closed loops that begin at errors (n, width)."""
        found = [starts]
        for k in range(LAYERS):
            z = nominal[k] + found[-1]
            found.append(self.step(k, z) - found[-1] @ gains[k].T - nominal[k + 1])
        return torch.stack(found, dim=1)


def case(seed: int, *, gain: bool = True, size: float = 0.3) -> tuple[Tanh, Tensor, Tensor, Tensor]:
    """A system, its closed loop, weights, and errors of 50 trajectories."""
    plant = Tanh(seed)
    nominal, a = plant.nominal(draw(WIDTH, seed=seed + 7))
    gains = gain_stack(a, q=1.0, r=1.0, q_f=1.0) if gain else torch.zeros_like(a)
    starts = size * torch.nn.functional.normalize(draw(50, WIDTH, seed=seed + 8), dim=1)
    closed = a - gains
    return plant, closed, lyapunov_weights(closed), plant.errors(nominal, gains, starts)


def test_the_system_bends_no_more_than_it_says() -> None:
    plant = Tanh(0)
    for seed in range(30):
        x, y = draw(2, WIDTH, seed=seed)
        change = torch.linalg.matrix_norm(plant.jacobian(0, x) - plant.jacobian(0, y), 2)
        assert float(change) <= plant.size * BEND * float((x - y).norm())
    tiny = 1e-4 * draw(WIDTH, seed=3)
    around = torch.full((WIDTH,), 0.3, dtype=torch.float64)
    exact = (plant.step(2, around + tiny) - plant.step(2, around - tiny)) / 2
    torch.testing.assert_close(plant.jacobian(2, around) @ tiny, exact, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("gain", [True, False])
def test_both_bounds_hold_and_the_certificate_is_the_wider(seed: int, gain: bool) -> None:
    plant, closed, weights, errors = case(seed, gain=gain)
    sizes = error_sizes(errors, weights)
    after = posterior_bound(closed, weights, errors)
    assert bool((sizes <= after * (1 + 1e-9)).all())
    bend = weighted_curvature(torch.full((LAYERS,), plant.size * BEND), weights)
    assert bool((curvatures(errors, closed, weights) <= bend * (1 + 1e-9)).all())
    wider = posterior_bound(closed, weights, errors, curvature=bend)
    before = certificate(closed, weights, sizes[:, 0], bend)
    steps = certificate(closed, weights, sizes[:, 0], bend, route="steps")
    norms = transition_norms(closed, weights)  # computed once or each time: the same
    assert torch.equal(posterior_bound(closed, weights, errors, norms=norms), after)
    assert torch.equal(certificate(closed, weights, sizes[:, 0], bend, norms=norms), before)
    assert bool((after <= wider * (1 + 1e-9)).all()) and bool((wider <= before * (1 + 1e-9)).all())
    assert bool((before <= steps * (1 + 1e-9)).all()) and bool((before[:, -1] < 0.999 * steps[:, -1]).all())
    assert float((after / sizes)[:, -1].median()) > 1.05  # a bound, not an equality: this test could have failed


def test_a_linear_system_has_the_bound_of_its_worst_direction() -> None:
    a = system(4, 5)
    closed = a - gain_stack(a, q=1.0, r=2.0, q_f=1.0)
    weights = lyapunov_weights(closed)
    through = closed[3] @ closed[2] @ closed[1] @ closed[0]
    factor = torch.linalg.cholesky(weights[0])
    _, values, axes = torch.linalg.svd(torch.linalg.solve(factor, through.T).T)  # M C^-T
    worst = torch.linalg.solve(factor.T, axes[0])
    errors = [worst]
    for step in closed:
        errors.append(step @ errors[-1])
    errors = torch.stack(errors)[None]
    torch.testing.assert_close(error_sizes(errors, weights)[0, 0], torch.tensor(1.0, dtype=torch.float64))
    assert float(remainders(errors, closed).abs().max()) < 1e-12
    bound = posterior_bound(closed, weights, errors)[0, -1]
    assert float(bound) == pytest.approx(float(errors[0, -1].norm()), rel=1e-9) == pytest.approx(float(values[0]))
    torch.testing.assert_close(certificate(closed, weights, torch.ones(1), torch.zeros(4))[0, -1], bound)


def test_the_contraction_is_an_identity_and_below_one_for_any_loop() -> None:
    """A = 1.5 I without control contracts as well: the weights hold the growth."""
    for closed in (system(4, 5, size=2.0), torch.stack([1.5 * torch.eye(5, dtype=torch.float64)] * 4)):
        weights = lyapunov_weights(closed)
        found = contractions(weights)
        measured = torch.stack([operator_norm(closed[k], weights[k], weights[k + 1]) for k in range(4)])
        torch.testing.assert_close(found, measured)
        assert bool((found < 1).all())
    grown = float(found.prod() * torch.linalg.eigvalsh(weights[0])[-1].sqrt())
    assert grown == pytest.approx(1.5**4) and float(weights[0, 0, 0]) == pytest.approx(sum(2.25**k for k in range(5)))


def test_transitions_are_norms_of_products() -> None:
    closed = system(3, 4)
    weights = lyapunov_weights(closed)
    found = transition_norms(closed, weights)
    assert found[0].tolist() == [1, 0, 0, 0] and found.diagonal().tolist() == [1] * 4
    torch.testing.assert_close(found[3, 1], operator_norm(closed[2] @ closed[1], weights[1], weights[3]))
    # By the definition: the largest ratio over many directions comes close from below.
    x = draw(20_000, 4, seed=2)
    ratio = weighted_norm(x @ (closed[1] @ closed[0]).T, weights[2]) / weighted_norm(x, weights[0])
    assert 0.97 * float(found[2, 0]) < float(ratio.max()) <= float(found[2, 0]) * (1 + 1e-9)
    # P_l = I: at the end the norm is plain; and products are never above the products of steps.
    torch.testing.assert_close(weights[3], torch.eye(4, dtype=torch.float64))
    assert float(found[3, 0]) <= float(found[1, 0] * found[2, 1] * found[3, 2])


def test_costs_of_the_regulator_serve_as_weights_too() -> None:
    a = system(4, 5)
    steps = list(riccati(a, q=0.5, r=1.0, q_f=0.5, costs=True))[::-1]
    costs = torch.stack([*(step.cost for step in steps), 0.5 * torch.eye(5, dtype=torch.float64)])
    closed = a - torch.stack([step.gain for step in steps])
    norms = transition_norms(closed, costs)
    assert bool((norms.diagonal(-1) < 1).all())


def test_a_certificate_ends_where_its_curvature_is_not_known() -> None:
    plant, closed, weights, errors = case(1)
    start = error_sizes(errors, weights)[:, 0]
    bend = weighted_curvature(torch.full((LAYERS,), plant.size * BEND), weights)
    whole = certificate(closed, weights, start, bend)
    reach = torch.full((LAYERS,), torch.inf, dtype=torch.float64)
    reach[2] = whole[:, 2].median()
    cut = certificate(closed, weights, start, bend, radius=reach)
    lost = whole[:, 2] > reach[2]
    assert 0 < int(lost.sum()) < len(lost)
    assert torch.equal(cut[~lost], whole[~lost]) and torch.equal(cut[:, :3], whole[:, :3])
    assert bool(cut[lost, 3:].isinf().all())


def test_a_certificate_of_a_large_error_says_so() -> None:
    """b grows without limit where curvature times error outgrows the contraction: no false comfort."""
    plant, closed, weights, _ = case(2)
    bend = weighted_curvature(torch.full((LAYERS,), plant.size * BEND), weights)
    ends = certificate(closed, weights, torch.tensor([1e-3, 1e-2, 10.0]), bend)[:, -1]
    assert float(ends[1] / ends[0]) == pytest.approx(10, rel=0.2) and float(ends[2]) > 1e6


def test_the_scripts_quantity_is_another() -> None:
    """By hand for two layers of width one: H = (2, 3), P = (1 + 4 (1 + 9), 1 + 9, 1) = (41, 10, 1)."""
    closed = torch.tensor([[[2.0]], [[3.0]]], dtype=torch.float64)
    weights = lyapunov_weights(closed)
    assert weights.flatten().tolist() == [41, 10, 1]
    errors = torch.tensor([[[1.0], [2.5], [8.0]]], dtype=torch.float64)  # remainders 0.5 and 0.5
    text = [41**0.5, 2 * 10**0.5 + 0.5 * 10**0.5, 6 + 3 * 0.5 + 0.5]
    assert posterior_bound(closed, weights, errors)[0].tolist() == pytest.approx(text)
    # Without its last factor; remainders weighed by 41 and 10; then as the text has it.
    script = [41**0.5, 10**0.5 + 0.5 * 41**0.5, 2 + 3 / 10**0.5 * 0.5 * 41**0.5 + 0.5 * 10**0.5]
    assert released_bound(closed, weights, errors)[0].tolist() == pytest.approx(script)


def test_the_script_without_its_defects_is_the_bound_and_each_changes_it() -> None:
    _, closed, weights, errors = case(3)
    text = posterior_bound(closed, weights, errors)
    torch.testing.assert_close(released_bound(closed, weights, errors, defects=()), text)
    for defect in ("product", "weight", "largest", "norm"):
        found = released_bound(closed, weights, errors, defects=(defect,))
        torch.testing.assert_close(found[:, 0], text[:, 0])
        assert float((found[:, -1] / text[:, -1] - 1).abs().max()) > 1e-3, defect
    assert bool((released_bound(closed, weights, errors, defects=("largest",)) >= text * (1 - 1e-9)).all())


def test_the_scripts_norm_reads_half_of_a_matrix() -> None:
    closed = system(3, 4)
    weights = lyapunov_weights(closed)
    errors = torch.zeros(1, 4, 4, dtype=torch.float64)
    errors[0, :2] = draw(2, 4, seed=1)
    for k in (1, 2):  # so that these layers add nothing
        errors[0, k + 1] = closed[k] @ errors[0, k]

    def norm(matrix: Tensor, before: Tensor) -> Tensor:
        lower = torch.linalg.solve(before, matrix.T @ matrix).tril()  # the last weight is I
        return torch.linalg.eigvalsh(lower + lower.tril(-1).T)[-1].sqrt()

    start = norm(closed[1] @ closed[0], weights[0]) * weighted_norm(errors[0, 0], weights[0])
    added = norm(closed[2] @ closed[1], weights[1]) * weighted_norm(remainders(errors, closed)[0, 0], weights[0])
    torch.testing.assert_close(released_bound(closed, weights, errors)[0, 3], start + added)
    true = operator_norm(closed[2] @ closed[1], weights[1], weights[3])
    assert float(norm(closed[2] @ closed[1], weights[1])) != pytest.approx(float(true), rel=1e-3)
    # For a single step the matrix is I - P^-1, symmetric, and half of it says the same.
    assert float(norm(closed[2], weights[2])) == pytest.approx(float(contractions(weights)[2]))


def test_bad_input_says_what_to_do() -> None:
    closed = system(2, 3)
    weights = lyapunov_weights(closed)
    with pytest.raises(LawError, match=r"got closed loops of shape \(3, 3\), expected \(layers, width, width\)"):
        lyapunov_weights(closed[0])
    with pytest.raises(LawError, match="weights are not finite"):
        lyapunov_weights(closed * torch.nan)
    with pytest.raises(LawError, match="not positive definite to rounding.*lyapunov_weights"):
        weighted_norm(torch.ones(3), -weights[0])
    with pytest.raises(LawError, match="got route 'sums'.*products, steps"):
        certificate(closed, weights, torch.ones(1), torch.ones(2), route="sums")  # type: ignore[arg-type]
    with pytest.raises(LawError, match="got defect 'sum'.*Known are: product, weight, largest, norm"):
        released_bound(closed, weights, torch.ones(1, 3, 3), defects=("sum",))  # type: ignore[arg-type]
    for start in (-1.0, torch.inf, torch.nan):
        with pytest.raises(LawError, match="got a start of .*expected finite norms"):
            certificate(closed, weights, torch.tensor([start]), torch.ones(2))
