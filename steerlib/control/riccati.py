"""Finite-horizon linear-quadratic control over depth: the Riccati recursion, backwards, holding one cost matrix.

A state z_k enters block k of l, and an input is added after it, whatever the block does (B = I):

    z_{k+1} = A_k z_k + d_k + u_k,     J = sum_{k<l} (z_k' Q_k z_k + u_k' R_k u_k) + z_l' Q_f z_l,     k = 0 .. l - 1.

The least J from layer k on is z' S_k z + 2 s_k' z + a constant. From S_l = Q_f and s_l = 0 backwards,

    K_k = (S_{k+1} + R_k)^-1 S_{k+1} A_k             u_k = -K_k z_k - f_k
    f_k = (S_{k+1} + R_k)^-1 (S_{k+1} d_k + s_{k+1})
    S_k = Q_k + A_k' R_k K_k                         s_k = A_k' R_k f_k.

The last line is the textbook's Q + A'SA - A'SK, because S (A - K) = R K; but nothing cancels in it, however S compares
with R, and S_{k+1} is not needed any more when it is formed: its Cholesky factor takes its place, K takes that of
S A, and three d x d matrices are enough. As B = I, S_k <= Q_k + |A_k|^2 max(R_k): nothing grows over depth, and what a
solve loses is bounded by the weights and by |A| of one layer.

Source: section 4 of A-LQR (Skifstad, Yang and Chou, ICML 2026), where d = 0. The forward part d is here for setpoints
that the dynamics do not carry from layer to layer; the paper leaves it out.

Knows tensors; knows nothing about plants, laws or what a state means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.control.quadratic import Weight, weights
from steerlib.errors import LawError, unknown

Precision = Literal["float32", "float64"]
Form = Literal["gain", "inverse"]

#: A layer whose solve may lose more than this share of a gain is refused.
LOST = 1e-2
#: Rows that are averaged with their transposes at a time, so that no second matrix is needed for it.
BLOCK = 256


class Jacobians(Protocol):
    """The linear model of each layer, the first layer first; a list, a stack, or a reader of a file."""

    def __len__(self) -> int:
        """The number of layers."""
        ...

    def __getitem__(self, layer: int, /) -> Tensor:
        """A of one layer, (width, width)."""
        ...


@dataclass(frozen=True)
class Step:
    """What the recursion found at a layer.

    Attributes:
        layer: k.
        gain: K_k (width, width), or None where it was not asked for.
        pushes: w_k = K_k v_k, in the shape of the features of a layer; None without features.
        feedforward: f_k, in the shape of the mismatches of a layer; None without mismatches.
        cost: a copy of S_k (width, width), if it was asked for.
        condition: times the rounding error of the precision, about the share of a gain that is lost: an estimate of
            the condition number of S_{k+1} + R_k in the 1-norm, never above the true one; for the form "inverse" no
            less than the largest R / S on the diagonal.
    """

    layer: int
    gain: Float[Tensor, "width width"] | None
    pushes: Float[Tensor, "... width"] | None
    feedforward: Float[Tensor, "... width"] | None
    cost: Float[Tensor, "width width"] | None
    condition: float


def riccati(
    jacobians: Jacobians,
    *,
    q: Weight,
    r: Weight,
    q_f: Weight,
    precision: Precision = "float64",
    form: Form = "gain",
    features: Float[Tensor, "layers *n width"] | None = None,
    mismatches: Float[Tensor, "layers *n width"] | None = None,
    gains: bool = True,
    costs: bool = False,
    device: torch.device | str | None = None,
) -> Iterator[Step]:
    """The steps of the recursion, the last layer first, holding three (width, width) matrices and no more.

    Each Jacobian is read once, when its layer comes, so a reader of a file streams. A gain belongs to the caller: who
    keeps them all holds a matrix for each layer.

    Args:
        jacobians: A_k, (width, width) each.
        q: weight of the state, positive; see `Weight`.
        r: weight of the input, positive.
        q_f: weight of the final state, not negative: a number or a diagonal.
        precision: of the recursion and of what it gives.
        form: "gain" as in the module's text. "inverse" does without K: M = R - R (S + R)^-1 R, S' = Q + A' M A. It
            costs a fifth less, and loses the digits by which S is smaller than R.
        features: v_k; one or several for each layer.
        mismatches: d_k; one or several for each layer.
        gains: False leaves K_k out of the steps.
        costs: True puts a copy of S_k into the steps, a fourth matrix.
        device: where to compute; by default where a Jacobian lies.

    Raises:
        LawError: no layers; a Jacobian, feature or weight of another shape, not finite or not positive; an unknown
            name; or a recursion too ill-conditioned for the precision.
    """
    for what, name, known in (("precision", precision, Precision), ("form", form, Form)):
        if name not in get_args(known):
            raise LawError(f"Riccati: {unknown(what, name, get_args(known))}")
    if len(jacobians) < 1:
        raise LawError("Riccati: got a horizon of 0 layers, expected at least 1. Fix: the plant's Jacobians.")
    options = _Options(precision, form, gains, costs, device)
    return _steps(jacobians, (q, r, q_f), options, features, mismatches)


def pushes(
    jacobians: Jacobians,
    features: Float[Tensor, "layers *n width"],
    *,
    q: Weight,
    r: Weight,
    q_f: Weight,
    precision: Precision = "float64",
    form: Form = "gain",
    device: torch.device | str | None = None,
) -> Float[Tensor, "layers *n width"]:
    """w_k = K_k v_k of every layer, the first layer first: all that a law of one feature keeps of the gains.

    Args:
        jacobians: see `riccati`.
        features: v_k; a zero feature gives a zero push.
        q: see `riccati`.
        r: see `riccati`.
        q_f: see `riccati`.
        precision: see `riccati`.
        form: see `riccati`.
        device: see `riccati`.

    Raises:
        LawError: see `riccati`.
    """
    found = [
        step.pushes
        for step in riccati(
            jacobians,
            q=q,
            r=r,
            q_f=q_f,
            precision=precision,
            form=form,
            features=features,
            gains=False,
            device=device,
        )
    ]
    return torch.stack([push for push in reversed(found) if push is not None])


def gain_stack(
    jacobians: Jacobians, *, q: Weight, r: Weight, q_f: Weight, precision: Precision = "float64"
) -> Float[Tensor, "layers width width"]:
    """Every K_k at once, the first layer first; for plants small enough to hold them.

    Args:
        jacobians: see `riccati`.
        q: see `riccati`.
        r: see `riccati`.
        q_f: see `riccati`.
        precision: see `riccati`.

    Raises:
        LawError: see `riccati`.
    """
    found = [step.gain for step in riccati(jacobians, q=q, r=r, q_f=q_f, precision=precision)]
    return torch.stack([gain for gain in reversed(found) if gain is not None])


@dataclass(frozen=True)
class _Options:
    precision: Precision
    form: Form
    gains: bool
    costs: bool
    device: torch.device | str | None

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.precision == "float64" else torch.float32


def _steps(
    jacobians: Jacobians,
    given: tuple[Weight, Weight, Weight],
    options: _Options,
    features: Tensor | None,
    mismatches: Tensor | None,
) -> Iterator[Step]:
    cost = costate = q = r = None
    layers = len(jacobians)
    for layer in reversed(range(layers)):
        a = _read(jacobians[layer], layer, options)
        if cost is None or q is None or r is None:
            width = len(a)
            q, r = (weights(w, n, layers, width).to(a) for w, n in zip(given[:2], ("q", "r"), strict=True))
            cost = torch.diag(weights(given[2], "q_f", 1, width, zero=True).to(a)[0])
            features = _vectors(features, "features", layers, a)
            mismatches = _vectors(mismatches, "mismatches", layers, a)
            costate = None if mismatches is None else torch.zeros_like(mismatches[0])
        if a.shape != cost.shape:
            raise LawError(
                f"Riccati: got a Jacobian of shape {tuple(a.shape)} at layer {layer}, expected {tuple(cost.shape)} as "
                "at the layers after it. Fix: states of one width, the same at a block's input and output."
            )
        r_k, feedforward, push = r[layer], None, None
        forced = None if mismatches is None or costate is None else mismatches[layer] @ cost + costate
        # gain form: the rows of `product` are the columns of S A, as solves in place want them
        product = a.mT @ cost if options.form == "gain" else None
        shares = r_k / cost.diagonal()  # how much larger R is: what the inverse loses
        cost.diagonal().add_(r_k)
        norm = float(torch.linalg.vector_norm(cost, ord=1, dim=0).max())
        failed = torch.linalg.cholesky_ex(cost.mT, out=(cost.mT, torch.empty((), dtype=torch.int32, device=a.device)))
        factor = cost.mT
        condition = norm * _inverse_norm(factor)
        if options.form == "inverse":
            condition = max(condition, float(torch.where(shares.isfinite(), shares, 0.0).max()))
        _check(int(failed.info), condition, layer, options)
        if forced is not None:
            feedforward = _solve(factor, forced.reshape(-1, len(a)).mT.clone()).mT.reshape(forced.shape)
            costate = (r_k * feedforward) @ a
        if product is not None:
            gain = product.mT
            _solve(factor, gain)
            push = None if features is None else features[layer] @ gain.mT
            gain.mul_(r_k[:, None])
            torch.mm(a.mT, gain, out=cost)
        else:
            torch.cholesky_inverse(factor, out=factor)
            cost.mul_(-r_k[:, None] * r_k).diagonal().add_(r_k)
            gain = cost @ a
            push = None if features is None else (features[layer] @ gain.mT) / r_k
            torch.mm(a.mT, gain, out=cost)
        gain = gain.div_(r_k[:, None]) if options.gains else None
        del a, product
        _symmetrise(cost)
        cost.diagonal().add_(q[layer])
        yield Step(layer, gain, push, feedforward, cost.clone() if options.costs else None, condition)
        gain = None


def _read(a: Tensor, layer: int, options: _Options) -> Tensor:
    """A Jacobian in the precision of the recursion, checked."""
    if a.ndim != 2 or a.shape[0] != a.shape[1] or not a.is_floating_point():
        raise LawError(
            f"Riccati: got a Jacobian of shape {tuple(a.shape)} and {a.dtype} at layer {layer}, expected a square "
            "matrix of real numbers."
        )
    a = a.detach().to(device=options.device, dtype=options.dtype)
    if not bool(torch.isfinite(torch.linalg.vector_norm(a, ord=torch.inf))):  # a mask would be a matrix more
        raise LawError(
            f"Riccati: got a Jacobian at layer {layer} that is not finite, in {options.precision}. Likely cause: a "
            "block that leaves the range of its precision. Fix: take the Jacobians in float32."
        )
    return a


def _vectors(given: Tensor | None, name: str, layers: int, like: Tensor) -> Tensor | None:
    if given is None:
        return None
    if given.ndim not in (2, 3) or given.shape[0] != layers or given.shape[-1] != len(like):
        raise LawError(
            f"Riccati: got {name} of shape {tuple(given.shape)}, expected ({layers}, {len(like)}) or ({layers}, n, "
            f"{len(like)}): a vector, or some, for each layer."
        )
    if not bool(torch.isfinite(given).all()):
        raise LawError(f"Riccati: got {name} that are not finite. Fix: look at the states that they come from.")
    return given.detach().to(like)


def _symmetrise(matrix: Tensor) -> None:
    """Average a matrix with its transpose in place, block by block."""
    for i in range(0, len(matrix), BLOCK):
        for j in range(0, i + 1, BLOCK):
            here, there = matrix[i : i + BLOCK, j : j + BLOCK], matrix[j : j + BLOCK, i : i + BLOCK]
            mean = (here + there.mT) / 2
            here.copy_(mean)
            there.copy_(mean.mT)


def _solve(factor: Tensor, right: Tensor) -> Tensor:
    """(C C')^-1 right, in the place of right; `torch.cholesky_solve` would copy the factor."""
    torch.linalg.solve_triangular(factor, right, upper=False, out=right)
    torch.linalg.solve_triangular(factor.mT, right, upper=True, out=right)
    return right


def _inverse_norm(factor: Tensor) -> float:
    """Estimate of the 1-norm of (C C')^-1 by Hager's method (1984), for a matrix that is symmetric; from below."""
    width = len(factor)
    x, best = factor.new_full((width, 1), 1 / width), 0.0
    for _ in range(5):
        y = _solve(factor, x.clone())
        norm = float(y.abs().sum())
        if not norm > best:
            break
        best = norm
        slope = _solve(factor, torch.where(y < 0, -1.0, 1.0).to(y))
        x = torch.zeros_like(x)
        x[int(slope.abs().argmax())] = 1
    return best


def _check(failed: int, condition: float, layer: int, options: _Options) -> None:
    rounding = torch.finfo(options.dtype).eps
    if failed == 0 and condition * rounding < LOST:
        return
    got = "is not positive definite to rounding" if failed else f"has a condition number of {condition:.2g} at least"
    fix = "precision='float64', " if options.precision == "float32" else ""
    raise LawError(
        f"Riccati: at layer {layer} the matrix S + R {got}, expected less than {LOST / rounding:.1g} in "
        f"{options.precision}: its solve would leave no digits of the gain. Fix: {fix}weights that lie closer "
        "together, above all a larger r, or Jacobians without directions of huge gain."
    )
