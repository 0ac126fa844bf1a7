"""Quadratic costs of trajectories over depth, and the diagonal weights that they are made of.

Knows tensors; knows nothing about plants or laws, or how a cost is made small (`steerlib.control.riccati`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.errors import LawError

#: A number; (width,) the diagonal; (layers, 1) a number for each layer; (layers, width) a diagonal for each layer. As a
#: tensor or as lists.
Weight = float | Sequence[Any] | Tensor


def quadratic_cost(
    states: Float[Tensor, "*n layers_and_one width"],
    inputs: Float[Tensor, "*n layers width"],
    *,
    q: Weight,
    r: Weight,
    q_f: Weight,
) -> Float[Tensor, "*n"]:
    """J of trajectories, whatever made them; in the precision of the states.

    Args:
        states: z_0 .. z_l.
        inputs: u_0 .. u_{l-1}.
        q: weight of the state, positive.
        r: weight of the input, positive.
        q_f: weight of the final state, not negative: a number or a diagonal.

    Raises:
        LawError: shapes that do not fit, or weights that are not positive.
    """
    layers, width = inputs.shape[-2:]
    if layers < 1 or states.shape != (*inputs.shape[:-2], layers + 1, width):
        raise LawError(
            f"quadratic cost: got states of shape {tuple(states.shape)} and inputs of shape {tuple(inputs.shape)}, "
            "expected one state more than inputs, of the same width. Fix: the state after the last input too."
        )
    q_k, r_k = weights(q, "q", layers, width).to(states), weights(r, "r", layers, width).to(states)
    last = weights(q_f, "q_f", 1, width, zero=True).to(states)[0]
    running = (q_k * states[..., :-1, :] ** 2 + r_k * inputs**2).sum((-1, -2))
    return running + (last * states[..., -1, :] ** 2).sum(-1)


def weights(value: Weight, name: str, layers: int, width: int, *, zero: bool = False) -> Float[Tensor, "layers width"]:
    """The diagonal of a weight at every layer, in float64, without taking memory for what repeats.

    Args:
        value: see `Weight`.
        name: how the weight is called in errors.
        layers: l.
        width: d.
        zero: whether zeros are allowed.

    Raises:
        LawError: another shape, or an entry that is none of a weight; see `checked_weight`.
    """
    given = checked_weight(value, name, zero=zero)
    if (
        given.ndim > 2
        or (given.ndim == 1 and len(given) != width)
        or (given.ndim == 2 and (given.shape[0] != layers or given.shape[1] not in (1, width)))
    ):
        raise LawError(
            f"quadratic cost: got {name} of shape {tuple(given.shape)}, expected a number, ({width},) for a diagonal, "
            f"({layers}, 1) for a number for each layer or ({layers}, {width}) for a diagonal for each."
        )
    return given.expand(layers, width)


def checked_weight(value: Weight, name: str, *, zero: bool = False) -> Float[Tensor, "*shape"]:
    """A weight as a tensor of float64, whatever its shape, once it is known that a cost can be made of it.

    Args:
        value: see `Weight`.
        name: how the weight is called in errors.
        zero: whether zeros are allowed.

    Raises:
        LawError: no numbers, or an entry that is negative, zero where that is not allowed, or not finite.
    """
    try:
        given = torch.as_tensor(value, dtype=torch.float64).detach()
    except (TypeError, ValueError) as error:
        raise LawError(f"quadratic cost: got {name}={value!r}, expected a number, or lists of them.") from error
    if isinstance(value, bool) or not given.numel():
        raise LawError(f"quadratic cost: got {name}={value!r}, expected a number, or lists of them.")
    least = float(given.min())
    if not bool(torch.isfinite(given).all()) or least < 0 or (least == 0 and not zero):
        expected = "none negative" if zero else "all positive"
        raise LawError(
            f"quadratic cost: got {name} with an entry of {least:.4g}, expected {expected} and finite. "
            "Fix: a weight that costs nothing leaves the input or the state free: take a small one."
        )
    return given
