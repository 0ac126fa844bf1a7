"""Mean and covariance of states so many and so wide that passes in float64 take as long as the products themselves.

Knows tensors; knows nothing about plants, sites or laws.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.control.transport import moments

_BLOCK = 512  # columns of a covariance that are found at a time, up to its diagonal: the other half is their mirror
_SQUARES = (
    1e-12,
    1e12,
)  # between which float32 can square a state's distance from the mean, and sum thousands of these


def wide_moments(states: Float[Tensor, "n width"]) -> tuple[Float[Tensor, " width"], Float[Tensor, "width width"]]:
    """Mean in float64 and covariance in float32; the covariance divides by n.

    As `transport.moments` has them for large sets: products are summed in float32, of states that were centred by a
    mean in float64. The error of about 1e-6 of the two standard deviations concerned does not depend on the units of a
    coordinate. States beyond float32's squares are left to that function, and so is refusing what has no moments.

    Raises:
        ContrastError: if there are fewer than two states, or some are not finite.
    """
    if states.dim() != 2 or len(states) < 2 or not states.is_floating_point():
        return _narrowed(states)
    held = states.detach() if states.dtype == torch.float64 else states.detach().float()
    mean = held.mean(0, dtype=torch.float64)
    centred = (held - mean.to(held.dtype)).float()
    centred -= centred.mean(0, dtype=torch.float64).float()  # what rounding the mean has left
    low, high = torch.aminmax(centred, dim=0)
    peak = torch.maximum(high, -low)
    if not bool(((peak == 0) | ((peak >= _SQUARES[0]) & (peak <= _SQUARES[1]))).all()):  # so that NaN is refused, too
        return _narrowed(states)
    return mean, _gram(centred).div_(len(states))


def _narrowed(states: Tensor) -> tuple[Tensor, Tensor]:
    mean, covariance = moments(states)
    return mean, covariance.float()


def _gram(rows: Float[Tensor, "n width"]) -> Float[Tensor, "width width"]:
    """rows^T rows, each product of two columns once."""
    width = rows.shape[1]
    found = rows.new_empty(width, width)
    for start in range(0, width, _BLOCK):
        end = min(start + _BLOCK, width)
        found[start:end, :end] = rows[:, start:end].T @ rows[:, :end]
        found[:start, start:end] = found[start:end, :start].T
        block = found[start:end, start:end]  # whose own halves may have been rounded apart
        block.copy_(block.tril() + block.tril(-1).T)
    return found
