"""ODESteer: follow the gradient of a learned barrier for a fixed distance (Zhao et al. 2026).

Adding a vector, a + T v(a), is one explicit Euler step of size T of

    da/dt = v(a),    a(0) the activation,    t from 0 to T                                             (eq. 4, 5)

so strength is the horizon T, and t an artificial time: neither layers nor tokens. The barrier h is the log ratio of
wanted over unwanted activations,

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
"""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from steerlib.control import barrier as barriers
from steerlib.control.barrier import Guard
from steerlib.control.density_ratio import Features
from steerlib.control.ode import COST, Flow, Solver, check_solver, solve
from steerlib.errors import LawError
from steerlib.laws.barred import Barred, BarrierKind, Route
from steerlib.laws.base import one_of

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
        size = self.slopes(seen)

        def velocity(a: Tensor) -> Tensor:
            if self.field == "gradient":
                return barriers.gradient(h, a)
            return barriers.direction(h, a, guard=self.guard, size=size)

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
