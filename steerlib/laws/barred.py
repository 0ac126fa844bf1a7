"""What laws with a barrier share: how it is fitted, in which form it is held, and how it is read.

A barrier h is fitted as a log density ratio (`steerlib.control.density_ratio`) or given. While running it is held in
one of the forms of `steerlib.control.barrier`, all in buffers. A sketch of degree two is a quadratic form, so it need
not be held as a sketch; which route is taken changes the cost, not the function:

* "sketch": as fitted, with Fourier transforms of the sketch's dimension at every look;
* "matrix": x.B x + m.x + c, a product with B at every look;
* "eigen": the state is written in the eigenbasis of B once, and a look costs as much as a norm. Two products for any
  number of looks, and a decomposition of B when the law is fitted;
* "auto": "eigen" up to a width of 1024, where it has more than one look to pay for it; "matrix" beyond; "sketch" where
  h is no quadratic form.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any, Literal, Self

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from steerlib.control import barrier as barriers
from steerlib.control.ascent import ReluNet
from steerlib.control.barrier import (
    AffineForm,
    Barrier,
    DiagonalForm,
    FourierForm,
    QuadraticForm,
    SketchForm,
    ValueForm,
)
from steerlib.control.bellman import ValueNetwork
from steerlib.control.density_ratio import Features, Kind, Ratio, fit_ratio
from steerlib.control.sketch import FourierFeatures, PolynomialSketch
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, Law, LawHeader, norm_or_raise, one_of

BarrierKind = Kind | Literal["held"]
Route = Literal["auto", "eigen", "matrix", "sketch"]
#: Widest state whose form is decomposed unasked: it takes a fraction of a second.
DECOMPOSED = 1024
_PARTS = {
    "weight": 1, "linear": 1, "values": 1, "matrix": 2, "basis": 2, "frequencies": 2, "phases": 1,
    "first": 2, "first_bias": 1, "inner": 2, "inner_bias": 1, "out": 1, "out_bias": 0, "constant": 0,
}  # fmt: skip


class Barred(Law):
    """A law that looks at a barrier h.

    Args:
        barrier: how h is fitted (`steerlib.control.density_ratio`), or "held" for one that is given to `hold`.
        route: the form in which it is held; see the module's text.
        c: scikit-learn's C of logistic regression.
        features: what h is a function of.
        looks: how often a state is looked at; one look is cheaper without an eigenbasis.
        strength: multiplier of the input.

    Attributes:
        ratio: what the fit found, with whether it separates the classes; None in a loaded law.
    """

    weight: Float[Tensor, " columns"]
    linear: Float[Tensor, " width"]
    values: Float[Tensor, " width"]
    matrix: Float[Tensor, "width width"]
    basis: Float[Tensor, "width width"]
    constant: Float[Tensor, ""]
    size: Float[Tensor, ""]
    buckets: Int[Tensor, "degree width_and_one"]
    signs: Int8[Tensor, "degree width_and_one"]
    frequencies: Float[Tensor, "dimension width"]
    phases: Float[Tensor, " dimension"]
    first: Float[Tensor, "hidden width"]
    first_bias: Float[Tensor, " hidden"]
    inner: Float[Tensor, "hidden hidden"]
    inner_bias: Float[Tensor, " hidden"]
    out: Float[Tensor, " hidden"]
    out_bias: Float[Tensor, ""]

    def __init__(
        self, *, barrier: BarrierKind, route: Route, c: float, features: Features, looks: int, strength: float
    ) -> None:
        """Choose the barrier and its form."""
        super().__init__(strength=strength)
        self.barrier: BarrierKind = barrier if barrier == "held" else one_of("barrier", barrier, Kind)
        self.route: Route = one_of("route", route, Route)
        if route == "sketch" and barrier not in ("sketch", "held"):
            raise LawError(f"route: got 'sketch' for barrier={barrier!r}, which has none. Fix: route='auto'.")
        if not (isinstance(c, (int, float)) and c > 0):
            raise LawError(f"c: got {c!r}, expected a positive number (scikit-learn's C, whose default is 1).")
        if barrier == "sketch":  # refuses what cannot be drawn before anything is measured
            features.sketch(1)
        self.c, self.features, self.looks = float(c), features, looks
        for name, axes in _PARTS.items():
            self.register_buffer(name, torch.zeros((0,) * axes))
        self.register_buffer("size", torch.tensor(0.0))
        self.register_buffer("buckets", torch.zeros((0, 0), dtype=torch.int64))
        self.register_buffer("signs", torch.zeros((0, 0), dtype=torch.int8))
        self.ratio: Ratio | None = None

    def options(self) -> dict[str, Any]:
        """How the barrier is fitted and held."""
        features = asdict(self.features)
        normalise = features.pop("unit")
        return {"barrier": self.barrier, "route": self.route, "c": self.c, "normalise": normalise, **features}

    @classmethod
    def _restore(cls, tensors: dict[str, Tensor], options: dict[str, Any], header: dict[str, Any] | None) -> Self:
        # What a file holds may lie at any address; a copy is aligned, so that products round as before it was saved.
        return super()._restore({name: tensor.clone() for name, tensor in tensors.items()}, options, header)

    # Fitting

    def fit(self, contrast: Contrast) -> Self:
        """Fit the barrier.

        Raises:
            ContrastError: see `steerlib.control.density_ratio.fit_ratio`.
            LawError: if the classes cannot be told apart at all, or the barrier was given.
        """
        if self.barrier == "held":
            raise LawError(f"{type(self).__name__}: its barrier was given, not fitted. Fix: hold(...) another.")
        ratio = fit_ratio(contrast.positive, contrast.negative, self.barrier, features=self.features, c=self.c)
        self._take(ratio.barrier)
        self.ratio, self.header = ratio, contrast.header
        causes = ["both classes hold the same states", "wrong token"]
        size = 1.0 if self.features.unit else contrast.largest
        norm_or_raise(_weights(ratio.barrier), "log ratio", causes, beside=size if self.barrier == "means" else 0.0)
        return self

    def hold(self, barrier: Barrier | ValueNetwork, header: LawHeader | None = None, *, threshold: float = 0.0) -> Self:
        """Take a barrier that was made elsewhere; return the law.

        Args:
            barrier: any form but `DiagonalForm`, or a value, whose barrier is V - threshold.
            header: where it was fitted; None if it belongs to no plant.
            threshold: for a value.

        Raises:
            LawError: for another form, or numbers that are not finite.
        """
        if isinstance(barrier, ValueNetwork):
            net = ReluNet.of(barrier, torch.float32)
            barrier = ValueForm(net, net.out_bias.new_tensor(-threshold), self.features.unit)
        self._take(barrier)
        self.barrier, self.header, self.ratio = "held", header, None
        return self

    def _take(self, h: Barrier) -> None:
        """Put a barrier into buffers, by the law's route.

        Raises:
            LawError: for a form in its eigenbasis, or numbers that are not finite.
        """
        if isinstance(h, DiagonalForm):
            raise LawError("barrier: got a form in its eigenbasis without the basis. Fix: hold the QuadraticForm.")
        unit = replace(self.features, unit=h.unit)
        if isinstance(h, SketchForm) and self.route != "sketch" and (self.route != "auto" or h.sketch.degree <= 2):
            h = h.quadratic()
        parts: dict[str, Tensor] = {}
        if isinstance(h, QuadraticForm):
            wide = h.matrix.shape[0] > DECOMPOSED or self.looks < 2
            if self.route == "matrix" or (self.route == "auto" and wide):
                parts = {"matrix": h.matrix, "linear": h.linear}
            else:
                diagonal, basis = h.diagonal()
                parts = {"values": diagonal.values, "linear": diagonal.linear, "basis": basis}
        elif isinstance(h, SketchForm):
            s = h.sketch
            unit = replace(unit, dimension=s.dimension, gamma=s.gamma, c0=s.c0, degree=s.degree)
            parts = {"weight": h.weight, "buckets": s.buckets, "signs": s.signs}
        elif isinstance(h, FourierForm):
            parts = {"weight": h.weight, **h.features._asdict()}
        elif isinstance(h, ValueForm):
            parts = {name: part for name, part in h.net._asdict().items() if part is not None}
        else:
            parts = {"weight": h.weight}
        if bad := [name for name, part in {**parts, "constant": h.constant}.items() if not bool(part.isfinite().all())]:
            raise LawError(f"barrier: its {bad[0]} is not finite. Fix: fit it again, in float32 or wider.")
        self.features = unit
        for name, axes in _PARTS.items():
            held = parts.get(name, torch.zeros((0,) * axes, device=h.constant.device))
            self.register_buffer(name, held.detach().float().clone())
        self.constant = h.constant.detach().float().clone()
        size = barriers.slope_size(h)
        self.size = self.constant.new_zeros(()) if size is None else size.detach().float().clone()
        self.buckets = parts.get("buckets", self.buckets.new_zeros((0, 0))).clone()
        self.signs = parts.get("signs", self.signs.new_zeros((0, 0))).clone()

    # While running

    def sensed(self, state: Float[Tensor, "*batch width"]) -> tuple[Barrier, Float[Tensor, "*batch width"]]:
        """The barrier as it is held, and the state as it looks at it: in its eigenbasis, if it has one.

        In float32, or wider for a wider state. Arithmetic is that of tensors; which form there is decides shapes.

        Raises:
            LawError: if the law has not been fitted, or was fitted for another width.
        """
        wide = state.to(torch.promote_types(state.dtype, torch.float32))
        h, width = self._form(wide)
        if width != state.shape[-1]:
            found = f"holds a barrier of width {width}" if width else "is not fitted"
            raise LawError(f"{type(self).__name__}: {found}; the state has width {state.shape[-1]}. Fix: fit it.")
        return h, wide @ self.basis.to(wide) if len(self.basis) else wide

    def slopes(self, like: Tensor) -> Float[Tensor, ""] | None:
        """A bound on the slopes of the barrier, `steerlib.control.barrier.slope_size`; None where it has none."""
        of_features = len(self.buckets) or len(self.frequencies) or len(self.first)
        return None if of_features else self.size.to(like)

    def back(self, push: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """A push as the barrier sees it, in the coordinates of the state."""
        return push @ self.basis.to(push).T if len(self.basis) else push

    def h(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """The barrier's value at each state: the log ratio that it is on the wanted side."""
        form, seen = self.sensed(state)
        return barriers.value(form, seen)

    def _form(self, like: Tensor) -> tuple[Barrier, int]:
        constant, unit = self.constant.to(like), self.features.unit
        if len(self.values):
            return DiagonalForm(self.values.to(like), self.linear.to(like), constant, unit), len(self.values)
        if len(self.matrix):
            return QuadraticForm(self.matrix.to(like), self.linear.to(like), constant, unit), len(self.matrix)
        if len(self.buckets):
            how = self.features
            sketch = PolynomialSketch(self.buckets, self.signs, how.dimension, how.gamma, how.c0)
            return SketchForm(sketch, self.weight.to(like), constant, unit), sketch.width
        if len(self.frequencies):
            drawn = FourierFeatures(self.frequencies.to(like), self.phases.to(like))
            return FourierForm(drawn, self.weight.to(like), constant, unit), self.frequencies.shape[1]
        if len(self.first):
            inner = (self.inner.to(like), self.inner_bias.to(like)) if len(self.inner) else (None, None)
            ends = (self.first.to(like), self.first_bias.to(like)), (self.out.to(like), self.out_bias.to(like))
            return ValueForm(ReluNet(*ends[0], *inner, *ends[1]), constant, unit), self.first.shape[1]
        return AffineForm(self.weight.to(like), constant, unit), len(self.weight)


def _weights(h: Barrier) -> Float[Tensor, " numbers"]:
    """What is zero where a barrier says nothing about the state."""
    if isinstance(h, AffineForm | SketchForm | FourierForm):
        return h.weight.double()
    if isinstance(h, ValueForm):
        return h.net.out.double()
    return torch.cat([h.matrix.flatten() if isinstance(h, QuadraticForm) else h.values, h.linear]).double()
