"""ODESteer: follow the gradient of a learned barrier for a fixed distance (Zhao et al. 2026); and the classical filter.

**ODESteer.** Adding a vector, a + T v(a), is one explicit Euler step of size T of

    da/dt = v(a),    a(0) the activation,    t from 0 to T                                             (eq. 4, 5)

so strength is the horizon T. The barrier h is the log ratio of wanted over unwanted activations,

    h(a) = w.phi(a / |a|) + b + log(N- / N+),                                                           (eq. 12)

with phi a polynomial count sketch, w and b from logistic regression, and the field its unit gradient

    v(a) = J_phi(a)' w / |J_phi(a)' w|,                                                                 (eq. 13)

solved by Euler's method in ten steps. Along the flow dh/dt = |grad h| >= 0. In the control view: feedback within a
token, open loop with respect to what the plant does next; T is a budget, and no stopping rule looks at h.

What the paper leaves to be seen: h looks at directions alone, so v is orthogonal to a, the flow stays on the sphere of
radius |a(0)| and turns by at most T / |a(0)|; T has to be set anew for plants with activations of another size. Euler's
K steps end at |a|^2 = |a(0)|^2 + T^2 / K. h has a maximum on the sphere, where the flow goes to and fro by T / K.

Where text and released code differ, by name: `guard="released"` divides by norms plus 1e-10 and never stops; the code
steers the last prompt token too, as the scope `generated` does; its class has gamma = 1 and c0 = 0.1 for defaults, its
settings those of the text. Its one-step variant is `steps=1`. Its hashes come from the run's seed, here from `seed`.

**The filter.** `BarrierFilter` asks how little is enough: the shortest push u with h(a + u) >= margin, the filter of
control barrier functions (Ames et al. 2019). In closed form for one affine h; by Newton steps along the gradient for
others; for several half-spaces the small quadratic program is solved by trying which of them bind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.control import barrier as barriers
from steerlib.control.barrier import Affine, Barrier, Guard, smallest_push, smallest_push_of_several
from steerlib.control.density_ratio import Features, fit_ratio
from steerlib.control.ode import COST, Flow, Solver, check_solver, solve
from steerlib.errors import ContrastError, LawError
from steerlib.laws.barred import Barred, BarrierKind, Route
from steerlib.laws.base import Contrast, one_of

VelocityField = Literal["unit", "gradient"]


class ODESteer(Barred):
    """Follow the unit gradient of a barrier over an arc of length T, the strength.

    Negative strength follows it downhill; strength 0 is the unsteered plant. A state at a critical point of h, or of
    norm zero, is left alone.

    Args:
        barrier: how h is learned; "sketch" is the paper's. With `normalise=False`, "means" is CAA and "linear" is ITI
            as the paper compares with them, both constant fields.
        solver: see `steerlib.control.ode`; the paper has "euler". "geodesic" keeps the norm; "bosh3" chooses its steps.
        steps: how many, at most for "bosh3"; 10 in the paper, 1 in its one-step variant.
        tolerance: of "bosh3": error of a step as a share of the state's norm.
        field: "unit" as in the paper, or the "gradient" itself, which slows down towards a maximum; T is a time then.
        guard: what happens where there is no gradient; see `steerlib.control.barrier.Guard`.
        route: how h is computed while running; see `steerlib.laws.barred`.
        normalise: look at directions, a / |a|, as in the paper.
        dimension: of the sketch, or of Fourier features.
        degree: of the polynomial kernel (gamma x.y + c0)^degree.
        gamma: of the kernel.
        c0: of the kernel.
        bandwidth: of Fourier features; None for the released code's rule.
        reg: of Gaussian covariances.
        c: scikit-learn's C of logistic regression.
        hidden: of the "neural" ratio.
        updates: of the "neural" ratio.
        seed: of the hashes.
        strength: T, in units of the state; the paper: 3 to 23, by plant.

    Raises:
        LawError: if an option has no meaning.
    """

    def __init__(
        self,
        *,
        barrier: BarrierKind = "sketch",
        solver: Solver = "euler",
        steps: int = 10,
        tolerance: float = 1e-3,
        field: VelocityField = "unit",
        guard: Guard = "stop",
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
        """Choose the barrier, the solver and the horizon."""
        check_solver(solver, steps, tolerance)
        features = Features(
            unit=normalise, dimension=dimension, degree=degree, gamma=gamma, c0=c0, bandwidth=bandwidth, reg=reg,
            hidden=hidden, updates=updates, seed=seed,
        )  # fmt: skip
        looks = steps * COST[solver]
        super().__init__(barrier=barrier, route=route, c=c, features=features, looks=looks, strength=strength)
        self.solver: Solver = solver
        self.steps, self.tolerance = steps, tolerance
        self.field: VelocityField = one_of("field", field, VelocityField)
        self.guard: Guard = one_of("guard", guard, Guard)

    def options(self) -> dict[str, Any]:
        """The flow, and how the barrier is fitted and held."""
        names = ("solver", "steps", "tolerance", "field", "guard")
        return {name: getattr(self, name) for name in names} | super().options()

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The mean velocity on the way, so that the state ends at a + T u; in float32 or wider.

        Raises:
            LawError: if the law has not been fitted, or was fitted for another width.
        """
        return self.flow(state).mean

    def flow(self, state: Float[Tensor, "*batch width"], *, trace: bool = False) -> Flow:
        """The way of each state: its mean velocity, how far it came, and its path if asked for."""
        h, seen = self.sensed(state)

        def velocity(a: Tensor) -> Tensor:
            if self.field == "gradient":
                return barriers.gradient(h, a)
            return barriers.direction(h, a, guard=self.guard)

        found = solve(
            velocity, seen, self.strength, solver=self.solver, steps=self.steps, tolerance=self.tolerance, trace=trace
        )
        path = None if found.path is None else self.back(found.path)
        return found._replace(mean=self.back(found.mean), path=path)

    def check(self, states: Float[Tensor, "rows width"]) -> Flow:
        """The way of some states, once it is known that all come to its end.

        Raises:
            LawError: if an adaptive solver met its limit; says for how many, and how far the first came.
        """
        found = self.flow(states, trace=True)
        short = (found.reached < 1).nonzero()
        if len(short):
            row = int(short[0, 0])
            raise LawError(
                f"ODESteer: {len(short)} of {len(states)} states did not come to the end of T = "
                f"{float(self.strength):g} in {self.steps} tries; row {row} came to {float(found.reached[row]):.0%}. "
                "Fix: more steps (a limit for 'bosh3'), a larger tolerance, or a solver with steps of equal length."
            )
        return found


class BarrierFilter(Barred):
    """The shortest push that makes the barrier as large as a margin; nothing where it is already.

    At strength 1 an affine barrier is met exactly. Others are approached by Newton steps along the gradient, each of
    which ends within `limit` of where the state began: where the margin is above all that h can be, the push would
    otherwise grow beyond all bounds near the maximum.

    Args:
        barrier: how h is learned; see `ODESteer`.
        margin: what h is to be at least.
        steps: of Newton's method; an affine h takes one.
        limit: longest push, as a share of the state's norm.
        route: how h is computed while running.
        normalise: look at directions, a / |a|.
        dimension: see `ODESteer`, as for what follows.
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
        halves = [h for h in found if isinstance(h, Affine)]
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
        for _ in range(1 if isinstance(h, Affine) and not h.unit else self.steps):
            there = seen + push
            lacking = barriers.value(h, there) - self.margin
            push = _within(push + smallest_push(lacking, barriers.gradient(h, there), most=most), most)
        return self.back(push)


def _within(push: Float[Tensor, "*batch width"], most: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
    """A push, shortened to a length where it is longer."""
    length = torch.linalg.vector_norm(push, dim=-1)
    return push * torch.where(length > most, most / torch.where(length > 0, length, 1.0), 1.0)[..., None]
