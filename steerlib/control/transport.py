"""Optimal transport between two sets of states: between Gaussians, and coordinate by coordinate.

Knows tensors; knows nothing about plants, sites or laws. Cost is squared distance throughout, so that every map is the
gradient of a convex function (Brenier): a symmetric positive matrix between Gaussians, a rising line on one coordinate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlib.errors import ContrastError

RegScale = Literal["absolute", "relative"]
Matching = Literal["quantile", "truncate"]

_COLUMNS = 256  # coordinates that are sorted at a time: sorting all of a wide set at once would hold it many times
_LARGE = 4_000_000  # numbers in a set beyond which products are summed in float32, see `moments`
_CONSTANT = 1e-24  # variance, relative to the mean square, below which a coordinate counts as constant


@dataclass(frozen=True)
class AffineMap:
    """The map z -> target + matrix (z - source).

    Attributes:
        matrix: symmetric; what it does to differences between states.
        source: where the mean of the source class lies.
        target: where that mean is sent.
    """

    matrix: Float[Tensor, "width width"]
    source: Float[Tensor, " width"]
    target: Float[Tensor, " width"]

    def __call__(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The transported states, in the precision of the map."""
        return self.target + (state.to(self.matrix) - self.source) @ self.matrix


def moments(states: Float[Tensor, "n width"]) -> tuple[Float[Tensor, " width"], Float[Tensor, "width width"]]:
    """Mean and covariance of states, in float64; the covariance divides by n.

    Products of large sets are summed in float32, of states standardised in float64: an error of about 1e-6 of the two
    standard deviations concerned, far below the sampling error of any such set, in a quarter of the time.

    Raises:
        ContrastError: if there are fewer than two states, or some are not finite.
    """
    if states.dim() != 2 or len(states) < 2:
        raise ContrastError(f"states: got shape {tuple(states.shape)}, expected two or more, for a covariance.")
    if not torch.isfinite(states).all():
        raise ContrastError("states: got some that are not finite. Fix: leave them out.")
    mean = states.double().mean(0)
    centred = states.double() - mean
    if states.numel() > _LARGE:
        spread = centred.square().mean(0).sqrt()
        unit = torch.where(spread > 0, spread, 1.0)
        standard = (centred / unit).float()
        covariance = (standard.T @ standard).double() / len(states) * unit * unit[:, None]
    else:
        covariance = centred.T @ centred / len(states)
    return mean, covariance


def bures_map(
    source: Float[Tensor, "width width"], target: Float[Tensor, "width width"]
) -> Float[Tensor, "width width"]:
    """The symmetric positive A with A S A = T: the optimal transport map between centred Gaussians.

    With S = L L^T, A = L^-T (L^T T L)^1/2 L^-1: one Cholesky factor and one symmetric square root, where the textbook
    form S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2 takes two square roots and an inverse. Computed as G G^T, so that it is
    symmetric and positive whatever the rounding.

    Raises:
        ContrastError: if the source S is not positive definite; the target T may be singular.
    """
    factor, failed = torch.linalg.cholesky_ex(source)
    if failed:
        raise ContrastError(
            "covariance of the source: not positive definite, so that no map from it is determined. "
            "Likely cause: fewer examples than coordinates, or constant ones. Fix: reg > 0."
        )
    inner = factor.T @ target @ factor
    values, vectors = torch.linalg.eigh(inner)
    # Rounding can make a zero eigenvalue slightly negative.
    half = torch.linalg.solve_triangular(factor.T, vectors * values.clamp(min=0) ** 0.25, upper=True)
    return half @ half.T


def gaussian_map(
    source: Float[Tensor, "n width"],
    target: Float[Tensor, "m width"],
    *,
    reg: float = 1e-2,
    scale: RegScale = "absolute",
) -> AffineMap:
    """The optimal transport map between the Gaussians with the moments of two sets, covariances regularised.

    With absolute reg this is POT's `LinearTransport` (Knott and Smith 1984; Flamary et al. 2021). Where a set has fewer
    examples than coordinates, its covariance is as good as reg in the directions that it does not reach. If both sets
    together are smaller than the width, the map is computed in their own span, which changes nothing: outside of it
    both covariances are the same multiple of the identity, and nothing moves.

    Args:
        source: states to be moved.
        target: states where they should arrive.
        reg: what is added to every variance of both sets.
        scale: "absolute", in squared units of the states, or "relative" to the mean variance of both sets.

    Raises:
        ContrastError: if a set has fewer than two states, the widths differ, all states of the source are the same, its
            covariance is singular and reg is 0, or reg is not a number from 0 up.
    """
    if source.shape[-1] != target.shape[-1]:
        raise ContrastError(f"got widths {source.shape[-1]} and {target.shape[-1]}, expected the same for both.")
    if not (math.isfinite(reg) and reg >= 0):
        raise ContrastError(f"reg: got {reg!r}, expected a number from 0 up.")
    if scale not in get_args(RegScale):
        raise ContrastError(f"reg scale: got {scale!r}, expected 'absolute' or 'relative'.")
    width, basis, sets = source.shape[1], None, (source, target)
    start, end = means = [states.double().mean(0) for states in sets]
    if reg > 0 and min(map(len, sets)) > 1 and len(source) + len(target) < width:
        centred = [states.double() - mean for states, mean in zip(sets, means, strict=True)]
        basis = torch.linalg.qr(torch.cat(centred).T)[0]
        sets = [states @ basis for states in centred]
    first, second = covariances = [moments(states)[1] for states in sets]
    if not first.diagonal().any():
        raise ContrastError("states of the source: all the same, so that they have no covariance to transport.")
    added = reg if scale == "absolute" else reg * float(first.trace() + second.trace()) / (2 * width)
    for covariance in covariances:
        covariance.diagonal().add_(added)
    matrix = bures_map(first, second)
    if basis is not None:
        matrix.diagonal().sub_(1.0)
        matrix = basis @ matrix @ basis.T
        matrix.diagonal().add_(1.0)
    return AffineMap(matrix, start, end)


@dataclass(frozen=True)
class Gap:
    """How far one set of states lies from another, as Gaussians.

    Attributes:
        mean: distance of the means.
        covariance: Frobenius norm of the difference of the covariances, relative to that of the second.
        transport: squared 2-Wasserstein distance of the two Gaussians, the work that the best map still has to do.
    """

    mean: float
    covariance: float
    transport: float


def gaussian_gap(states: Float[Tensor, "n width"], target: Float[Tensor, "m width"]) -> Gap:
    """Measure what is left to transport from one set to the other.

    Raises:
        ContrastError: if a set has fewer than two states, or all of the target's are the same.
    """
    (start, first), (end, second) = moments(states), moments(target)
    size = second.norm()
    if size == 0:
        raise ContrastError("states of the target: all the same, so that no gap can be told relative to their spread.")
    shift = (end - start).norm()
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp(min=0).sqrt()
    overlap = torch.linalg.eigvalsh(root.T @ second @ root).clamp(min=0).sqrt().sum()
    work = shift.square() + first.trace() + second.trace() - 2 * overlap
    return Gap(float(shift), float((first - second).norm() / size), max(float(work), 0.0))


@dataclass(frozen=True)
class CoordinateMap:
    """On each coordinate a line: z -> target + slope (z - source).

    Attributes:
        slope: never negative.
        source: mean of the source class.
        target: mean of the target class.
        constant: which coordinates of the source never change, so that no slope is determined.
    """

    slope: Float[Tensor, " width"]
    source: Float[Tensor, " width"]
    target: Float[Tensor, " width"]
    constant: Bool[Tensor, " width"]

    def __call__(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The transported states, in the precision of the map."""
        return self.target + (state.to(self.slope) - self.source) * self.slope


def coordinate_map(
    source: Float[Tensor, "n width"], target: Float[Tensor, "m width"], *, matching: Matching = "quantile"
) -> CoordinateMap:
    """On each coordinate the line nearest, in the mean square, to the monotone transport of one set to the other.

    Args:
        source: states to be moved.
        target: states where they should arrive.
        matching: which values are paired. "quantile" is the optimal plan between the two sets, exact also where they
            are of unequal size: each value is split into the parts that its share of the quantiles covers. A constant
            coordinate gets slope 1, a mere shift. "truncate" keeps as many rows of each set, the first, as the smaller
            has, and adds 1e-10 to the sum of squares, so that a constant coordinate gets slope 0 and is clamped to the
            mean of the target: what ODESteer's released comparators do.

    Raises:
        ContrastError: if a set is empty or not finite, the widths differ, or the matching is not known.
    """
    if matching not in get_args(Matching):
        raise ContrastError(f"matching: got {matching!r}, expected 'quantile' or 'truncate'.")
    if source.dim() != 2 or source.shape[1:] != target.shape[1:]:
        raise ContrastError(
            f"got shapes {tuple(source.shape)} and {tuple(target.shape)}, expected (examples, width), of one width."
        )
    if not (len(source) and len(target)):
        raise ContrastError(f"got {len(source)} and {len(target)} states, expected some of both.")
    if not (torch.isfinite(source).all() and torch.isfinite(target).all()):
        raise ContrastError("states: got some that are not finite. Fix: leave them out.")
    if matching == "truncate":
        kept = min(len(source), len(target))
        source, target = source[:kept], target[:kept]
    rows, others, weight = _monotone(len(source), len(target), source.device)
    found = []
    for columns in _blocks(source.shape[1]):
        first, second = (_ordered(states, columns) for states in (source, target))
        start, end = first.mean(1), second.mean(1)
        first, second = first - start[:, None], second - end[:, None]
        one, other = (first, second) if len(source) == len(target) else (first[:, rows], second[:, others])
        across = (one * other) @ weight
        squares = first.square().mean(1)
        fixed = squares <= _CONSTANT * (squares + start.square())
        if matching == "truncate":
            slope = across / (squares + 1e-10 / len(source))
        else:
            slope = torch.where(fixed, 1.0, across / torch.where(fixed, 1.0, squares)).clamp(min=0)
        found.append((slope, start, end, fixed))
    slope, start, end, fixed = (torch.cat(parts) for parts in zip(*found, strict=True))
    return CoordinateMap(slope, start, end, fixed)


def quantile_range(
    states: Float[Tensor, "n width"], low: float, high: float
) -> tuple[Float[Tensor, " width"], Float[Tensor, " width"]]:
    """Two quantiles (shares from 0 to 1) of each coordinate, interpolated between neighbours as numpy does."""
    if not (len(states) and 0 <= low < high <= 1):
        raise ContrastError(f"quantiles: got {low} and {high} of {len(states)} states, expected 0 <= low < high <= 1.")
    found = []
    for columns in _blocks(states.shape[1]):
        ordered = _ordered(states, columns)
        found.append(torch.stack([_between(ordered, share * (len(states) - 1)) for share in (low, high)]))
    below, above = torch.cat(found, 1)
    return below, above


def _ordered(states: Float[Tensor, "n width"], columns: slice) -> Float[Tensor, "block n"]:
    """The values of some coordinates, each in order; on a CPU by numpy, which takes a tenth of torch's time."""
    block = states.detach()[:, columns].T
    if block.device.type == "cpu":
        narrow = block if block.dtype in (torch.float32, torch.float64) else block.float()
        return torch.from_numpy(np.sort(narrow.numpy(), axis=1)).double()
    return block.contiguous().sort(1).values.double()


def _between(ordered: Tensor, place: float) -> Tensor:
    lower, upper = ordered[:, math.floor(place)], ordered[:, math.ceil(place)]
    return lower + (upper - lower) * (place - math.floor(place))


def _blocks(width: int) -> Iterator[slice]:
    return (slice(start, start + _COLUMNS) for start in range(0, width, _COLUMNS))


def _monotone(
    n: int, m: int, device: torch.device
) -> tuple[Int[Tensor, " parts"], Int[Tensor, " parts"], Float[Tensor, " parts"]]:
    """The monotone plan between n and m equal weights: row of either, and weight, of each part; sums to 1."""
    # Quantiles in units of 1 / (n m), so that their borders are whole numbers and compare exactly.
    borders = torch.cat([torch.arange(0, n + 1) * m, torch.arange(0, m + 1) * n]).unique().to(device)
    starts = borders[:-1]
    return starts // m, starts // n, borders.diff().double() / (n * m)
