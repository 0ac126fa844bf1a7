"""MiMiC: move the states of one class so that their mean and covariance become those of the other.

With class means m- and m+ and covariances S- and S+, the optimal transport map between the two Gaussians is

    T(z) = m+ + A (z - m-),    A = S-^-1/2 (S-^1/2 S+ S-^1/2)^1/2 S-^-1/2,    u(z) = T(z) - z

(Singh et al. 2024, "Representation Surgery"; Knott and Smith 1984 for the map). Of all affine maps that match both
moments it moves states least. Open loop with a gain: the input depends on the state, on no outcome.

A map made for the negative class would move positive states as well, past where they belong. The comparator of ODESteer
(Zhao et al. 2026) therefore moves only states that a logistic probe calls negative (`gate="probe"`), and adds 1e-2 to
every variance. Its released code does both on the CPU, state by state, and ignores the strength; here all is tensor
code and strength interpolates between a state and its image.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.control.logistic import LogisticFit, fit_logistic
from steerlib.control.polar import gaussian_map
from steerlib.control.refined_logistic import fit_refined
from steerlib.control.transport import RegScale
from steerlib.errors import ContrastError, LawError
from steerlib.laws.base import Contrast, Law, check_width, one_of

Gate = Literal["probe", "none"]
_LARGE = 4_000_000  # numbers in both classes beyond which the gate's probe is fitted without a Hessian


class MiMiC(Law):
    """Transport the negative class onto the positive one, as Gaussians: u(z) = m+ + A (z - m-) - z.

    Args:
        gate: "probe" moves only states that a logistic probe on raw states calls negative; "none" moves all.
        reg: added to every variance, so that the map exists where examples are fewer than coordinates.
        reg_scale: "absolute", in squared units of the states, or "relative" to the mean variance of both classes, so
            that one number means the same on plants whose states differ in size.
        c: scikit-learn's C of the probe.
        strength: 0 leaves states where they are, 1 moves them all the way.
    """

    source: Float[Tensor, " width"]
    shift: Float[Tensor, " width"]
    excess: Float[Tensor, "width width"]
    weight: Float[Tensor, " width"]
    bias: Tensor

    def __init__(
        self,
        *,
        gate: Gate = "probe",
        reg: float = 1e-2,
        reg_scale: RegScale = "absolute",
        c: float = 1.0,
        strength: float = 1.0,
    ) -> None:
        """Choose the gate and the regularisation."""
        super().__init__(strength=strength)
        self.gate: Gate = one_of("gate", gate, Gate)
        self.reg, self.c = reg, c
        self.reg_scale: RegScale = one_of("reg_scale", reg_scale, RegScale)
        for name in ("source", "shift", "weight"):
            self.register_buffer(name, torch.empty(0))
        self.register_buffer("excess", torch.empty(0, 0))  # A - I: what is small is kept small
        self.register_buffer("bias", torch.tensor(0.0))

    def options(self) -> dict[str, Any]:
        """The gate and the regularisation."""
        return {"gate": self.gate, "reg": self.reg, "reg_scale": self.reg_scale, "c": self.c}

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The way to the image of each state, in float32; zero where the gate is shut.

        Raises:
            LawError: if the law has not been fitted, or was fitted for another width.
        """
        check_width(self, self.source, state)
        wide = state.to(self.source.dtype)
        push = self.shift + (wide - self.source) @ self.excess
        if self.gate == "none":
            return push
        return torch.where(self.calls_negative(state)[..., None], push, 0.0)

    def calls_negative(self, state: Float[Tensor, "*batch width"]) -> Tensor:
        """Whether the probe calls each state negative, so that the gate lets it be moved; even odds do."""
        return state.to(self.weight.dtype) @ self.weight + self.bias <= 0

    def fit(self, contrast: Contrast) -> Self:
        """Fit the map and, for a gate, the probe; in float64, or for large sets as near to that as float32 can tell.

        The inverses that lead to the map take most of the time.

        Raises:
            ContrastError: if a class has a single state, all negative states are the same, or reg is 0 and they do not
                span the space.
            LawError: if the classes have the same moments, so that nothing would be moved.
        """
        positive, negative = contrast
        if min(len(positive), len(negative)) < 2:
            raise ContrastError(
                f"MiMiC: got {len(positive)} positive and {len(negative)} negative states, expected at least two of "
                "each: one state has no covariance. Fix: more texts, or DifferenceOfMeans."
            )
        found = gaussian_map(negative, positive, reg=self.reg, scale=self.reg_scale)
        shift = found.target - found.source
        size, excess = found.matrix.norm(), found.matrix
        excess.diagonal().sub_(1)
        if shift.norm() <= 1e-12 * contrast.largest and excess.norm() <= 1e-6 * size:
            raise LawError(
                "MiMiC: both classes have the same mean and covariance. Likely cause: the same states twice."
            )
        self.source, self.shift, self.excess = found.source.float(), shift.float(), excess.float()
        self.weight, self.bias = torch.zeros_like(self.source), torch.zeros_like(self.source[0])
        if self.gate == "probe":
            probe = _probe(positive, negative, self.c)
            self.weight, self.bias = probe.weight.float(), probe.bias.float()
        self.header = contrast.header
        return self


def _probe(positive: Tensor, negative: Tensor, c: float) -> LogisticFit:
    """The probe, by whichever method is faster; both end at the optimum of one objective."""
    if positive.numel() + negative.numel() <= _LARGE:
        return fit_logistic(positive, negative, c=c)
    return fit_refined(positive, negative, c=c)
