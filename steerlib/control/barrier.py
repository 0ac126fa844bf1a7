"""Barrier functions h of a state: their value, their gradient in closed form, and the smallest push that keeps h >= 0.

A state is in the desirable region where h >= 0 (Ames et al. 2019; Zhao et al. 2026, eq. 2). Forms of h:

* `AffineForm`: w.x + b, as of a difference of means or a probe;
* `QuadraticForm`: x.B x + m.x + c, with slope 2 B x + m: a log ratio of Gaussians, or a sketch of degree two;
* `DiagonalForm`: the same with the state written in the eigenbasis of B, where a slope costs d products and not d^2;
* `SketchForm`, `FourierForm`: a weight on random features (`steerlib.control.sketch`);
* `ValueForm`: a ReLU network minus a threshold (Zhao et al., eq. 11).

With `unit`, x = z / |z|: h is then constant along rays, so its gradient is orthogonal to the state,

    grad h(z) = (I - x x') g(x) / |z|,      g the slope of the form,

and it vanishes somewhere: on the sphere h has a maximum. A state of norm zero has no direction: there the gradient is
taken to be zero, and h to be the form's value at the origin.

Everything is tensor code without autograd. Knows nothing about plants or laws.
"""

from __future__ import annotations

from itertools import product
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.optimize import nnls
from torch import Tensor

from steerlib.control import ascent
from steerlib.control.ascent import ReluNet
from steerlib.control.sketch import FourierFeatures, PolynomialSketch
from steerlib.errors import LawError

#: "stop" makes the field zero where the gradient is rounding; "released" divides by norm + 1e-10, as ODESteer's code.
Guard = Literal["stop", "released"]
#: A tangent this small beside the slopes that h has is rounding, in units of the type's precision.
NOISE = 16


class AffineForm(NamedTuple):
    """w.x + b.

    Attributes:
        weight: w.
        constant: b.
        unit: whether x is the state divided by its norm.
    """

    weight: Float[Tensor, " width"]
    constant: Float[Tensor, ""]
    unit: bool

    def logit(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """The form at x."""
        return x @ self.weight + self.constant

    def slope(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Its gradient by x."""
        return self.weight.expand_as(x)


class QuadraticForm(NamedTuple):
    """x.B x + m.x + c.

    Attributes:
        matrix: B, symmetric.
        linear: m.
        constant: c.
        unit: whether x is the state divided by its norm.
    """

    matrix: Float[Tensor, "width width"]
    linear: Float[Tensor, " width"]
    constant: Float[Tensor, ""]
    unit: bool

    def logit(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """The form at x."""
        return ((x @ self.matrix + self.linear) * x).sum(-1) + self.constant

    def slope(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Its gradient by x."""
        return 2 * (x @ self.matrix) + self.linear

    def diagonal(self) -> tuple[DiagonalForm, Float[Tensor, "width width"]]:
        """The form in the eigenbasis of B, and that basis as columns: a state z is z @ basis there.

        Computed in float64, returned in the type of the form.
        """
        values, basis = torch.linalg.eigh(self.matrix.double())
        linear = self.linear.double() @ basis
        like = self.matrix.dtype
        return DiagonalForm(values.to(like), linear.to(like), self.constant, self.unit), basis.to(like)


class DiagonalForm(NamedTuple):
    """sum_i values_i x_i^2 + m.x + c: a `QuadraticForm` of states that are written in its eigenbasis.

    Attributes:
        values: eigenvalues of B, in ascending order.
        linear: m in the eigenbasis.
        constant: c.
        unit: whether x is the state divided by its norm.
    """

    values: Float[Tensor, " width"]
    linear: Float[Tensor, " width"]
    constant: Float[Tensor, ""]
    unit: bool

    def logit(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """The form at x."""
        return ((x * self.values + self.linear) * x).sum(-1) + self.constant

    def slope(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Its gradient by x."""
        return torch.addcmul(self.linear, x, self.values, value=2)


class SketchForm(NamedTuple):
    """w.phi(x) + b with a polynomial count sketch phi.

    Attributes:
        sketch: phi.
        weight: w.
        constant: b.
        unit: whether x is the state divided by its norm.
    """

    sketch: PolynomialSketch
    weight: Float[Tensor, " dimension"]
    constant: Float[Tensor, ""]
    unit: bool

    def logit(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """The form at x."""
        return self.sketch.logit(x, self.weight) + self.constant

    def slope(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Its gradient by x."""
        return self.sketch.gradient(x, self.weight)

    def quadratic(self) -> QuadraticForm:
        """The same h without a sketch, for degree 1 or 2; LawError for others."""
        matrix, linear, constant = self.sketch.quadratic(self.weight)
        return QuadraticForm(matrix, linear, constant + self.constant, self.unit)


class FourierForm(NamedTuple):
    """w.phi(x) + b with random Fourier features phi.

    Attributes:
        features: phi.
        weight: w.
        constant: b.
        unit: whether x is the state divided by its norm.
    """

    features: FourierFeatures
    weight: Float[Tensor, " dimension"]
    constant: Float[Tensor, ""]
    unit: bool

    def logit(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """The form at x."""
        return self.features.logit(x, self.weight) + self.constant

    def slope(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Its gradient by x."""
        return self.features.gradient(x, self.weight)


class ValueForm(NamedTuple):
    """V(x) + b: a value, or the logit of a learned classifier; b is minus the threshold.

    Attributes:
        net: V.
        constant: b.
        unit: whether x is the state divided by its norm.
    """

    net: ReluNet
    constant: Float[Tensor, ""]
    unit: bool

    def logit(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """The form at x."""
        return ascent.value(self.net, x) + self.constant

    def slope(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Its gradient by x."""
        return ascent.gradient(self.net, x)


Barrier = AffineForm | QuadraticForm | DiagonalForm | SketchForm | FourierForm | ValueForm


def value(h: Barrier, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
    """The value of h at each state."""
    return h.logit(_normalised(state)[0] if h.unit else state)


def gradient(h: Barrier, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """Gradient of h at each state; zero at a state of norm zero, if h looks at directions alone."""
    if not h.unit:
        return h.slope(state)
    tangent, _, norm = _tangent(h, state)
    return torch.where(norm > 0, tangent / norm.clamp(min=torch.finfo(norm.dtype).tiny), 0.0)


def direction(
    h: Barrier, state: Float[Tensor, "*batch width"], *, guard: Guard = "stop", size: Tensor | None = None
) -> Float[Tensor, "*batch width"]:
    """Unit gradient of h at each state (Zhao et al. 2026, eq. 13), zero where there is none.

    Args:
        h: the barrier.
        state: where.
        guard: what happens at critical points; see `Guard`. With "released" a state that is one is pushed along
            rounding errors, and a state of norm zero along the slope there.
        size: `slope_size` of h, for a caller that asks often; a tangent is rounding if it is small beside that.
    """
    tangent, slope, norm = _tangent(h, state) if h.unit else (h.slope(state), None, None)
    length = torch.linalg.vector_norm(tangent, dim=-1, keepdim=True)
    if guard == "released":
        return tangent / (length + 1e-10 * (1.0 if norm is None else norm + 1e-12))
    if norm is None or slope is None:
        alive = length > 0
    else:
        size = slope_size(h) if size is None else size
        size = torch.linalg.vector_norm(slope, dim=-1, keepdim=True) if size is None else size
        alive = (length > NOISE * torch.finfo(state.dtype).eps * size) & (norm > 0)
    return tangent * torch.where(alive, 1 / length.clamp(min=torch.finfo(length.dtype).tiny), 0.0)


def slope_size(h: Barrier) -> Float[Tensor, ""] | None:
    """A bound on the slopes of a form on directions, or None for forms of features, where a slope speaks for itself.

    Rounding of a slope is in proportion to this and not to the slope, which may be a small sum of large parts.
    """
    if isinstance(h, AffineForm):
        return h.weight.norm()
    if isinstance(h, QuadraticForm):
        return 2 * h.matrix.norm() + h.linear.norm()
    if isinstance(h, DiagonalForm):
        return 2 * h.values.abs().amax() + h.linear.norm()
    return None


def _normalised(state: Tensor) -> tuple[Float[Tensor, "*batch width"], Float[Tensor, "*batch one"]]:
    """The state over its norm, and the norm; a state of norm zero stays what it is."""
    norm = torch.linalg.vector_norm(state, dim=-1, keepdim=True)
    return state / norm.clamp(min=torch.finfo(norm.dtype).tiny), norm


def _tangent(h: Barrier, state: Tensor) -> tuple[Tensor, Tensor, Float[Tensor, "*batch one"]]:
    """The slope's part along the sphere, the slope, and the state's norm."""
    x, norm = _normalised(state)
    slope = h.slope(x)
    return torch.addcmul(slope, x, torch.linalg.vecdot(x, slope)[..., None], value=-1), slope, norm


# The smallest push


def smallest_push(
    values: Float[Tensor, "*batch"],
    gradients: Float[Tensor, "*batch width"],
    *,
    most: Float[Tensor, "*batch"] | None = None,
) -> Float[Tensor, "*batch width"]:
    """The shortest u with h + grad h . u >= 0: max(0, -h) grad h / |grad h|^2; zero where the gradient is.

    Exact where h is affine. Elsewhere it is a step of Newton's method for h = 0, along the gradient.

    Args:
        values: h.
        gradients: of h.
        most: longest push; near a critical point the shortest is long beyond all bounds.
    """
    steepness = torch.linalg.vector_norm(gradients, dim=-1)
    alive = steepness > 0
    safe = torch.where(alive, steepness, 1.0)
    length = torch.where(alive, (-values).clamp(min=0) / safe, 0.0)
    length = length.clamp(max=torch.finfo(length.dtype).max) if most is None else torch.minimum(length, most)
    return length[..., None] * (gradients / safe[..., None])


class JointPush(NamedTuple):
    """A push under several conditions.

    Attributes:
        push: u.
        violation: by how much it fails the worst condition; near zero unless they contradict one another.
    """

    push: Float[Tensor, "... width"]
    violation: Float[Tensor, "..."]  # noqa: UP037 (axes, not an annotation in quotes)


def smallest_push_of_several(
    values: Float[Tensor, "*batch barriers"], gradients: Float[Tensor, "*batch barriers width"]
) -> JointPush:
    """The shortest u with h_j + grad h_j . u >= 0 for all j, by looking at every set of conditions that may bind.

    u = sum_j mult_j grad h_j with multipliers that are positive where a condition binds and zero elsewhere
    (Karush, Kuhn, Tucker). For few barriers all 2^m sets are tried at once, without a loop whose length depends on the
    data: what a law needs that runs compiled. Where nothing meets all conditions, the push that fails them least.

    Args:
        values: h_j.
        gradients: of each; the barriers, at most 6, along the axis before the last.

    Raises:
        LawError: for more barriers.
    """
    count = values.shape[-1]
    if count > 6:
        raise LawError(f"push: got {count} barriers, expected at most 6. Fix: push_by_solver, outside of a plant.")
    sets = torch.tensor(list(product((0.0, 1.0), repeat=count)), dtype=values.dtype, device=values.device)
    gram = gradients @ gradients.mT
    eps = torch.finfo(values.dtype).eps
    size = gram.diagonal(dim1=-2, dim2=-1).amax(-1)
    identity = torch.eye(count, dtype=values.dtype, device=values.device)
    ridge = (size * eps * count + torch.finfo(values.dtype).tiny)[..., None, None] * identity
    among = sets.view(-1, *[1] * (values.dim() - 1), count)  # one set a row, over the batch
    picked = among[..., :, None] * among[..., None, :] * (gram + ridge) + torch.diag_embed(1 - among)
    inverse = torch.linalg.inv_ex(picked).inverse
    multipliers = (inverse @ (among * -values)[..., None])[..., 0]
    left = values + (gram @ multipliers[..., None])[..., 0]
    wrong_sign = torch.where(among > 0, -multipliers, 0.0).amax(-1).clamp(min=0) * size
    violation = (-left).amax(-1).clamp(min=0)
    scale = values.abs().amax(-1).clamp(min=torch.finfo(values.dtype).tiny)
    badness = torch.nan_to_num((wrong_sign + violation) / scale, nan=torch.inf)
    length = (multipliers * -values).sum(-1).clamp(min=0) / scale * size / scale  # |u|^2 of the right set, unitless
    # Of sets that fail by rounding alone, the shortest; otherwise the one that fails least.
    rank = torch.where(badness <= 1e3 * eps * count, -1 / (1 + length), badness)
    best = rank.argmin(0, keepdim=True)
    chosen = multipliers.gather(0, best[..., None].expand(1, *multipliers.shape[1:]))[0]
    return JointPush((chosen[..., None, :] @ gradients)[..., 0, :], violation.gather(0, best)[0])


def push_by_solver(values: Float[np.ndarray, " barriers"], gradients: Float[np.ndarray, "barriers width"]) -> JointPush:
    """The same for one state and any number of barriers, by a library's solver (least distance programming).

    With E = [G' ; -h'] and f = (0, .., 0, 1), the residual r = E y - f of min |E y - f| over y >= 0 gives
    u = -r[:d] / r[d] (Lawson and Hanson 1974, chapter 23), by `scipy.optimize.nnls`.

    Raises:
        LawError: if no push meets all conditions.
    """
    system = np.vstack([gradients.T, -values[None]])
    aim = np.zeros(len(system))
    aim[-1] = 1.0
    found, _ = nnls(system, aim)
    rest = system @ found - aim
    if abs(rest[-1]) <= 1e-12:
        raise LawError(f"push: no push meets all of {len(values)} conditions. Fix: fewer, or conditions that agree.")
    push = -rest[:-1] / rest[-1]
    violation = max(0.0, float((-(values + gradients @ push)).max()))
    return JointPush(torch.from_numpy(push), torch.tensor(violation, dtype=torch.float64))


def met(values: Float[Tensor, "*batch barriers"]) -> Bool[Tensor, "*batch"]:
    """Whether every barrier is non-negative."""
    return (values >= 0).all(-1)
