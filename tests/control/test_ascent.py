"""Ascent of a value: by hand where V is simple, against autograd elsewhere, and in both forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from steerlib.control.ascent import Ascent, ReluNet, ascend, cheaper_form, gradient, gram_of, value
from steerlib.control.bellman import ValueNetwork, reaching_loss
from steerlib.control.networks import frozen, seeded

DOUBLE = torch.float64


def net_of(network: ValueNetwork) -> ReluNet:
    return ReluNet.of(network, network.weights[0].dtype)


def made(width: int, hidden: int, layers: int, *, seed: int = 0, size: float = 3.0) -> ValueNetwork:
    """A frozen network of random weights, several times the usual ones, so that a short way crosses kinks."""
    network = frozen(seeded(lambda: ValueNetwork(width, hidden, layers), seed=seed)).double()
    for part in network.buffers():
        part.mul_(size)
    return network


def one_unit(weight: list[float], bias: float, out: float, constant: float = 0.0) -> ReluNet:
    """V = out * relu(weight . z + bias) + constant."""
    t = [torch.tensor(x, dtype=DOUBLE) for x in ([weight], [bias], [out], constant)]
    return ReluNet(t[0], t[1], None, None, t[2], t[3])


def tent(down: float, width: int = 1) -> ReluNet:
    """V = x - down * relu(x), of the first coordinate: rises to the kink at 0, and then by 1 - down."""
    first = torch.zeros(3, width, dtype=DOUBLE)
    first[:, 0] = torch.tensor([1.0, -1.0, 1.0])
    zero = torch.zeros(3, dtype=DOUBLE)
    return ReluNet(first, zero, None, None, torch.tensor([1.0, -1.0, -down], dtype=DOUBLE), zero[0])


def states(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def number(x: float) -> Tensor:
    return torch.tensor(x, dtype=DOUBLE)


def both(net: ReluNet, z: Tensor, **how: Any) -> Ascent:
    """The ascent, once both forms have agreed."""
    plain = ascend(net, z, **how)
    gram = ascend(net, z, gram=gram_of(net.first), **how)
    for one, other in zip(plain, gram, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)
    return plain


class TestByHand:
    def test_a_linear_value_is_climbed_along_its_weights(self) -> None:
        net = one_unit([3.0, -4.0], bias=100.0, out=0.5)
        z = states(2, 5, 2)
        found = both(net, z, steps=7, alpha=0.1, trace=True)
        expected = 7 * 0.1 * 0.5 * torch.tensor([3.0, -4.0], dtype=DOUBLE)
        torch.testing.assert_close(found.input, expected.expand_as(z))
        assert found.values is not None and found.path is not None
        torch.testing.assert_close(found.values.diff(dim=0), torch.full((7, 2, 5), 0.1 * 0.25 * 25, dtype=DOUBLE))
        torch.testing.assert_close(found.path[3], expected.expand_as(z) * 3 / 7)

    def test_a_unit_that_is_off_moves_nothing_and_one_at_the_kink_is_off(self) -> None:
        net = one_unit([1.0], bias=0.0, out=1.0)
        found = both(net, torch.tensor([[-1.0], [0.0], [1e-9]], dtype=DOUBLE), steps=4, alpha=0.5)
        assert found.input[:, 0].tolist() == [0.0, 0.0, 2.0]

    def test_a_falling_unit_is_left_with_the_step_that_crosses_its_kink(self) -> None:
        net = one_unit([2.0], bias=0.0, out=-1.0)  # V = -relu(2 x): the gradient is -2 until x <= 0
        z = torch.tensor([[0.9], [0.1], [5.0]], dtype=DOUBLE)
        found = both(net, z, steps=10, alpha=0.2, trace=True)  # steps of -0.4
        torch.testing.assert_close(found.input[:, 0], torch.tensor([-1.2, -0.4, -4.0], dtype=DOUBLE))

    def test_a_ridge_is_crossed_to_and_fro(self) -> None:
        found = both(tent(2.0), torch.tensor([[-0.5]], dtype=DOUBLE), steps=4, alpha=1.0, trace=True)
        assert found.path is not None
        assert found.path[:, 0, 0].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0]

    def test_no_step_is_no_input(self) -> None:
        found = both(net_of(made(4, 8, 2)), states(3, 4), steps=0, alpha=1.0, watch=True)
        assert not found.input.any() and not found.failed.any()

    @pytest.mark.parametrize("layers", [2, 3])
    def test_three_layers_by_hand(self, layers: int) -> None:
        """Every unit on: V is the product of the matrices."""
        network = made(3, 5, layers)
        for bias in network.biases:
            bias.fill_(1e4)
        *inner, last = network.weights
        for weight in inner[1:]:
            weight.abs_()  # so that large pre-activations stay large
        product = last
        for weight in reversed(inner):
            product = product @ weight
        found = both(net_of(network), states(6, 3), steps=3, alpha=0.25)
        torch.testing.assert_close(found.input, 0.75 * product.expand(6, 3))


class TestAgainstAutograd:
    @given(
        width=st.integers(1, 9), hidden=st.integers(1, 12), layers=st.sampled_from([2, 3]), seed=st.integers(0, 99),
        shape=st.sampled_from([(), (1,), (5,), (2, 3), (0,), (2, 1, 3)]),
    )  # fmt: skip
    @settings(max_examples=60, deadline=None)
    def test_the_gradient(self, width: int, hidden: int, layers: int, seed: int, shape: tuple[int, ...]) -> None:
        network, z = made(width, hidden, layers, seed=seed), states(*shape, width, seed=seed + 1)
        expected = torch.func.grad(lambda s: network(s).sum())(z)
        with torch.inference_mode():
            torch.testing.assert_close(gradient(net_of(network), z), expected, atol=1e-6, rtol=1e-6)
            torch.testing.assert_close(value(net_of(network), z), network(z))

    @pytest.mark.parametrize("layers", [2, 3])
    @pytest.mark.parametrize("goal", [None, 0.7])
    def test_the_ascent_is_that_of_torch_sgd_as_released(self, layers: int, goal: float | None) -> None:
        network, z = made(6, 20, layers, seed=3), states(8, 6)
        u = torch.zeros_like(z, requires_grad=True)
        descent = torch.optim.SGD([u], lr=0.05)
        for _ in range(12):
            descent.zero_grad()
            v = network(z + u)
            (-v if goal is None else (v - goal).square()).sum().backward()
            descent.step()
        how = {} if goal is None else {"goal": number(goal)}
        found = both(net_of(network), z, steps=12, alpha=number(0.05), trace=True, **how)
        torch.testing.assert_close(found.input, u.detach(), atol=1e-10, rtol=1e-10)
        assert found.values is not None
        torch.testing.assert_close(found.values[-1], network(z + u.detach()))
        straight = 12 * 0.05 * gradient(net_of(network), z)
        assert (found.input - straight).norm() > 0.1 * straight.norm(), "no kink was crossed: the test asks nothing"

    def test_the_smooth_absolute_error(self) -> None:
        network, z = made(6, 20, 3, seed=4), states(40, 6)
        u = torch.zeros_like(z, requires_grad=True)
        descent = torch.optim.SGD([u], lr=0.02)
        for _ in range(15):
            descent.zero_grad()
            reaching_loss(network(z + u), 1.0).sum().backward()
            descent.step()
        found = both(net_of(network), z, steps=15, alpha=0.02, goal=number(1.0), huber=0.5, trace=True)
        torch.testing.assert_close(found.input, u.detach(), atol=1e-10, rtol=1e-10)
        assert found.values is not None
        near = (found.values[:-1] - 1).abs() < 0.5
        assert near.any() and not near.all(), "both parts of the loss are wanted"

    def test_rows_do_not_see_each_other(self) -> None:
        net, z = net_of(made(5, 16, 3)), states(4, 5)
        how = {"steps": 9, "alpha": 0.1, "radius": number(0.3), "goal": number(2.0), "tolerance": number(0.1)}
        whole = both(net, z, watch=True, **how)
        for row, state in enumerate(z):
            torch.testing.assert_close(both(net, state, watch=True, **how).input, whole.input[row])


class TestTrustRegion:
    def test_a_linear_value_leads_straight_to_the_boundary(self) -> None:
        net = one_unit([3.0, -4.0], bias=100.0, out=0.5)
        z = states(6, 2)
        for alpha in (0.01, 1e6):  # after many steps, or in one
            found = both(net, z, steps=400, alpha=alpha, radius=number(0.2))
            expected = 0.2 * z.norm(dim=1, keepdim=True) * torch.tensor([0.6, -0.8], dtype=DOUBLE)
            torch.testing.assert_close(found.input, expected)

    def test_it_ends_where_the_path_first_leaves_the_ball(self) -> None:
        net, z = net_of(made(6, 30, 2, seed=5)), states(50, 6)
        free = both(net, z, steps=40, alpha=0.002, trace=True).path
        found = both(net, z, steps=40, alpha=0.002, radius=number(0.15)).input
        assert free is not None
        limit = 0.15 * z.norm(dim=1)
        left = ~(free.norm(dim=-1) < limit).all(0)
        assert 0 < left.sum() < 50, "some rows are to leave, some not"
        torch.testing.assert_close(found[left].norm(dim=1), limit[left])
        torch.testing.assert_close(found[~left], free[-1][~left])
        for row in left.nonzero()[:, 0]:
            out = int((free[:, row].norm(dim=-1) >= limit[row]).nonzero()[0])
            before, after = free[out - 1, row], free[out, row]
            along = (found[row] - before) @ (after - before) / (after - before).square().sum()
            assert 0 <= along <= 1
            torch.testing.assert_close(before + along * (after - before), found[row])

    def test_rows_without_a_gradient_stay(self) -> None:
        found = both(
            one_unit([1.0], 0.0, 1.0), torch.tensor([[-1.0]], dtype=DOUBLE), steps=5, alpha=1.0, radius=number(1.0)
        )
        assert found.input.tolist() == [[0.0]]


class TestGoal:
    def test_the_right_step_reaches_it_at_once_and_what_is_there_stays(self) -> None:
        net = one_unit([3.0, -4.0], bias=100.0, out=1.0)
        z = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]], dtype=DOUBLE)  # V = 100, 99, 98
        found = both(net, z, steps=3, alpha=1 / 50, goal=number(99.0), tolerance=number(0.5), trace=True)
        assert found.values is not None
        assert found.values[:, :].tolist() == [[100.0, 99.0, 98.0], *[[99.0, 99.0, 99.0]] * 3]
        assert not found.input[1].any()

    def test_tolerance_is_where_a_row_stops(self) -> None:
        net = one_unit([1.0], bias=100.0, out=1.0)
        z = torch.tensor([[0.0]], dtype=DOUBLE)
        found = both(net, z, steps=50, alpha=0.25, goal=number(108.0), tolerance=number(1.0))
        assert found.input.tolist() == [[7.0]]  # 8 away, then 4, 2, 1


class TestDivergence:
    def test_steps_too_long_for_a_goal(self) -> None:
        net = one_unit([1.0, 0.0], bias=100.0, out=1.0)
        z = torch.zeros(2, 2, dtype=DOUBLE)
        fine, wild = (both(net, z, steps=6, alpha=a, goal=number(101.0), watch=True).failed for a in (0.9, 1.1))
        assert not fine.any()
        assert (wild == 1).all()  # the distance grows by 2 * 1.1 - 1 with each step

    def test_only_the_row_that_falls_and_at_which_step(self) -> None:
        z = torch.tensor([[-5.0], [-0.5], [-2.5]], dtype=DOUBLE)
        found = both(tent(11.0), z, steps=5, alpha=1.0, watch=True)
        # x = -4 .. 0, which is off; x = 0.5 with V = -5; x = -1.5, -0.5, 0.5 with V = -5.
        assert found.failed.tolist() == [0, 1, 3]

    def test_to_and_fro_across_a_ridge_is_no_divergence(self) -> None:
        found = both(tent(1.5), torch.tensor([[-5.3]], dtype=DOUBLE), steps=50, alpha=1.0, watch=True, trace=True)
        assert found.values is not None and (found.values.diff(dim=0) < 0).any()
        assert not found.failed.any()

    @pytest.mark.parametrize("layers", [2, 3])
    def test_numbers_that_are_not_finite(self, layers: int) -> None:
        network, z = made(4, 8, layers).float(), states(3, 4).float()
        z[1] = torch.nan
        found = ascend(net_of(network), z, steps=3, alpha=0.01, watch=True)
        assert found.failed.tolist() == [0, 1, 0]
        z = z.nan_to_num()
        moved = gradient(net_of(network), z).any(1)
        assert (
            torch.equal(ascend(net_of(network), z, steps=3, alpha=3e38, watch=True).failed > 0, moved) and moved.any()
        )

    def test_a_flat_value_does_not_fall_by_rounding(self) -> None:
        """Steps of nearly nothing beside weights of any size."""
        network, z = made(30, 64, 3, size=6.0).float(), states(2000, 30).float()
        for form in (None, gram_of(network.weights[0])):
            assert not ascend(net_of(network), z, steps=5, alpha=1e-9, gram=form, watch=True).failed.any()


class TestCost:
    @pytest.mark.parametrize("layers", [2, 3])
    @pytest.mark.parametrize(("width", "hidden"), [(16, 16), (16, 31), (16, 33), (64, 16)])
    @pytest.mark.parametrize("steps", [1, 2, 3, 30])
    def test_the_cheaper_form_by_a_count(self, layers: int, width: int, hidden: int, steps: int) -> None:
        net, z = net_of(made(width, hidden, layers)), states(4, width)
        counts = {}
        for form, gram in (("plain", None), ("gram", gram_of(net.first))):
            with FlopCounterMode(display=False) as counter:
                ascend(net, z, steps=steps, alpha=0.1, gram=gram)
            counts[form] = counter.get_total_flops() / len(z)
        deeper = 4 * hidden**2 * steps * (layers - 2)
        assert counts["plain"] == 4 * width * hidden * steps + deeper
        assert counts["gram"] == 2 * hidden**2 * (steps - 1) + 4 * width * hidden + deeper
        assert counts[cheaper_form(width=width, hidden=hidden, steps=steps)] == min(counts.values())

    def test_half_precision_keeps_small_steps(self) -> None:
        """Weights of bfloat16; sums of float32, in which a thousand small steps are not lost."""
        network, z = made(16, 64, 2), states(20, 16)
        exact = ascend(net_of(network), z, steps=1000, alpha=1e-4).input
        half = net_of(network.to(torch.bfloat16))
        for gram in (None, gram_of(half.first)):
            found = ascend(half, z.float(), steps=1000, alpha=1e-4, gram=gram).input
            assert found.dtype == torch.float32
            assert (found - exact).norm() < 0.05 * exact.norm()
