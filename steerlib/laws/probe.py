"""Push along the normal of a linear probe: away from where logistic regression sees the unwanted class.

u(z) = w / |w|, with p(wanted | z) = sigmoid(w.z + b) fitted on the states of one site of the residual stream.

Inference-time intervention (ITI, Li et al. 2023) probes single attention heads, keeps the best of them and scales by
the spread along each direction. What Zhao et al. (2026) compare with under that name has none of these: one probe on
raw residual states, fitted with scikit-learn's defaults, its unit normal added. That is ``scale="unit"`` here;
``scale="sigma"`` keeps the original's scaling at this one site. The original is in `steerlib.laws.iti`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch

from steerlib.control.logistic import LogisticFit, fit_logistic
from steerlib.errors import LawError
from steerlib.laws.additive import Additive
from steerlib.laws.base import Contrast, norm_or_raise, one_of

ProbeScale = Literal["unit", "sigma"]


class LinearProbe(Additive):
    """Add the unit normal of a logistic probe.

    Args:
        scale: "unit" makes strength a length in the residual stream (Zhao et al. 2026); "sigma" counts it in standard
            deviations of the fitted states along the normal, both classes together (Li et al. 2023).
        c: inverse strength of the probe's penalty, scikit-learn's C.
        standardise: fit the probe on states of unit variance in each coordinate; the papers do not.
        strength: multiplier of the vector.

    Attributes:
        probe: the fitted probe, with its bias and whether it separates the classes; None in a loaded law.
    """

    def __init__(
        self, *, scale: ProbeScale = "unit", c: float = 1.0, standardise: bool = False, strength: float = 1.0
    ) -> None:
        """Choose the unit of strength and the probe's penalty."""
        super().__init__(strength=strength)
        if not (isinstance(c, (int, float)) and c > 0):
            raise LawError(f"c: got {c!r}, expected a positive number (scikit-learn's C, whose default is 1).")
        self.scale: ProbeScale = one_of("scale", scale, ProbeScale)
        self.c, self.standardise = float(c), standardise
        self.probe: LogisticFit | None = None

    def options(self) -> dict[str, Any]:
        """The unit of strength and how the probe is fitted."""
        return {"scale": self.scale, "c": self.c, "standardise": self.standardise}

    def fit(self, contrast: Contrast) -> Self:
        """Fit the probe. More features than examples are no problem: the penalty makes its optimum unique.

        Raises:
            LawError: if the probe finds no direction.
        """
        probe = fit_logistic(*contrast, c=self.c, standardise=self.standardise)
        norm = norm_or_raise(probe.weight, "probe", ["both classes hold the same states", "wrong token"])
        vector = probe.weight / norm
        if self.scale == "sigma":
            along = torch.cat(tuple(contrast)).double() @ vector
            vector = vector * (along - along.mean()).square().mean().sqrt()
        self.probe = probe
        return self._hold(vector, contrast)
