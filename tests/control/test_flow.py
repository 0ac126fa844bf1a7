"""Integration has its orders, and a rectified flow finds the end that belongs to a start unless paths cross."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from steerlib.control.flow import Velocity, integrate, straight_loss
from steerlib.control.networks import Training, seeded, train


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
def test_order_of_convergence(solver, order: int) -> None:
    """x' = cos(t) x has x(1) = exp(sin 1) x(0)."""
    start = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    exact = start * math.exp(math.sin(1.0))
    errors = [
        float((integrate(lambda x, t: t.cos() * x, start, steps=steps, solver=solver) - exact).abs().max())
        for steps in (20, 40)
    ]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)
    one = integrate(lambda x, t: t.cos() * x, start, steps=1, solver=solver)
    torch.testing.assert_close(one, start * (2.0 if order == 1 else 1 + 1.5 * math.cos(0.5)))


def test_the_loss_is_zero_for_straight_paths_alone() -> None:
    start, end = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0))
    time = torch.linspace(0.1, 0.9, 6)
    seen: list[Tensor] = []

    def field(state: Tensor, when: Tensor) -> Tensor:
        seen.append(state)
        assert when is time
        return end - start

    assert float(straight_loss(field, start, end, time)) == 0.0
    torch.testing.assert_close(seen[0][3], (1 - time[3]) * start[3] + time[3] * end[3])
    assert float(straight_loss(lambda *_: end - start + 2.0, start, end, time)) == pytest.approx(4.0)


def learned(matrix: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """What a learned flow makes of new starts whose ends are A times them, and these ends."""
    network = seeded(lambda: Velocity(start.shape[1], size=64, depth=2, time=16), seed=0)
    chance, end = torch.Generator().manual_seed(0), start @ matrix.T

    def loss(rows: Tensor, _: bool) -> Tensor:
        return straight_loss(network, start[rows], end[rows], torch.rand(len(rows), generator=chance))

    train(network, loss, rows=len(start), how=Training(steps=700, batch=128, rate=3e-3, warm_up=50, held_out=0), seed=0)
    new = torch.randn(200, start.shape[1], generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return integrate(network, new, steps=40), new @ matrix.T


def test_partners_are_found_unless_their_paths_meet() -> None:
    start = torch.randn(1000, 3, generator=torch.Generator().manual_seed(1))
    found, end = learned(torch.diag(torch.tensor([0.5, 2.0, -1.0])), start)
    error, size = (found - end).square().mean(0), end.square().mean(0)
    assert (error < 0.03 * size)[:2].all(), "paths apart"
    # x1 = -x0: all paths meet at the mean half way, and nothing tells which way to go on.
    assert found[:, 2].square().mean() < 0.1 * size[2]


def test_one_state_and_many_give_the_same_and_times_may_differ() -> None:
    network = seeded(lambda: Velocity(5, size=64, depth=3, time=8), seed=3)
    state, time = torch.randn(4, 2, 5), torch.rand(4, 2)
    with torch.no_grad():
        many = network(state, time)
        torch.testing.assert_close(network(state[1, 1], time[1, 1]), many[1, 1])
        torch.testing.assert_close(network(state, torch.tensor(0.3)), network(state, torch.full((4, 2), 0.3)))
        assert (many - network(state, time / 2)).abs().max() > 1e-3, "it looks at the time"
