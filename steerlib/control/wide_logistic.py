"""Logistic regression on tables of thousands of features: few passes over the data, in its own precision.

The objective is that of `steerlib.control.logistic`,

    F(w) = min over b of  c * sum_i log(1 + exp(-y_i (w.x_i + b))) + |w|^2 / 2,

whose method factors the Hessian: right for states, but cubic in the number of features. Here no matrix of that size is
formed. Features on the unit sphere are small, so that the Hessian

    H = I + c X' K X,    K = diag(k) - k k' / sum(k),    k_i = p_i (1 - p_i)

(b is eliminated, which takes the weighted mean out of X) is the identity but for a few hundred directions at most.
Newton steps by conjugate gradients need no more products than that, and a handful once the leading ones are known:
the preconditioner is the inverse of a Nystrom approximation of H at w = 0 from one random sketch of X (Frangella, Tropp
and Udell 2023). Where b is at its best the curvature of F is at least 1, so the norm of the gradient bounds |w - w*|.

Knows tensors; knows nothing about features, plants or laws.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from steerlib.control.logistic import LogisticFit
from steerlib.errors import ContrastError

_STEPS = 50
_INNER = 200
_RANK = 48  # leading directions that are learned beforehand
#: Relative norm of the gradient at which a fit ends, and within which one that rounding stopped is still taken.
_GOAL = {torch.float64: (1e-9, 1e-6), torch.float32: (1e-5, 1e-3)}


def fit_wide(table: Float[Tensor, "n columns"], positives: int, *, c: float = 1.0, spoil: bool = False) -> LogisticFit:
    """Fit a probe that tells the first rows of a table from the others.

    Args:
        table: features, float32 or float64, which is also the precision of the fit.
        positives: how many rows, from the first, are of the class with label 1.
        c: inverse strength of the penalty, scikit-learn's C.
        spoil: whether the table may be overwritten, which saves a copy of it.

    Raises:
        ContrastError: if a class is empty, a feature is not finite, or the fit does not reach its tolerance.
    """
    if not 0 < positives < len(table):
        raise ContrastError(f"got {positives} positive of {len(table)} examples, expected some of both classes.")
    if not (isinstance(c, (int, float)) and 0 < c < float("inf")):
        raise ContrastError(f"c: got {c!r}, expected a positive number (scikit-learn's C, whose default is 1).")
    origin = table.mean(0)
    if not bool(torch.isfinite(origin).all()):
        raise ContrastError("features: got some that are not finite. Fix: leave those states out.")
    data = table.sub_(origin) if spoil else table - origin
    sign = data.new_ones(len(data))
    sign[positives:] = -1
    found, bias, margins, slope = _newton(data, sign, float(c))
    weight = found.double()
    constant = bias.double() - weight @ origin.double()
    return LogisticFit(weight, constant, bool((sign * margins > 0).all()), slope)


def _newton(data: Tensor, sign: Tensor, c: float) -> tuple[Tensor, Tensor, Tensor, float]:
    """Weight, bias, log odds and norm of the gradient at the minimum."""
    goal, enough = _GOAL[data.dtype]
    point = data.new_zeros(data.shape[1])
    along = data @ point
    bias = _best_bias(along, sign, along.new_zeros(()))
    solve, first = None, None
    for _ in range(_STEPS):
        margins = along + bias
        pull = -c * sign * torch.sigmoid(-sign * margins)
        slope = data.T @ pull + point
        length = float(slope.norm())
        first = length if first is None else first
        if length <= goal * max(first, 1e-3):
            return point, bias, margins, length
        curvature = c * torch.sigmoid(margins) * torch.sigmoid(-margins)
        solve = solve or _leading(data, curvature)
        step = -_conjugate(data, curvature, slope, solve, min(0.1, (length / first) ** 0.5))
        change, moved = data @ step, False
        here, descent, share = _objective(along, bias, sign, c, point), float(slope @ step), 1.0
        while not moved and share > 1e-4:
            there = point + share * step
            along_there = along + share * change
            bias_there = _best_bias(along_there, sign, bias)
            moved = _objective(along_there, bias_there, sign, c, there) <= here + 1e-4 * share * descent
            if not moved:
                share /= 2
        if not moved:  # nothing but rounding is left
            break
        point, along, bias = there, along_there, bias_there
    if length <= enough * max(first or 0.0, 1e-3):
        return point, bias, along + bias, length
    raise ContrastError(
        f"logistic regression: gradient {length:.2g}, expected {goal:g} of {first:.2g}. Fix: a smaller c, or float64."
    )


def _objective(along: Tensor, bias: Tensor, sign: Tensor, c: float, point: Tensor) -> float:
    losses = softplus(-sign.double() * (along.double() + bias.double())).sum()
    return float(c * losses + point.double().square().sum() / 2)


def _best_bias(along: Tensor, sign: Tensor, start: Tensor) -> Float[Tensor, ""]:
    """The bias at which both classes pull alike, by Newton's method kept inside of a bracket; in float64."""
    wide, signs = along.double(), sign.double()
    low, high = -wide.max() - 40, -wide.min() + 40
    b = start.double().clamp(low, high)
    for _ in range(100):
        pull = (signs * torch.sigmoid(-signs * (wide + b))).sum()
        low, high = torch.where(pull > 0, b, low), torch.where(pull > 0, high, b)
        bent = (torch.sigmoid(wide + b) * torch.sigmoid(-wide - b)).sum()
        onward = b + pull / bent.clamp(min=1e-300)
        onward = torch.where((onward > low) & (onward < high), onward, (low + high) / 2)
        if float((onward - b).abs()) <= 1e-14 * (1 + float(b.abs())):
            break
        b = onward
    return b.to(along)


def _bent(data: Tensor, curvature: Tensor, vector: Tensor) -> Tensor:
    """Hessian times a vector, or times each column of a matrix."""
    image = data @ vector
    weights = curvature if vector.dim() == 1 else curvature[:, None]
    weighed = weights * image
    mean = weighed.sum(0) / curvature.sum()
    return vector + data.T @ (weighed - weights * mean)


def _leading(data: Tensor, curvature: Tensor) -> Callable[[Tensor], Tensor]:
    """An approximate inverse of the Hessian, exact along its leading directions: Nystrom, from one random sketch."""
    count, columns = data.shape
    if min(count, columns) < 4 * _RANK:
        return lambda vector: vector
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(columns, _RANK, generator=generator, dtype=data.dtype).to(data.device)
    probe = torch.linalg.qr(draw).Q
    image = _bent(data, curvature, probe) - probe  # the Hessian without its identity
    shift = torch.finfo(data.dtype).eps * float(image.norm()) * columns**0.5
    lifted = image + shift * probe
    factor, failed = torch.linalg.cholesky_ex(probe.T @ lifted)
    if failed:
        return lambda vector: vector
    half = torch.linalg.solve_triangular(factor, lifted.T, upper=False).T
    basis, sizes, _ = torch.linalg.svd(half, full_matrices=False)
    found = (sizes.square() - shift).clamp(min=0)
    # The smallest that was found speaks for all that were not: the inverse is taken relative to it.
    gain = (found[-1] + 1) / (found + 1) - 1
    return lambda vector: vector + basis @ (gain * (basis.T @ vector))


def _conjugate(
    data: Tensor, curvature: Tensor, slope: Tensor, solve: Callable[[Tensor], Tensor], accuracy: float
) -> Tensor:
    """Hessian^-1 slope, to an accuracy relative to the slope, by preconditioned conjugate gradients."""
    found, rest = torch.zeros_like(slope), slope.clone()
    eased = solve(rest)
    toward, energy = eased.clone(), rest @ eased
    goal = accuracy**2 * float(energy)
    for _ in range(_INNER):
        bent = _bent(data, curvature, toward)
        rate = energy / (toward @ bent)
        found += rate * toward
        rest -= rate * bent
        eased = solve(rest)
        after = rest @ eased
        if not float(after) > goal:
            break
        toward = eased + after / energy * toward
        energy = after
    return found
