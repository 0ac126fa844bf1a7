"""Solve da/dt = v(a) over a horizon T, for many states at once, in tensor code that compiles and never waits.

What is computed is the mean velocity w = (1/T) integral of v(a(t)) dt, so that a(T) = a(0) + T w: a law multiplies by T
itself, nothing is divided by it, and at T = 0 the state is left bit for bit. T may be a tensor, and negative, to run
the flow backwards. With s = t / T, one step of length h = 1 / steps takes w <- w + h k, where k is

* `euler`       v(a)                                                              one evaluation, order 1
* `midpoint`    v(a + (hT/2) v(a))                                                two, order 2
* `rk4`         (k1 + 2 k2 + 2 k3 + k4) / 6                                       four, order 4
* `geodesic`    Euler's step bent onto the sphere (below)                         one, order 1

and `bosh3` chooses its steps itself, each state its own (Bogacki and Shampine 1989: order 3, with an embedded order 2,
three evaluations a step).

For a field of unit length that is orthogonal to the state, Euler's steps are orthogonal to the state each, so that
|a_K|^2 = |a_0|^2 + T^2 / K exactly; the flow keeps the norm. The geodesic step goes as far along the great circle:
with v orthogonal to a, r = |a| and angle q = hT |v| / r,

    a <- cos(q) a + sin(q) r v / |v|      =      a + hT ( sinc(q) v - (q / 2) sinc(q / 2)^2 |v| a / r ),

the second form without a division by |v| or T.

Knows fields and tensors; knows nothing about barriers, plants or laws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlib.errors import LawError

Field = Callable[[Tensor], Tensor]
Solver = Literal["euler", "midpoint", "rk4", "geodesic", "bosh3"]
#: Evaluations of the field in one step.
COST: dict[Solver, int] = {"euler": 1, "midpoint": 2, "rk4": 4, "geodesic": 1, "bosh3": 3}
#: Order of the error over a whole horizon, in the length of a step.
ORDER: dict[Solver, int] = {"euler": 1, "midpoint": 2, "rk4": 4, "geodesic": 1, "bosh3": 3}


class Flow(NamedTuple):
    """A solution at the end of its horizon.

    Attributes:
        mean: w, the mean velocity: the state at the end is start + horizon * mean.
        reached: share of the horizon that was reached; below 1 for states whose adaptive steps met their limit.
        steps: steps taken; tried ones that were rejected do not count.
        path: states after each step, the first the start; None unless asked for. An adaptive solver that rejects a step
            stands still.
    """

    mean: Float[Tensor, "... width"]
    reached: Float[Tensor, "..."]  # noqa: UP037 (axes, not an annotation in quotes)
    steps: Int[Tensor, "..."]  # noqa: UP037
    path: Float[Tensor, "points ... width"] | None = None


def check_solver(solver: str, steps: int, tolerance: float = 1e-3) -> None:
    """Refuse what cannot be meant.

    Raises:
        LawError: for an unknown solver, steps that are not a positive whole number, or a tolerance outside (0, 1).
    """
    if solver not in get_args(Solver):
        raise LawError(f"solver: got {solver!r}, expected one of {', '.join(get_args(Solver))}.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise LawError(f"steps: got {steps!r}, expected a whole number of at least 1.")
    if not 0 < tolerance < 1:
        raise LawError(f"tolerance: got {tolerance!r}, expected a number in (0, 1).")


def solve(
    field: Field,
    start: Float[Tensor, "*batch width"],
    horizon: Float[Tensor, ""] | float,
    *,
    solver: Solver = "euler",
    steps: int = 10,
    tolerance: float = 1e-3,
    trace: bool = False,
) -> Flow:
    """The flow of a field from each state, over a horizon.

    Args:
        field: v, of states alone; rows do not mix.
        start: a(0).
        horizon: T. A tensor is taken as it is, as a law's strength must be; a number must be positive.
        solver: see the module's text.
        steps: how many, of equal length; for "bosh3" the most that it may try.
        tolerance: of "bosh3": largest error of one step, as a share of |a(0)|.
        trace: keep the path.

    Raises:
        LawError: see `check_solver`, or for a horizon that is a number and not positive.
    """
    check_solver(solver, steps, tolerance)
    if not isinstance(horizon, Tensor) and not (math.isfinite(horizon) and horizon > 0):
        raise LawError(f"horizon: got {horizon!r}, expected a positive number. Fix: leave the state alone, or -field.")
    if solver == "bosh3":
        return _adaptive(field, start, horizon, steps, tolerance, trace)
    h = 1.0 / steps
    step = {"euler": _euler, "midpoint": _midpoint, "rk4": _rk4, "geodesic": _geodesic}[solver]
    state, mean, path, length = start, torch.zeros_like(start), [start], h * horizon
    for number in range(steps):
        mean = torch.add(mean, step(field, state, length), alpha=h)
        if number < steps - 1 or trace:
            state = start + horizon * mean
        if trace:
            path.append(state)
    ones = torch.ones_like(start[..., 0])
    taken = torch.full(start.shape[:-1], steps, dtype=torch.int64, device=start.device)
    return Flow(mean, ones, taken, torch.stack(path) if trace else None)


# One step: the velocity k that carries a state over a length of time


def _euler(field: Field, state: Tensor, length: Tensor | float) -> Tensor:  # noqa: ARG001 - as all steps are called
    return field(state)


def _midpoint(field: Field, state: Tensor, length: Tensor | float) -> Tensor:
    return field(state + length / 2 * field(state))


def _rk4(field: Field, state: Tensor, length: Tensor | float) -> Tensor:
    first = field(state)
    second = field(state + length / 2 * first)
    third = field(state + length / 2 * second)
    last = field(state + length * third)
    return (first + 2 * second + 2 * third + last) / 6


def _geodesic(field: Field, state: Tensor, length: Tensor | float) -> Tensor:
    velocity = field(state)
    speed = torch.linalg.vector_norm(velocity, dim=-1, keepdim=True)
    radius = torch.linalg.vector_norm(state, dim=-1, keepdim=True)
    safe = torch.where(radius > 0, radius, 1.0)
    angle = length * speed / safe
    inward = angle / 2 * _sinc(angle / 2).square() * speed / safe
    return _sinc(angle) * velocity - inward * state


def _sinc(x: Tensor) -> Tensor:
    """The sine over its argument; 1 at zero."""
    return torch.sinc(x / math.pi)


# Steps of their own length


def _adaptive(field: Field, start: Tensor, horizon: Tensor | float, steps: int, tolerance: float, trace: bool) -> Flow:
    """Bogacki and Shampine's pair, each state with steps of its own; a fixed number of tries, so that it compiles.

    A state whose tries end before its horizon stays where it came to, and says so in `reached`.
    """
    mean = torch.zeros_like(start)
    time, step = torch.zeros_like(start[..., :1]), torch.full_like(start[..., :1], 0.1)
    allowed = tolerance * torch.linalg.vector_norm(start, dim=-1, keepdim=True)
    taken = torch.zeros_like(time, dtype=torch.int64)
    first, path = field(start), [start]
    for _ in range(steps):
        left = 1 - time
        last = step >= left
        h = torch.where(last, left, step)
        state, length = start + horizon * mean, h * horizon
        second = field(state + length / 2 * first)
        third = field(state + 3 / 4 * length * second)
        velocity = (2 * first + 3 * second + 4 * third) / 9
        after = field(state + length * velocity)
        error = length * (-5 / 72 * first + second / 12 + third / 9 - after / 8)
        share = torch.linalg.vector_norm(error, dim=-1, keepdim=True) / torch.where(allowed > 0, allowed, 1.0)
        good = (share <= 1) & (left > 0)
        mean = torch.where(good, mean + h * velocity, mean)
        time = torch.where(good, torch.where(last, torch.ones_like(time), time + h), time)
        first = torch.where(good, after, first)
        taken = taken + good.to(taken.dtype)
        factor = (0.9 * share.clamp(min=1e-9) ** (-1 / 3)).clamp(0.2, 5.0)
        # A state that has arrived keeps its step: its left-over is no measure of anything.
        step = torch.where(left > 0, h * factor, step)
        if trace:
            path.append(start + horizon * mean)
    return Flow(mean, time[..., 0], taken[..., 0], torch.stack(path) if trace else None)
