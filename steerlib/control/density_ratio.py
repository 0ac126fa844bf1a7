"""Log density ratios log p+(z) / p-(z) from examples of both classes, as barriers.

Logistic regression on features learns the log odds of the class; with N+ positive and N- negative examples

    h(z) = w.phi(x) + b + log(N- / N+)                                          (Zhao et al. 2026, eq. 8, 9, 12)

is the log ratio of the densities, whatever the numbers of examples. Ways to choose the features, by name:

* "sketch"    polynomial count sketch of x (ODESteer)
* "kernel"    the same kernel without a sketch, through the examples' inner products: what the sketch approximates
* "linear"    x itself
* "fourier"   random Fourier features (in the released code; no table of the paper)

with x = z / |z| (ODESteer), or x = z. Features are not standardised and both classes weigh alike, as in the released
code; the penalty is scikit-learn's default, C = 1. Features on the unit sphere are small, so that this shrinks much.

Without logistic regression:

* "gaussian"  two Gaussians with covariances of their own: exact, quadratic in x
* "shared"    two Gaussians with one covariance: exact, linear
* "means"     two Gaussians with the identity for covariance: the gradient is the difference of means
* "neural"    a small ReLU network, trained by the logistic loss

Knows tensors and classes; knows nothing about plants or laws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from steerlib.control.ascent import ReluNet
from steerlib.control.barrier import AffineForm, Barrier, FourierForm, QuadraticForm, SketchForm, ValueForm, value
from steerlib.control.bellman import ValueNetwork
from steerlib.control.logistic import LogisticFit, fit_logistic
from steerlib.control.networks import Training, seeded, train
from steerlib.control.sketch import FourierFeatures, PolynomialSketch, median_bandwidth
from steerlib.control.wide_logistic import fit_wide
from steerlib.errors import ContrastError, LawError

Kind = Literal["sketch", "kernel", "linear", "fourier", "gaussian", "shared", "means", "neural"]
_MOST = 6000  # examples for which the table of all inner products is made
_DOUBLE = 20_000_000  # numbers in a table up to which it is made in float64


@dataclass(frozen=True)
class Features:
    """What a log ratio is a function of; each kind looks at its own.

    Attributes:
        unit: look at the direction of a state alone, z / |z|.
        dimension: of sketch and Fourier features.
        degree: of the polynomial kernel.
        gamma: of the polynomial kernel.
        c0: of the polynomial kernel.
        bandwidth: of the Gaussian kernel, in units of x; None for the median distance of examples over sqrt(2).
        reg: of Gaussian covariances: added to every variance, as a share of the mean variance.
        hidden: of the network.
        updates: of the network.
        seed: of hashes, frequencies, and the network.
    """

    unit: bool = True
    dimension: int = 8000
    degree: int = 2
    gamma: float = 0.1
    c0: float = 1.0
    bandwidth: float | None = None
    reg: float = 1e-2
    hidden: int = 32
    updates: int = 500
    seed: int = 0

    def sketch(self, width: int) -> PolynomialSketch:
        """The sketch of these features for states of a width; LawError where an option has no meaning."""
        return PolynomialSketch.draw(
            width, dimension=self.dimension, degree=self.degree, gamma=self.gamma, c0=self.c0, seed=self.seed
        )


@dataclass(frozen=True)
class Ratio:
    """A fitted log ratio.

    Attributes:
        barrier: h, in float64, or float32 for a network.
        separates: whether h + log(N+ / N-), the log odds, puts every example on its own side. A ratio that does has no
            finite estimate: its size says how strong the penalty is, and only its direction and order can be trusted.
        gradient: norm of the objective's gradient at the end of logistic regression; None where there was none.
    """

    barrier: Barrier
    separates: bool
    gradient: float | None


def fit_ratio(
    positive: Float[Tensor, "positives width"],
    negative: Float[Tensor, "negatives width"],
    kind: Kind = "sketch",
    *,
    features: Features | None = None,
    c: float = 1.0,
) -> Ratio:
    """Fit the log of p+ over p-.

    Args:
        positive: examples of the wanted class.
        negative: examples of the other.
        kind: see the module's text.
        features: of the kind; ODESteer's by default.
        c: inverse strength of the penalty, scikit-learn's C.

    Raises:
        ContrastError: if a class has fewer than two examples, the widths differ, or a state has norm zero although only
            directions are looked at.
        LawError: if an option has no meaning.
    """
    how = features or Features()
    if kind not in get_args(Kind):
        raise LawError(f"density ratio: got {kind!r}, expected one of {', '.join(get_args(Kind))}.")
    pos, neg = _examples(positive, "positive", how.unit), _examples(negative, "negative", how.unit)
    if pos.shape[1] != neg.shape[1]:
        raise ContrastError(f"got widths {pos.shape[1]} and {neg.shape[1]}, expected the same for both.")
    prior = math.log(len(neg) / len(pos))
    if kind in ("gaussian", "shared", "means"):
        h = _gaussian(pos.double(), neg.double(), kind, how)
        return Ratio(h, _separates(h, pos, neg, prior), None)
    if kind == "neural":
        h = _neural(pos, neg, prior, c, how)
        return Ratio(h, _separates(h, pos, neg, prior), None)
    h, fit = {"sketch": _sketch, "kernel": _kernel, "linear": _linear, "fourier": _fourier}[kind](pos, neg, c, how)
    return Ratio(h._replace(constant=h.constant + prior), fit.separates, fit.gradient)


def _examples(states: Tensor, name: str, unit: bool) -> Tensor:
    """States of one class as x, in float32 at least."""
    if states.dim() != 2 or len(states) < 2:
        raise ContrastError(
            f"density ratio: {name} states have shape {tuple(states.shape)}, expected (examples, width) with at least "
            "two examples: one says nothing about a density. Fix: more texts."
        )
    wide = states.detach().to(torch.promote_types(states.dtype, torch.float32))
    norm = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    if not bool(torch.isfinite(norm).all()):
        raise ContrastError(f"{name} states: got some that are not finite. Fix: leave them out.")
    if not unit:
        return wide
    if not bool((norm > 0).all()):
        row = int((norm[:, 0] == 0).nonzero()[0])
        raise ContrastError(
            f"density ratio: {name} state {row} has norm zero, so no direction. Fix: leave it out, or unit=False."
        )
    return wide / norm


def _separates(h: Barrier, pos: Tensor, neg: Tensor, prior: float) -> bool:
    """Whether the log odds tell all examples apart; x is given, so h must not divide by the norm again."""
    bare, like = h._replace(unit=False), h.constant.dtype
    return bool((value(bare, pos.to(like)) > prior).all() and (value(bare, neg.to(like)) < prior).all())


# Logistic regression


def _sketch(pos: Tensor, neg: Tensor, c: float, how: Features) -> tuple[SketchForm, LogisticFit]:
    sketch = how.sketch(pos.shape[1])
    moved = sketch._replace(buckets=sketch.buckets.to(pos.device), signs=sketch.signs.to(pos.device))
    both = torch.cat([pos, neg])
    table = moved.table(both.double() if len(both) * how.dimension <= _DOUBLE else both)
    fit = fit_wide(table, len(pos), c=c, spoil=True)
    return SketchForm(moved, moved.weight_of(fit.weight), fit.bias, how.unit), fit


def _kernel(pos: Tensor, neg: Tensor, c: float, how: Features) -> tuple[QuadraticForm, LogisticFit]:
    """By the representer theorem w = sum_i a_i phi(x_i), and |w|^2 = a'Ka: logistic regression on a root of K."""
    if how.degree not in (1, 2):
        raise LawError(f"kernel: got degree {how.degree}, expected 1 or 2, whose h is quadratic. Fix: kind='sketch'.")
    both = torch.cat([pos, neg]).double()
    if len(both) > _MOST:
        raise LawError(f"kernel: got {len(both)} examples, expected at most {_MOST}. Fix: fewer, or kind='sketch'.")
    sizes, basis = torch.linalg.eigh((how.gamma * both @ both.T + how.c0) ** how.degree)
    held = sizes > 1e-13 * sizes[-1]
    root, basis = sizes[held].sqrt(), basis[:, held]
    fit = fit_logistic(*(basis * root).split([len(pos), len(neg)]), c=c)
    a = basis @ (fit.weight / root)
    if how.degree == 1:
        matrix, linear = both.new_zeros(both.shape[1], both.shape[1]), how.gamma * a @ both
    else:
        matrix, linear = how.gamma**2 * (both.T * a) @ both, 2 * how.gamma * how.c0 * a @ both
    return QuadraticForm(matrix, linear, fit.bias + how.c0**how.degree * a.sum(), how.unit), fit


def _linear(pos: Tensor, neg: Tensor, c: float, how: Features) -> tuple[AffineForm, LogisticFit]:
    fit = fit_logistic(pos, neg, c=c)
    return AffineForm(fit.weight, fit.bias, how.unit), fit


def _fourier(pos: Tensor, neg: Tensor, c: float, how: Features) -> tuple[FourierForm, LogisticFit]:
    both = torch.cat([pos, neg])
    if len(both) * how.dimension <= _DOUBLE:
        both = both.double()
    sigma = how.bandwidth if how.bandwidth is not None else median_bandwidth(both, seed=how.seed)
    drawn = FourierFeatures.draw(both.shape[1], dimension=how.dimension, sigma=sigma, seed=how.seed)
    here = FourierFeatures(*(tensor.to(both) for tensor in drawn))
    fit = fit_wide(here.features(both), len(pos), c=c, spoil=True)
    wide = FourierFeatures(*(tensor.double() for tensor in here))
    return FourierForm(wide, fit.weight, fit.bias, how.unit), fit


# Without logistic regression


def _gaussian(pos: Tensor, neg: Tensor, kind: Kind, how: Features) -> AffineForm | QuadraticForm:
    """The log ratio of two Gaussians, whose constant and slope follow from both densities."""
    mean, other = pos.mean(0), neg.mean(0)
    if kind == "means":
        weight = mean - other
        return AffineForm(weight, -(mean.square().sum() - other.square().sum()) / 2, how.unit)
    if not how.reg > 0 and min(len(pos), len(neg)) <= pos.shape[1]:
        raise ContrastError(
            f"gaussian: got {len(pos)} and {len(neg)} examples of width {pos.shape[1]} and reg={how.reg}: a covariance "
            "of so few has no inverse. Fix: more texts, or a positive reg."
        )
    first, second = (rows - rows.mean(0) for rows in (pos, neg))
    if kind == "shared":
        both = torch.cat([first, second])
        weight = torch.linalg.solve(_covariance(both, len(both) - 2, how.reg), mean - other)
        return AffineForm(weight, -(weight * (mean + other)).sum() / 2, how.unit)
    one, two = (_covariance(rows, len(rows) - 1, how.reg) for rows in (first, second))
    near, far = torch.linalg.inv(one), torch.linalg.inv(two)
    volume = (torch.linalg.slogdet(two).logabsdet - torch.linalg.slogdet(one).logabsdet) / 2
    constant = (other @ far @ other - mean @ near @ mean) / 2 + volume
    matrix = (far - near) / 2
    return QuadraticForm((matrix + matrix.T) / 2, near @ mean - far @ other, constant, how.unit)


def _covariance(rows: Tensor, freedom: int, reg: float) -> Float[Tensor, "width width"]:
    """Of rows about their mean, with a share of the mean variance added to every variance."""
    found = rows.T @ rows / max(1, freedom)
    size = float(found.diagonal().mean())
    if not size > 0:
        raise ContrastError("gaussian: got a class whose states are all the same. Fix: more texts.")
    found.diagonal().add_(reg * size)
    return found


def _neural(pos: Tensor, neg: Tensor, prior: float, c: float, how: Features) -> ValueForm:
    """A ReLU network of two layers, trained on standardised x; the standardisation is folded into its first layer.

    The penalty is weight decay of strength 1 / (c n), as in the other fits.
    """
    both = torch.cat([pos, neg]).float().cpu()
    sign = both.new_ones(len(both))
    sign[len(pos) :] = -1
    mean = both.mean(0)
    size = float((both - mean).square().mean().sqrt())
    if not size > 0:
        raise ContrastError("neural ratio: got states that are all the same. Fix: more texts.")
    inputs = (both - mean) / size
    network = seeded(lambda: ValueNetwork(both.shape[1], how.hidden), seed=how.seed)

    def loss(rows: Tensor, held_out: bool) -> Tensor:  # noqa: ARG001 - as `train` calls it
        return softplus(-sign[rows] * network(inputs[rows])).mean()

    training = Training(steps=how.updates, batch=128, rate=3e-3, warm_up=how.updates // 10, decay=1 / (c * len(both)))
    train(network, loss, rows=len(both), how=training, seed=how.seed)
    net = ReluNet.of(network, torch.float32)
    first = net.first / size
    net = net._replace(first=first, first_bias=net.first_bias - first @ mean)
    net = net._replace(**{name: part.to(pos.device) for name, part in net._asdict().items() if part is not None})
    return ValueForm(net, torch.tensor(prior, dtype=torch.float32, device=pos.device), how.unit)


def auc(positive: Float[Tensor, " positives"], negative: Float[Tensor, " negatives"]) -> float:
    """How often a reading of a positive example is above that of a negative one; ties count half."""
    order = torch.sort(negative.double().contiguous()).values
    x = positive.double().contiguous()
    below, upto = torch.searchsorted(order, x), torch.searchsorted(order, x, right=True)
    return float((below + upto).double().mean() / (2 * len(order)))
