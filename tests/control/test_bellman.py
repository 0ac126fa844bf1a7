"""Bellman targets on rows small enough to check by hand, and on rows where two definitions must agree."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steerlib.control.bellman import (
    TARGETS,
    ValueNetwork,
    bellman_errors,
    bellman_loss,
    final_values,
    lambda_returns,
    padded,
    preference_loss,
    reaching_loss,
    reaching_rewards,
    within,
)
from steerlib.control.networks import frozen, seeded
from steerlib.errors import LawError

# Two answers, of three states and of one. What stands in the padding must not matter.
VALUES = torch.tensor([[1.0, 3.0, 6.0], [2.0, torch.nan, torch.nan]], dtype=torch.float64)
LENGTHS = torch.tensor([3, 1])
REWARDS = torch.tensor([10.0, 20.0], dtype=torch.float64)

# target -> errors, and the gradient of the loss in V, both by hand.
BY_HAND = {
    "td0": ([[-2, -3, -4], [-18, 0, 0]], [[-2, -3, -4], [-18, 0, 0]]),
    "residual": ([[-2, -3, -4], [-18, 0, 0]], [[-2, -1, -1], [-18, 0, 0]]),
    "released": ([[-2, -3, -9], [-18, 0, 0]], [[-11, -1, 3], [-18, 0, 0]]),
    "monte-carlo": ([[-9, -7, -4], [-18, 0, 0]], [[-9, -7, -4], [-18, 0, 0]]),
    # G = (0.5 * 3 + 0.5 * 8, 0.5 * 6 + 0.5 * 10, 10)
    "td-lambda": ([[-4.5, -5, -4], [-18, 0, 0]], [[-4.5, -5, -4], [-18, 0, 0]]),
    "prompt-only": ([[-9, 0, 0], [-18, 0, 0]], [[-9, 0, 0], [-18, 0, 0]]),
}


def test_every_target_has_an_answer_by_hand() -> None:
    assert set(BY_HAND) == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_errors_loss_and_gradient_by_hand(target) -> None:
    values = VALUES.clone().requires_grad_()
    expected, slope = (torch.tensor(rows, dtype=torch.float64) for rows in BY_HAND[target])
    errors = bellman_errors(values, LENGTHS, REWARDS, target=target, lam=0.5)
    loss = bellman_loss(values, LENGTHS, REWARDS, target=target, lam=0.5)
    loss.backward()
    assert torch.equal(errors, expected)
    assert float(loss.detach()) == float(expected.square().sum() / 2)
    # d loss / d V = 2 / batch * (what reaches V): the halves cancel.
    assert values.grad is not None and torch.equal(values.grad, slope)


def rows(seed: int, n: int = 5, time: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, time + 1, (n,), generator=chance)
    draw = torch.randn(n, time + 1, generator=chance, dtype=torch.float64)
    return draw[:, :time], lengths, draw[:, time]


@given(seed=st.integers(0, 10**6), lam=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_lambda_returns_solve_their_recursion(seed: int, lam: float) -> None:
    values, lengths, rewards = rows(seed)
    found = lambda_returns(values, lengths, rewards, lam)
    for row, (length, reward) in enumerate(zip(lengths.tolist(), rewards.tolist(), strict=True)):
        goal = reward
        for t in reversed(range(length)):
            assert float(found[row, t]) == pytest.approx(goal, abs=1e-12)
            goal = (1 - lam) * float(values[row, t]) + lam * goal


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_lambda_zero_is_td0_and_lambda_one_is_monte_carlo(seed: int) -> None:
    values, lengths, rewards = rows(seed)

    def both(target, lam: float) -> tuple[Tensor, Tensor]:
        leaf = values.clone().requires_grad_()
        errors = bellman_errors(leaf, lengths, rewards, target=target, lam=lam)
        errors.square().sum().backward()
        return errors.detach(), leaf.grad  # type: ignore[return-value]

    for lam, twin in ((0.0, "td0"), (1.0, "monte-carlo")):
        for one, other in zip(both("td-lambda", lam), both(twin, lam), strict=True):
            assert torch.equal(one, other)
    # And the middle is neither: the two tests above could not tell a target that ignores lam.
    if int(lengths.max()) > 1:
        assert not torch.equal(both("td-lambda", 0.5)[0], both("td0", 0.5)[0])


def test_long_answers_and_small_lambda_lose_nothing() -> None:
    """Dividing by powers of lambda, as closed forms by cumulative sums do, would overflow here."""
    values = torch.zeros(1, 4000)
    found = lambda_returns(values, torch.tensor([4000]), torch.ones(1), 0.01)
    assert torch.isfinite(found).all()
    assert found[0, -3:].tolist() == pytest.approx([1e-4, 1e-2, 1.0])


@pytest.mark.parametrize("target", TARGETS)
def test_the_value_of_a_certain_reward_is_a_fixed_point(target) -> None:
    """If V = r everywhere, no target asks for a change."""
    _, lengths, rewards = rows(3)
    errors = bellman_errors(rewards[:, None].expand(5, 9), lengths, rewards, target=target)
    torch.testing.assert_close(errors, torch.zeros_like(errors), atol=1e-14, rtol=0)


def test_half_precision_is_raised_before_it_is_squared() -> None:
    values = torch.full((1, 2), 300.0, dtype=torch.float16)
    loss = bellman_loss(values, torch.tensor([2]), torch.tensor([0.0]), target="monte-carlo")
    assert float(loss) == 2 * 300.0**2  # beyond 65504


def test_packed_values_become_rows_and_carry_gradients() -> None:
    flat = torch.arange(1.0, 5.0, requires_grad=True)
    found = padded(flat, torch.tensor([3, 1]))
    assert found.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert within(torch.tensor([3, 1]), 3).tolist() == [[True] * 3, [True, False, False]]
    assert final_values(found, torch.tensor([3, 1])).tolist() == [3, 4]
    found[0, 2].backward()
    assert flat.grad is not None and flat.grad.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("layers", [2, 3])
def test_the_network_is_linear_layers_with_relu_between(layers: int) -> None:
    network = seeded(lambda: ValueNetwork(3, 5, layers), seed=1)
    states = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    found = states
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        found = (found @ weight.T + bias).clamp(min=0)
    torch.testing.assert_close(network(states), (found @ network.weights[-1].T + network.biases[-1])[..., 0])
    assert [tuple(w.shape) for w in network.weights] == [(5, 3), *[(5, 5)] * (layers - 2), (1, 5)]
    assert network(states).shape == (2, 4) and network(states[0, 0].bfloat16()).dtype == torch.float32
    before = network(states)
    still = frozen(network)
    assert not list(still.parameters()) and torch.equal(still(states), before)


def test_sizes_as_the_card_counts_them() -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in ValueNetwork(4096, 4096, layers).parameters()) for layers in (2, 3)]
    assert [round(count / 1e6, 1) for count in counts] == [16.8, 33.6]


def test_preferences_pull_pairs_apart_and_the_plant_towards_the_better() -> None:
    better, worse = torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0])
    pairs = (math.log1p(math.exp(-1)) + math.log(2)) / 2
    assert float(preference_loss(better, worse)) == pytest.approx(pairs)
    assert float(preference_loss(better, worse, better - 2.0, pull=0.5)) == pytest.approx(pairs + 2.0)
    leaf = torch.zeros(2, requires_grad=True)
    preference_loss(leaf[:1], leaf[1:]).backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [-0.5, 0.5]


def test_reaching_a_goal() -> None:
    assert reaching_rewards(torch.tensor([1.0, 3.0]), 2.5).tolist() == [-2.25, -0.25]
    values = torch.tensor([2.5, 2.75, 4.5], requires_grad=True)
    losses = reaching_loss(values, 2.5)
    losses.sum().backward()
    assert losses.tolist() == [0.0, 0.0625, 1.75]
    assert values.grad is not None and values.grad.tolist() == [0.0, 0.5, 1.0]


def test_refusals() -> None:
    network = seeded(lambda: ValueNetwork(3, 5), seed=0)
    with pytest.raises(LawError, match="made for states of width 3, got width 4.*Fix"):
        network(torch.zeros(2, 4))
    with pytest.raises(LawError, match="layers: got 4, expected 2 or 3"):
        ValueNetwork(3, 5, 4)
    with pytest.raises(LawError, match="hidden: got 0, expected at least 1"):
        ValueNetwork(3, 0)
    with pytest.raises(LawError, match="'tdo', which does not exist. Did you mean td0"):
        bellman_loss(VALUES, LENGTHS, REWARDS, target="tdo")  # type: ignore[arg-type]
    with pytest.raises(LawError, match=r"lam: got 1.5, expected a number in \[0, 1\]"):
        bellman_loss(VALUES, LENGTHS, REWARDS, target="td-lambda", lam=1.5)
