"""Activation transport: move every neuron along the line that carries its values in one class to those in the other.

On coordinate j, with the sorted values of both classes paired,

    T_j(z) = m+_j + w_j (z_j - m-_j),    w_j = sum (p - m+_j)(q - m-_j) / sum (q - m-_j)^2,    u(z) = T(z) - z

(Rodriguez et al. 2024, "Controlling Language and Diffusion Models by Transporting Activations"): Linear-AcT. Mean-AcT
holds w = 1, which leaves the difference of means. Correlations between neurons are ignored; compare `laws.mimic`.

Where the original and those who compare with it differ, each has its name here:

- `position`: the original fits on states averaged over the tokens of a text ("mean"), yet moves every token; ODESteer's
  comparator (Zhao et al. 2026) fits on the last token ("last").
- `support`: the original moves a value only if it lies within a range of quantiles of the source, "q_0_100" for its
  whole range; ODESteer's comparator moves all ("none"). Apple's released code leaves the ends of the range out; here
  they are part of it, so that the extreme examples of the source move with the rest.
- `matching`: for classes of unequal size, which Apple's code refuses, and ODESteer's truncates; see `coordinate_map`.
- Constant neurons: Apple's Mean-AcT leaves out those whose standard deviation in a class is at most 1e-4, and its
  Linear-AcT divides by noise of size 1e-8 there; here they are shifted.
- Several layers: the original fits them in order of depth, the earlier ones acting, `Stack(..., sequential=True)`; its
  code pushes the texts of both classes meanwhile, `pushed="both"`, so that the target moves on with the source, where
  `pushed="negative"` leaves it alone. ODESteer's comparator takes one layer, and ignores the strength: always 1. The
  code of A-LQR keeps only the first four of all the modules that it names, which weakens the baseline.

The originals act on the outputs of single modules, such as norms; here laws act on the residual stream.
"""

from __future__ import annotations

import re
from typing import Any, Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlib.control.transport import CoordinateMap, Matching, coordinate_map, quantile_range
from steerlib.errors import ContrastError, LawError
from steerlib.laws.base import Contrast, Law, Source, check_width, one_of

Position = Literal["mean", "last"]
_SUPPORT = re.compile(r"q_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)")


class LinearAcT(Law):
    """Transport each neuron along a line: u_j(z) = m+_j - z_j + w_j (z_j - m-_j), where z_j lies in the support.

    A neuron that is constant in the negative class has no slope; it is shifted (w = 1).

    Args:
        position: what the map is fitted on: states averaged over the "mean" of a text's tokens, or of the "last" token.
        support: quantiles of the negative class between which a value is moved, such as "q_0_100" or "q_5_95", in per
            cent; "none" moves every value.
        matching: which values are paired; see `steerlib.control.transport.coordinate_map`.
        strength: 0 leaves states where they are, 1 moves them all the way.
    """

    source: Float[Tensor, " width"]
    shift: Float[Tensor, " width"]
    stretch: Float[Tensor, " width"]
    low: Float[Tensor, " width"]
    high: Float[Tensor, " width"]

    def __init__(
        self,
        *,
        position: Position = "mean",
        support: str = "q_0_100",
        matching: Matching = "quantile",
        strength: float = 1.0,
    ) -> None:
        """Choose what is fitted and which values are moved."""
        super().__init__(strength=strength)
        _shares(support)
        self.position: Position = one_of("position", position, Position)
        self.matching: Matching = one_of("matching", matching, Matching)
        self.support = support
        # stretch is w - 1: what is small is kept small.
        for name in ("source", "shift", "stretch", "low", "high"):
            self.register_buffer(name, torch.empty(0))

    def options(self) -> dict[str, Any]:
        """What is fitted and which values are moved."""
        return {"position": self.position, "support": self.support, "matching": self.matching}

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The way to the image of each value, in float32; zero outside of the support.

        Raises:
            LawError: if the law has not been fitted, or was fitted for another width.
        """
        check_width(self, self.source, state)
        wide = state.to(self.source.dtype)
        push = self.shift + self.stretch * (wide - self.source)
        return push if self.support == "none" else torch.where(self.supported(state), push, 0.0)

    def supported(self, state: Float[Tensor, "*batch width"]) -> Bool[Tensor, "*batch width"]:
        """Which values lie in the support, so that they are moved."""
        wide = state.to(self.low.dtype)
        return (wide >= self.low) & (wide <= self.high)

    def fit_from(self, source: Source) -> Self:
        """Fit on the states of the position that the law asks for."""
        return self.fit(source.contrasts([source.site], position=self.position)[0])

    def fit(self, contrast: Contrast) -> Self:
        """Fit a line for each neuron, in float64.

        Raises:
            ContrastError: if no neuron changes within the negative class; `MeanAcT` needs no more than that.
            LawError: if no value would be moved.
        """
        found = coordinate_map(contrast.negative, contrast.positive, matching=self.matching)
        if found.constant.all():
            raise ContrastError(
                f"{type(self).__name__}: no neuron changes among the {len(contrast.negative)} negative states, so that "
                "no slope is determined. Fix: more texts, or MeanAcT(support='none')."
            )
        return self._hold(found, found.slope - 1, contrast)

    def _hold(self, found: CoordinateMap, stretch: Tensor, contrast: Contrast) -> Self:
        shift = found.target - found.source
        if shift.norm() <= 1e-12 * contrast.largest and stretch.norm() <= 1e-6:
            raise LawError(
                f"{type(self).__name__}: both classes hold the same values on every neuron, so that nothing would be "
                "moved. Likely cause: the same states twice."
            )
        self.source, self.shift, self.stretch = found.source.float(), shift.float(), stretch.float()
        self.low, self.high = torch.full_like(self.source, -torch.inf), torch.full_like(self.source, torch.inf)
        shares = _shares(self.support)
        if shares is not None:
            low, high = quantile_range(contrast.negative, *shares)
            self.low, self.high = low.float(), high.float()
        self.header = contrast.header
        return self


class MeanAcT(LinearAcT):
    """Shift each neuron by the difference of its class means: u = m+ - m-, where z lies in the support.

    Without support and at the last token this is `DifferenceOfMeans`. The A-LQR comparison (Skifstad et al. 2026) uses
    it without support, on averaged states, fitted layer by layer.

    Args:
        position: see `LinearAcT`.
        support: see `LinearAcT`.
        strength: 0 leaves states where they are, 1 moves the mean of one class onto that of the other.
    """

    def __init__(self, *, position: Position = "mean", support: str = "none", strength: float = 1.0) -> None:
        """Choose what is fitted and which values are moved."""
        super().__init__(position=position, support=support, strength=strength)

    def options(self) -> dict[str, Any]:
        """What is fitted and which values are moved."""
        return {"position": self.position, "support": self.support}

    def fit(self, contrast: Contrast) -> Self:
        """Measure the means, in float64; one state of each class is enough.

        Raises:
            LawError: if the means are equal.
        """
        negative, positive = contrast.negative.double().mean(0), contrast.positive.double().mean(0)
        lines = CoordinateMap(torch.ones_like(negative), negative, positive, torch.zeros_like(negative).bool())
        return self._hold(lines, torch.zeros_like(negative), contrast)


def _shares(support: str) -> tuple[float, float] | None:
    """The two quantiles that a name says, in [0, 1]; None for no support.

    Raises:
        LawError: if the name says none.
    """
    if support == "none":
        return None
    found = _SUPPORT.fullmatch(support) if isinstance(support, str) else None
    low, high = (float(part) / 100 for part in found.groups()) if found else (1.0, 0.0)
    if not 0 <= low < high <= 1:
        raise LawError(
            f"support: got {support!r}, expected 'none' or two rising percentages such as 'q_0_100' or 'q_5_95'."
        )
    return low, high
