"""Move no farther than a probe asks: minimal-norm projection onto its half-space (LiSeCo, Cheng et al. 2024).

A logistic probe gives p(unwanted | z) = sigmoid(-(w.z + b)). The law is the solution of

    minimise |u|^2   subject to   p(unwanted | z + u) <= setpoint,

which is u = max(0, log((1 - setpoint) / setpoint) - (w.z + b)) w / |w|^2: zero inside, else straight to the boundary.
The largest probability allowed is the setpoint; strength stays a multiplier, so that strength in [0, 1] goes part of
the way. The authors project at every layer, each with a probe of its own: `Stack.across`. The law looks at the state,
yet at one layer and one token at a time: nothing returns from what the plant does next.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.control.logistic import LogisticFit, fit_logistic
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, Law, norm_or_raise


class HalfSpaceProjection(Law):
    """Project the state onto the half-space where a probe gives the unwanted class at most a set probability.

    Args:
        setpoint: largest probability of the unwanted class, in (0, 1).
        c: inverse strength of the probe's penalty, scikit-learn's C.
        standardise: fit the probe on states of unit variance in each coordinate.
        strength: multiplier of the input; at 1 the state reaches the boundary.

    Attributes:
        probe: the fitted probe; None in a loaded law, whose buffers hold its weight and bias.
    """

    weight: Float[Tensor, " width"]
    bias: Float[Tensor, ""]
    setpoint: Float[Tensor, ""]

    def __init__(
        self, *, setpoint: float = 0.1, c: float = 1.0, standardise: bool = False, strength: float = 1.0
    ) -> None:
        """Choose the probability and the probe's penalty."""
        super().__init__(strength=strength)
        if not (isinstance(c, (int, float)) and c > 0):
            raise LawError(f"c: got {c!r}, expected a positive number (scikit-learn's C, whose default is 1).")
        self.c, self.standardise = float(c), standardise
        self.probe: LogisticFit | None = None
        self.register_buffer("weight", torch.empty(0))
        self.register_buffer("bias", torch.tensor(0.0))
        self.register_buffer("setpoint", torch.tensor(0.0))
        self.aim(setpoint)

    def options(self) -> dict[str, Any]:
        """How the probe is fitted; the setpoint is a buffer."""
        return {"c": self.c, "standardise": self.standardise}

    def aim(self, setpoint: float) -> Self:
        """Set the largest probability of the unwanted class in place, compiled code included; return the law.

        Raises:
            LawError: if it is not strictly between 0 and 1: a logistic probe never says never.
        """
        if not isinstance(setpoint, (int, float)) or not 0 < setpoint < 1:
            raise LawError(f"setpoint: got {setpoint!r}, expected a probability strictly between 0 and 1.")
        self.setpoint.fill_(float(setpoint))
        return self

    def fit(self, contrast: Contrast) -> Self:
        """Fit the probe.

        Raises:
            LawError: if the probe finds no direction, so that there is no boundary to go to.
        """
        probe = fit_logistic(*contrast, c=self.c, standardise=self.standardise)
        norm_or_raise(probe.weight, "probe", ["both classes hold the same states", "wrong token"])
        self.probe, self.header = probe, contrast.header
        self.weight, self.bias = probe.weight.float(), probe.bias.float()
        return self

    def unwanted(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """Probability of the unwanted class by the law's probe, in float32."""
        return (-self._logit(state)).sigmoid()

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The shortest way into the half-space; zero inside.

        Raises:
            LawError: if the law has not been fitted, or was fitted for another width.
        """
        boundary = ((1 - self.setpoint) / self.setpoint).log()
        lacking = (boundary - self._logit(state)).clamp(min=0)
        return lacking[..., None] * (self.weight / self.weight.square().sum())

    def _logit(self, state: Tensor) -> Tensor:
        if self.weight.shape[0] != state.shape[-1]:
            held = f"a probe of width {self.weight.shape[0]}" if len(self.weight) else "no probe: it is not fitted"
            raise LawError(f"{type(self).__name__}: holds {held}; the state has width {state.shape[-1]}. Fix: fit it.")
        return state.float() @ self.weight + self.bias
