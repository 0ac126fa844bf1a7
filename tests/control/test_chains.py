"""Finite worlds by hand, and the training targets on a chain whose values are known."""

from __future__ import annotations

import pytest
import torch

from steerlib.control.bellman import TARGETS
from steerlib.control.chains import (
    Chain,
    action_values,
    bellman_backup,
    best_actions,
    gridworld,
    policy_values,
)
from steerlib.control.linear_values import linear_value
from steerlib.errors import LawError


def tensor(*rows) -> torch.Tensor:  # noqa: ANN002
    return torch.tensor(rows, dtype=torch.float64)


#: 0 and 1 are beginnings; 0 leads to 2 or 3, 1 to 3; 2 ends in +1 or -1 (3:1), 3 in -1 (half) or goes to 2 (half).
FORK = Chain(
    moves=tensor([0, 0, 0.25, 0.75], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0.5, 0]),
    exits=tensor([0, 0], [0, 0], [0.75, 0.25], [0, 0.5]),
    payoffs=tensor(1.0, -1.0),
    start=tensor(0.5, 0.5, 0, 0),
)
VALUES = [0.25 * 0.5 - 0.75 * 0.25, -0.25, 0.5, -0.25]
#: The same with every move certain: 0 -> 2 -> +1, 1 -> 3 -> -1.
SURE = Chain(
    moves=tensor([0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]),
    exits=tensor([0, 0], [0, 0], [1, 0], [0, 1]),
    payoffs=tensor(1.0, -1.0),
    start=tensor(0.25, 0.75, 0, 0),
)


def test_values_by_hand() -> None:
    assert FORK.values().tolist() == pytest.approx(VALUES)
    assert SURE.values().tolist() == [1, -1, 1, -1]


def test_paths_are_all_there_is() -> None:
    states, lengths, rewards, chances = FORK.paths(3)
    assert float(chances.sum()) == pytest.approx(1)
    assert float(chances @ rewards) == pytest.approx(float(FORK.start @ FORK.values()))
    assert sorted(lengths.tolist()) == [2] * 4 + [3] * 4 and states.shape == (8, 3, 4)
    with pytest.raises(LawError, match="a walk of more than 2 states"):
        FORK.paths(2)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("chain", [FORK, SURE], ids=["chance", "certain"])
def test_targets_on_a_chain_with_known_values(chain: Chain, target) -> None:
    """In a table every Markov target is exact; a residual gradient is where the next state is certain."""
    states, lengths, rewards, chances = chain.paths(3)
    found = linear_value(states, lengths, rewards, target=target, chances=chances, lam=0.3, ridge=1e-13)
    off = (found - chain.values()).abs()
    if target == "prompt-only":
        assert float(off[:2].max()) < 1e-9 and float(found[2:].abs().max()) == 0
    elif chain is SURE or target in ("td0", "td-lambda", "monte-carlo"):
        assert float(off.max()) < 1e-9
    else:
        assert float(off.max()) > 0.05


def test_the_released_target_knows_the_beginning_only() -> None:
    """Twist the rewards after state 0 without changing what a beginning may expect: nothing changes in its value."""
    states, lengths, rewards, chances = FORK.paths(3)
    begins, second = states[:, 0].argmax(-1), states[:, 1].argmax(-1)
    group = [(begins == b) & (second == s) for b, s in ((0, 2), (0, 3))]
    twisted = rewards.clone()
    for mask, sign in zip(group, (1.0, -1.0), strict=True):
        twisted[mask] += sign / float(chances[mask].sum())
    found = {
        target: [
            linear_value(states, lengths, r, target=target, chances=chances, ridge=1e-13) for r in (rewards, twisted)
        ]
        for target in ("released", "monte-carlo")
    }
    torch.testing.assert_close(*found["released"], atol=1e-9, rtol=0)
    assert float((found["monte-carlo"][0] - found["monte-carlo"][1]).abs().max()) > 1


def test_sampled_walks_have_the_chain_s_values() -> None:
    states, lengths, rewards = FORK.sample(4000, seed=0)
    again = FORK.sample(4000, seed=0)
    assert torch.equal(states, again[0]) and torch.equal(rewards, again[2])
    assert not torch.equal(rewards, FORK.sample(4000, seed=1)[2])
    found = linear_value(states, lengths, rewards, target="td0")
    torch.testing.assert_close(found, FORK.values(), atol=0.08, rtol=0)
    assert set(lengths.tolist()) == {2, 3}


def test_backups_reach_the_values_and_shrink_differences() -> None:
    transitions, rewards, _ = gridworld(["..+", ".#-", "..."], slip=0.2, step=-0.04)
    one, other = torch.zeros(6, dtype=torch.float64), torch.linspace(-3, 2, 6, dtype=torch.float64)
    for _ in range(5):
        gap = float((one - other).abs().max())
        one, other = (bellman_backup(v, transitions, rewards, discount=0.9) for v in (one, other))
        assert float((one - other).abs().max()) <= 0.9 * gap + 1e-12
    for _ in range(400):
        one = bellman_backup(one, transitions, rewards)
    policy = best_actions(action_values(one, transitions, rewards))
    torch.testing.assert_close(policy_values(transitions, rewards, policy), one, atol=1e-10, rtol=0)
    torch.testing.assert_close(bellman_backup(one, transitions, rewards, policy=policy), one, atol=1e-10, rtol=0)


def test_a_grid_by_hand() -> None:
    transitions, rewards, places = gridworld(["..+", "#.-"])
    assert places == [(0, 0), (0, 1), (1, 1)]
    north, east, south, west = range(4)
    assert rewards[:, 1].tolist() == [0, 1, 0, 0] and rewards[east, 2] == -1
    assert transitions[east, 0].tolist() == [0, 1, 0] and transitions[south, 0].tolist() == [1, 0, 0]
    assert transitions[north, 0].tolist() == [1, 0, 0] and transitions[west, 2].tolist() == [0, 0, 1]
    assert transitions[east, 1].tolist() == [0, 0, 0], "the goal ends the walk"
    slippery, paid, _ = gridworld(["..+", "#.-"], slip=0.2, step=-0.5)
    assert slippery[north, 1].tolist() == pytest.approx([0.1, 0.8, 0])
    assert float(paid[north, 1]) == pytest.approx(-0.5 + 0.1)
    assert best_actions(tensor([0, 1], [2, 1], [0, 0])).tolist() == [[0, 1], [1, 0], [0, 0]]


def test_refusals() -> None:
    transitions, rewards, _ = gridworld([".+"])
    stay = tensor([0], [0], [0], [1])
    with pytest.raises(LawError, match="walks that need not end.*Fix: a discount"):
        policy_values(transitions, rewards, stay)
    assert policy_values(transitions, rewards + 1, stay, discount=0.5).tolist() == [2]
    with pytest.raises(LawError, match="need not end"):
        Chain(tensor([1.0]), tensor([0.0]), tensor(1.0), tensor(1.0)).sample(1, seed=0)
    with pytest.raises(LawError, match="a state's row that sums to"):
        Chain(tensor([0.5]), tensor([0.4]), tensor(1.0), tensor(1.0))
    with pytest.raises(LawError, match="grid: got .*expected rows of equal length"):
        gridworld(["..", "."])
