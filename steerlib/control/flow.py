"""Rectified flow: a velocity field, learned from pairs of end points, whose paths lead from one to the other.

    d x / d t = v(x, t),   t from 0 to 1;      v minimises  E | v((1 - t) x0 + t x1, t) - (x1 - x0) |^2

over pairs (x0, x1) and uniform t (Liu et al. 2023). The paths of the minimiser carry the distribution of x0 to that of
x1. They do not always lead from a start to its own partner, since straight paths that meet cannot be told apart
afterwards. Of a linear dependence x1 = A x0 the flow finds what no meeting undoes: all of it if no eigenvalue of A is
real and negative; along the eigenvector of one that is, all paths meet at the mean, and learned ones stay there.

Knows tensors and modules; knows nothing about plants or laws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

#: Inner layers are not narrower than this: a tiny plant's states would not fit through.
NARROW = 32
Solver = Literal["euler", "midpoint"]
Field = Callable[[Tensor, Tensor], Tensor]


def integrate(
    field: Field, start: Float[Tensor, "*batch width"], *, steps: int, solver: Solver = "euler"
) -> Float[Tensor, "*batch width"]:
    """State at time 1 of d x / d t = field(x, t) from x(0) = start, by equal steps.

    Args:
        field: velocity at a state and a time (a scalar tensor).
        start: x(0).
        steps: how many; the field is evaluated once ("euler", order 1) or twice ("midpoint", order 2) in each.
        solver: see above.
    """
    state, h = start, 1.0 / steps
    times = torch.linspace(0.0, 1.0, 2 * steps + 1, device=start.device, dtype=start.dtype)
    for i in range(steps):
        velocity = field(state, times[2 * i])
        if solver == "midpoint":
            velocity = field(state + h / 2 * velocity, times[2 * i + 1])
        state = state + h * velocity
    return state


def straight_loss(
    field: Field, start: Float[Tensor, "n width"], end: Float[Tensor, "n width"], time: Float[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Mean squared error of the field against the straight paths from start to end, at one time on each."""
    t = time[:, None]
    return (field((1 - t) * start + t * end, time) - (end - start)).square().mean()


class Times(nn.Module):
    """Sines and cosines of a time in [0, 1] at frequencies from 1 to 1000, evenly spaced in their logarithm.

    Args:
        size: numbers in the embedding; even.
    """

    def __init__(self, size: int) -> None:
        """Remember the size."""
        super().__init__()
        self.size = size

    def forward(self, time: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch size"]:
        """The embedding."""
        powers = torch.arange(self.size // 2, device=time.device, dtype=time.dtype) / max(1, self.size // 2 - 1)
        phases = time[..., None] * torch.exp(math.log(1000.0) * powers)
        return torch.cat([phases.sin(), phases.cos()], dim=-1)


class Block(nn.Module):
    """Two linear layers beside a shortcut; the time enters with the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        """Make the layers."""
        super().__init__()
        self.first, self.second = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)
        self.short = nn.Linear(inputs, outputs)

    def forward(self, state: Tensor, *more: Tensor) -> Tensor:
        """The state with whatever else is to be read beside it."""
        joined = torch.cat([state, *more], dim=-1)
        return silu(self.second(silu(self.first(joined))) + self.short(joined))


class Velocity(nn.Module):
    """A velocity field shaped like a U: down through ever narrower layers and up again, with bridges across.

    Without batch statistics, so that one state alone and many give the same; with a path from input to output that
    only scales with time, since the velocity -x + ... that points away from the start has full rank and the narrow
    layers do not.

    Args:
        width: size of the states.
        size: width of the widest inner layer.
        depth: how many times it is halved, down to 32 at the least.
        time: size of the time embedding.
    """

    def __init__(self, width: int, *, size: int, depth: int, time: int) -> None:
        """Make the layers."""
        super().__init__()
        sizes = [max(NARROW, size // 2**i) for i in range(depth + 1)]
        self.times = Times(time)
        self.lift = nn.Linear(width, sizes[0])
        self.down = nn.ModuleList(Block(a + time, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.middle = Block(sizes[-1] + time, sizes[-1])
        self.up = nn.ModuleList(Block(2 * b + time, a) for a, b in list(zip(sizes[:-1], sizes[1:], strict=True))[::-1])
        self.out = nn.Linear(sizes[0], width)
        self.gain = nn.Linear(time, 1)

    def forward(self, state: Float[Tensor, "*batch width"], time: Float[Tensor, "*times"]) -> Float[Tensor, "*batch w"]:
        """Velocity at states and their times, or one time for all of them."""
        when = self.times(time)
        gain = self.gain(when)
        when = when.expand(*state.shape[:-1], when.shape[-1])
        inner, bridges = self.lift(state), []
        for block in self.down:
            inner = block(inner, when)
            bridges.append(inner)
        inner = self.middle(inner, when)
        for block in self.up:
            inner = block(inner, bridges.pop(), when)
        return self.out(inner) + gain * state
