"""The filter of control barrier functions: the shortest push after which h is large enough (Ames et al. 2019).

A controller may want anything; the filter changes it as little as it can so that the state stays desirable. Here the
controller wants nothing, so that what is left is the shortest push:

    minimise |u|^2   subject to   h(a + u) >= margin.

For an affine h it is max(0, margin - h) grad h / |grad h|^2, in closed form: the half-space projection of
`steerlib.laws.projection`. Otherwise h is replaced by its linearisation, some times (Newton steps along the gradient).
For several half-spaces it is a small quadratic program, solved by trying which of them bind. In continuous time the
filter asks dh/dt >= -k h; between two tokens there is no such time, so the whole of what lacks is made good at once.

Where ODESteer spends its whole budget on every token, this law spends what is needed, and nothing inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.control import barrier as barriers
from steerlib.control.barrier import AffineForm, Barrier, smallest_push, smallest_push_of_several
from steerlib.control.density_ratio import Features, fit_ratio
from steerlib.control.ode import check_solver
from steerlib.errors import ContrastError, LawError
from steerlib.laws.barred import Barred, BarrierKind, Route
from steerlib.laws.base import Contrast


class BarrierFilter(Barred):
    """The shortest push that makes the barrier as large as a margin; nothing where it is already.

    At strength 1 an affine barrier is met exactly. Others are approached by Newton steps along the gradient, each of
    which ends within `limit` of where the state began: where the margin is above all that h can be, the push would
    otherwise grow beyond all bounds near the maximum.

    Args:
        barrier: how h is learned; see `steerlib.laws.barrier.ODESteer`.
        margin: what h is to be at least.
        steps: of Newton's method; an affine h takes one.
        limit: longest push, as a share of the state's norm.
        route: how h is computed while running.
        normalise: look at directions, a / |a|.
        dimension: see `steerlib.laws.barrier.ODESteer`, as for what follows.
        degree: of the kernel.
        gamma: of the kernel.
        c0: of the kernel.
        bandwidth: of Fourier features.
        reg: of Gaussian covariances.
        c: of logistic regression.
        hidden: of the "neural" ratio.
        updates: of the "neural" ratio.
        seed: of the hashes.
        strength: multiplier of the push.

    Raises:
        LawError: if an option has no meaning.
    """

    margin: Float[Tensor, ""]
    planes: Float[Tensor, "barriers width"]
    constants: Float[Tensor, " barriers"]

    def __init__(
        self,
        *,
        barrier: BarrierKind = "sketch",
        margin: float = 0.0,
        steps: int = 4,
        limit: float = 1.0,
        route: Route = "auto",
        normalise: bool = True,
        dimension: int = 8000,
        degree: int = 2,
        gamma: float = 0.1,
        c0: float = 1.0,
        bandwidth: float | None = None,
        reg: float = 1e-2,
        c: float = 1.0,
        hidden: int = 32,
        updates: int = 500,
        seed: int = 0,
        strength: float = 1.0,
    ) -> None:
        """Choose the barrier and the margin."""
        check_solver("euler", steps)
        if not (isinstance(limit, (int, float)) and 0 < limit <= 1e6):
            raise LawError(f"limit: got {limit!r}, expected a positive number (a share of the state's norm).")
        features = Features(
            unit=normalise, dimension=dimension, degree=degree, gamma=gamma, c0=c0, bandwidth=bandwidth, reg=reg,
            hidden=hidden, updates=updates, seed=seed,
        )  # fmt: skip
        super().__init__(barrier=barrier, route=route, c=c, features=features, looks=2 * steps, strength=strength)
        self.steps, self.limit = steps, float(limit)
        self.register_buffer("margin", torch.tensor(0.0))
        self.register_buffer("planes", torch.zeros(0, 0))
        self.register_buffer("constants", torch.zeros(0))
        self.aim(margin)

    def options(self) -> dict[str, Any]:
        """The filter, and how the barrier is fitted and held; the margin is a buffer."""
        return {"steps": self.steps, "limit": self.limit} | super().options()

    def aim(self, margin: float) -> Self:
        """Set the margin in place, compiled code included; return the law.

        Raises:
            LawError: if it is not a finite number.
        """
        if not isinstance(margin, (int, float)) or not math.isfinite(margin):
            raise LawError(f"margin: got {margin!r}, expected a finite number.")
        self.margin.fill_(float(margin))
        return self

    def _take(self, h: Barrier) -> None:
        super()._take(h)
        self.planes, self.constants = self.planes.new_zeros(0, 0), self.constants.new_zeros(0)

    def fit_several(self, contrasts: Sequence[Contrast]) -> Self:
        """Fit one affine barrier for each contrast, all of which are to be met at once; return the law.

        Raises:
            LawError: if the barriers are no half-spaces, or there are none or more than 6.
            ContrastError: if the contrasts are not of one site.
        """
        if self.features.unit or self.barrier not in ("linear", "means", "shared"):
            raise LawError(
                f"filter: got barrier={self.barrier!r}, normalise={self.features.unit}; several barriers must be "
                "half-spaces. Fix: barrier='linear', 'means' or 'shared', and normalise=False."
            )
        if not 1 <= len(contrasts) <= 6:
            raise LawError(f"filter: got {len(contrasts)} contrasts, expected 1 to 6.")
        places = {
            None if c.header is None else (c.header.weight_hash, c.header.layer, c.header.point) for c in contrasts
        }
        if len(places) > 1:
            raise ContrastError("filter: got contrasts of different sites or plants, expected one for all.")
        how = {"features": self.features, "c": self.c}
        found = [fit_ratio(one.positive, one.negative, self.barrier, **how).barrier for one in contrasts]
        halves = [h for h in found if isinstance(h, AffineForm)]
        self._take(halves[0])
        self.planes = torch.stack([h.weight for h in halves]).float()
        self.constants = torch.stack([h.constant for h in halves]).float()
        self.header = contrasts[0].header
        return self

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The push of each state, in float32 or wider.

        Raises:
            LawError: if the law has not been fitted, or was fitted for another width.
        """
        h, seen = self.sensed(state)
        most = self.limit * torch.linalg.vector_norm(seen, dim=-1)
        if len(self.planes):
            planes = self.planes.to(seen)
            values = seen @ planes.T + self.constants.to(seen) - self.margin
            push = smallest_push_of_several(values, planes.expand(*seen.shape[:-1], *planes.shape)).push
            return _within(push, most)
        push = torch.zeros_like(seen)
        for _ in range(1 if isinstance(h, AffineForm) and not h.unit else self.steps):
            there = seen + push
            lacking = barriers.value(h, there) - self.margin
            push = _within(push + smallest_push(lacking, barriers.gradient(h, there), most=most), most)
        return self.back(push)


def _within(push: Float[Tensor, "*batch width"], most: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
    """A push, shortened to a length where it is longer."""
    length = torch.linalg.vector_norm(push, dim=-1)
    return push * torch.where(length > most, most / torch.where(length > 0, length, 1.0), 1.0)[..., None]
