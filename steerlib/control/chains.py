"""Finite worlds, whose values are known exactly: Markov chains that end in a reward, and grids to walk on.

Knows tensors; knows nothing about networks, plants or laws. Everything is in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlib.errors import LawError

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # north, east, south, west


def action_values(
    values: Float[Tensor, " states"],
    transitions: Float[Tensor, "actions states next"],
    rewards: Float[Tensor, "actions states"],
    *,
    discount: float = 1.0,
) -> Float[Tensor, "actions states"]:
    """Q(a, s) = rewards(a, s) + discount * sum over s' of transitions(a, s, s') V(s').

    Args:
        values: V of each state.
        transitions: probabilities; what a row lacks to 1 ends the walk, and has value 0.
        rewards: expected reward of an action in a state.
        discount: gamma.
    """
    return rewards + discount * (transitions @ values)


def bellman_backup(
    values: Float[Tensor, " states"],
    transitions: Float[Tensor, "actions states next"],
    rewards: Float[Tensor, "actions states"],
    *,
    policy: Float[Tensor, "actions states"] | None = None,
    discount: float = 1.0,
) -> Float[Tensor, " states"]:
    """One sweep of dynamic programming (Bellman 1957): the value of acting once and then being worth V.

    Two values are brought closer by it: their largest difference shrinks by at least the discount, so repeating it
    leads to the one value that it leaves alone. Without a discount that holds where every walk ends.

    Args:
        values: V of each state.
        transitions: see `action_values`.
        rewards: see `action_values`.
        policy: probability of each action in each state; by default the best action is taken.
        discount: gamma.
    """
    found = action_values(values, transitions, rewards, discount=discount)
    return found.max(0).values if policy is None else (policy * found).sum(0)


def policy_values(
    transitions: Float[Tensor, "actions states next"],
    rewards: Float[Tensor, "actions states"],
    policy: Float[Tensor, "actions states"],
    *,
    discount: float = 1.0,
) -> Float[Tensor, " states"]:
    """The value that a policy's backup leaves alone: (I - discount * P) V = r, solved.

    Raises:
        LawError: if walks under the policy need not end and nothing is discounted.
    """
    moves = torch.einsum("as,ast->st", policy, transitions)
    return _solve(discount * moves, (policy * rewards).sum(0))


def best_actions(found: Float[Tensor, "actions states"]) -> Float[Tensor, "actions states"]:
    """The policy that takes the action of the highest Q, the first among equals."""
    best = found.argmax(0)
    return torch.nn.functional.one_hot(best, len(found)).T.to(found.dtype)


def gridworld(
    rows: Sequence[str], *, slip: float = 0.0, step: float = 0.0
) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """A grid: "." is free, "#" a wall, "+" a goal that pays 1 and ends the walk, "-" a pit that costs 1 and ends it.

    An action is a move north, east, south or west; into a wall or out of the grid it stays where it is.

    Args:
        rows: the map, rows of the same length.
        slip: probability that the move is one of the two at right angles instead.
        step: reward of every move.

    Returns:
        Transitions (4, states, states), rewards (4, states) and the place (row, column) of each state: the free ones.

    Raises:
        LawError: if the map is not a rectangle of these signs with a free place.
    """
    if len({len(row) for row in rows}) != 1 or set("".join(rows)) - set(".#+-") or "." not in "".join(rows):
        raise LawError(
            f"grid: got {list(rows)!r}, expected rows of equal length of the signs '.#+-', one '.' at least."
        )
    places = [(i, j) for i, row in enumerate(rows) for j, sign in enumerate(row) if sign == "."]
    index = {place: state for state, place in enumerate(places)}
    transitions = torch.zeros(4, len(places), len(places), dtype=torch.float64)
    rewards = torch.full((4, len(places)), step, dtype=torch.float64)
    for action in range(4):
        for turn, share in ((0, 1 - slip), (1, slip / 2), (3, slip / 2)):
            down, right = MOVES[(action + turn) % 4]
            for state, (i, j) in enumerate(places):
                there = (i + down, j + right)
                inside = 0 <= there[0] < len(rows) and 0 <= there[1] < len(rows[0])
                sign = rows[there[0]][there[1]] if inside else "#"
                if sign in "+-":
                    rewards[action, state] += share * (1.0 if sign == "+" else -1.0)
                else:
                    transitions[action, state, index.get(there, state)] += share
    return transitions, rewards, places


@dataclass(frozen=True)
class Chain:
    """A Markov chain that ends in one of several rewards: the least model of a plant that is answering.

    Attributes:
        moves: probability of going from a state to another.
        exits: probability of ending with each payoff, from each state; with its moves a state's row sums to 1.
        payoffs: the rewards.
        start: probability of each state at the beginning.
    """

    moves: Float[Tensor, "states states"]
    exits: Float[Tensor, "states ends"]
    payoffs: Float[Tensor, " ends"]
    start: Float[Tensor, " states"]

    def __post_init__(self) -> None:
        """Refuse what are no probabilities.

        Raises:
            LawError: if a row does not sum to 1.
        """
        for name, sums in (("a state's row", self.moves.sum(1) + self.exits.sum(1)), ("start", self.start.sum())):
            if not torch.allclose(sums, torch.ones_like(sums)):
                raise LawError(f"chain: got {name} that sums to {sums.tolist()}, expected 1.")

    def values(self) -> Float[Tensor, " states"]:
        """Expected reward from each state, exact: V = moves V + exits payoffs, solved.

        Raises:
            LawError: if a walk need not end.
        """
        return _solve(self.moves, self.exits @ self.payoffs)

    def one_hot(self, states: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch states"]:
        """A coordinate for each state, with which a linear value is a table."""
        return torch.nn.functional.one_hot(states, len(self.start)).double()

    def paths(self, longest: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Every walk there is: one-hot states, lengths, rewards and probabilities, so that sums are expectations.

        Args:
            longest: states of the longest walk.

        Raises:
            LawError: if a walk can be longer.
        """
        open_walks = [([state], float(p)) for state, p in enumerate(self.start) if p > 0]
        done: list[tuple[list[int], float, float]] = []
        for _ in range(longest):
            following = []
            for walk, chance in open_walks:
                ends, moves = self.exits[walk[-1]], self.moves[walk[-1]]
                done += [(walk, float(self.payoffs[k]), chance * float(p)) for k, p in enumerate(ends) if p > 0]
                following += [([*walk, s], chance * float(p)) for s, p in enumerate(moves) if p > 0]
            open_walks = following
        if open_walks:
            raise LawError(f"chain: got a walk of more than {longest} states. Fix: longest, or sample(...).")
        rows = torch.tensor([walk + [0] * (longest - len(walk)) for walk, _, _ in done])
        lengths = torch.tensor([len(walk) for walk, _, _ in done])
        rewards, chances = (torch.tensor([entry[k] for entry in done], dtype=torch.float64) for k in (1, 2))
        return self.one_hot(rows), lengths, rewards, chances

    def sample(self, n: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Walks drawn at random: one-hot states (right-padded), lengths and rewards.

        Raises:
            LawError: if a walk need not end.
        """
        self.values()  # refuses what would never end
        chance = torch.Generator().manual_seed(seed)
        both = torch.cat([self.moves, self.exits], dim=1)
        now = torch.multinomial(self.start.expand(n, -1), 1, generator=chance)[:, 0]
        columns, lengths, rewards = [], torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.float64)
        going = torch.ones(n, dtype=torch.bool)
        while bool(going.any()):
            columns.append(now)
            lengths += going
            drawn = torch.multinomial(both[now], 1, generator=chance)[:, 0]
            ends = going & (drawn >= len(self.start))
            rewards[ends] = self.payoffs[drawn[ends] - len(self.start)]
            going = going & ~ends
            now = torch.where(going, drawn, 0)
        return self.one_hot(torch.stack(columns, dim=1)), lengths, rewards


def _solve(moves: Float[Tensor, "states states"], gained: Float[Tensor, " states"]) -> Float[Tensor, " states"]:
    """V = moves V + gained, for moves from which every walk ends."""
    if float(torch.linalg.eigvals(moves).abs().max()) > 1 - 1e-12:
        raise LawError("values: got walks that need not end, so that nothing bounds their value. Fix: a discount.")
    return torch.linalg.solve(torch.eye(len(moves), dtype=moves.dtype) - moves, gained)
