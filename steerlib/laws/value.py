"""RE-Control: while answering, push each state up the gradient of a learned value (Kong et al. 2024).

V(z) is the reward that is still to be expected from state z on, learned from answers of the unsteered plant
(`steerlib.control.bellman`). At every token

    u_0 = 0,    u_{k+1} = u_k + alpha grad V(z + u_k),    k = 0 .. n - 1,

and the token is drawn from z + u_n; alpha and n are the same at every token. In the control view: state feedback, the
first step of policy iteration, with small alpha and finite n in the place of a price on |u|. The gradient is in closed
form (`steerlib.control.ascent`).

The paper's site is the state after the final norm, `Site(-1, "final_norm")`. No later token reads it: the control is a
shift W u of the logits, and the cache is that of the unsteered plant. At any other site the push also moves the cache.

Where text, released code and this file differ. The text trains by semi-gradient TD(0); the code lets the gradient into
the target too and rewards the first token ("released"): both are targets by name. The code ascends in float16; here
states and sums are float32, and `precision` is that of the weights. Strength multiplies the input that was found; the
paper has none (1). Trust region, goal and fallback are not in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Self, cast, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlib.control.ascent import Ascent, Form, ReluNet, ascend, cheaper_form, gram_of, value
from steerlib.control.bellman import Target, ValueNetwork, check_target
from steerlib.control.networks import Training
from steerlib.control.values import ValueHistory, fit_value
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, Law, LawHeader, Source
from steerlib.laws.rewarded import Rewarded, RewardedSource

Precision = Literal["float32", "bfloat16", "float16", "float64"]
#: Numbers of the ascent, in buffers, so that changing one recompiles nothing.
NUMBERS = ("alpha", "radius", "goal", "tolerance")


class ReControl(Law):
    """Ascend the value of the state, anew at every token.

    Args:
        steps: ascent steps n (the paper: 30 to 200, by plant and data).
        alpha: step size (the paper: 0.2 to 1). In units of states squared over reward: another plant needs another.
        target: what the value is trained to; see `steerlib.control.bellman`.
        lam: of "td-lambda".
        layers: of the value network, 2 or 3.
        hidden: numbers in its inner layers; None for as many as the state is wide, as in the paper.
        passes: over the answers in training (the paper: 100).
        batch: answers in an update (the paper: 512).
        rate: of Adam, constant (the paper: 1e-4).
        seed: of initial weights and order.
        form: "plain" or "gram", two ways to the same input; "auto" takes the one of fewer operations.
        precision: type in which the weights are kept and multiplied.
        radius: trust region in place of a number of steps: largest |u| as a share of |z|, reached unless `steps` end
            before; None for none.
        goal: a value to reach in place of the highest; None for the highest.
        tolerance: how near to the goal is near enough.
        huber: see `steerlib.control.ascent.ascend`.
        fallback: leave a state alone whose ascent diverges (see `ascent`); `fallbacks` counts them.
        strength: multiplier of the input.

    Attributes:
        history: what training did; None for a law that was loaded or was given its value.
    """

    alpha: Float[Tensor, ""]
    radius: Float[Tensor, ""] | None
    goal: Float[Tensor, ""] | None
    tolerance: Float[Tensor, ""] | None
    first: Float[Tensor, "hidden width"]
    gram: Float[Tensor, "hidden hidden"]

    def __init__(
        self,
        *,
        steps: int = 30,
        alpha: float = 0.5,
        target: Target = "td0",
        lam: float = 0.9,
        layers: int = 2,
        hidden: int | None = None,
        passes: int = 50,
        batch: int = 64,
        rate: float = 1e-3,
        seed: int = 0,
        form: Form | Literal["auto"] = "auto",
        precision: Precision = "float32",
        radius: float | None = None,
        goal: float | None = None,
        tolerance: float = 0.0,
        huber: float | None = None,
        fallback: bool = False,
        strength: float = 1.0,
    ) -> None:
        """Choose the ascent, and how the value is trained."""
        super().__init__(strength=strength)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise LawError(f"steps: got {steps!r}, expected a whole number from 0 (the unsteered plant) on.")
        if form not in (known := ("auto", *get_args(Form))):
            raise LawError(f"form: got {form!r}, expected one of {', '.join(known)}.")
        if precision not in get_args(Precision):
            raise LawError(f"precision: got {precision!r}, expected one of {', '.join(get_args(Precision))}.")
        for name, got in (("passes", passes), ("hidden", 1 if hidden is None else hidden)):
            if got < 1:
                raise LawError(f"{name}: got {got}, expected at least 1.")
        if huber is not None and (goal is None or not huber > 0):
            raise LawError(f"huber: got {huber!r} for goal={goal!r}, expected a positive number and a goal.")
        check_target(target, lam)
        Training(steps=1, batch=batch, rate=rate)  # refuses what cannot be meant
        if layers not in (2, 3):
            raise LawError(f"layers: got {layers!r}, expected 2 or 3 linear layers.")
        self.steps, self.layers, self.hidden, self.lam, self.passes = steps, layers, hidden, lam, passes
        self.batch, self.rate, self.seed, self.huber, self.fallback = batch, rate, seed, huber, fallback
        self.target: Target = target
        self.form: Form | Literal["auto"] = form
        self.precision: Precision = precision
        for name, number in zip(NUMBERS, (alpha, radius, goal, tolerance), strict=True):
            self.register_buffer(name, None if number is None else torch.tensor(_checked(name, number)))
        for name in (*ReluNet._fields, "gram"):
            self.register_buffer(name, torch.zeros((0, 0) if name in ("first", "inner", "gram") else (0,)))
        self.history: ValueHistory | None = None
        self._fell = torch.zeros(steps + 1, dtype=torch.int64)

    def options(self) -> dict[str, Any]:
        """The ascent, and how the value is trained."""
        names = (
            "steps", "target", "lam", "layers", "hidden", "passes", "batch", "rate", "seed", "form", "precision",
            "huber", "fallback",
        )  # fmt: skip
        numbers = {name: getattr(self, name) for name in NUMBERS}
        held = {name: None if number is None else float(number) for name, number in numbers.items()}
        return {name: getattr(self, name) for name in names} | held

    def tune(
        self, *, alpha: float | None = None, radius: float | None = None, goal: float | None = None,
        tolerance: float | None = None,
    ) -> Self:  # fmt: skip
        """Set numbers of the ascent in place, compiled code included; return the law.

        Raises:
            LawError: if one is out of its range, or the law was made without a radius or goal to set.
        """
        for name, number in zip(NUMBERS, (alpha, radius, goal, tolerance), strict=True):
            if number is not None and getattr(self, name) is None:
                raise LawError(f"{name}: got {number}, but this law has none. Fix: ReControl({name}={number}, ...).")
            if number is not None:
                getattr(self, name).fill_(_checked(name, number))
        return self

    # While running

    def forward(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The steered state; with no steps the state itself."""
        return super().forward(state) if self.steps else state

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Where the ascent leads from each state, in float32 or wider; see `steerlib.control.ascent.ascend`.

        Raises:
            LawError: if the law has not been fitted, or was fitted for another width.
        """
        found = self.ascent(state, watch=self.fallback)
        if not self.fallback:
            return found.input
        failed = found.failed.reshape(-1)
        self._fell.index_add_(0, failed.to(self._fell.device), torch.ones_like(failed))
        return torch.where(found.failed[..., None] > 0, 0.0, found.input)

    def ascent(self, state: Float[Tensor, "*batch width"], *, watch: bool = True, trace: bool = False) -> Ascent:
        """The ascent from each state: its input, the first step at which it diverged, and its path if asked for.

        A row has diverged when its value is lower than where it began (its distance from the goal larger), or a number
        is not finite. A fall from one step to the next is none: ascent of fixed steps goes to and fro across a ridge.
        """
        net = self._net(state)
        return ascend(
            net, net.wide(state), steps=self.steps, alpha=self.alpha, gram=self.gram if len(self.gram) else None,
            radius=self.radius, goal=self.goal, tolerance=self.tolerance if self.goal is not None else None,
            huber=self.huber, watch=watch, trace=trace,
        )  # fmt: skip

    def check(self, states: Float[Tensor, "rows width"]) -> Ascent:
        """The ascent from some states, once it is known that none diverges.

        Raises:
            LawError: if one does; says at which step the first did, and how its value went.
        """
        found = self.ascent(states, trace=True)
        bad = (found.failed > 0).nonzero()
        if len(bad) and found.values is not None:
            row = int(bad[int(found.failed[bad[:, 0]].argmin()), 0])
            step = int(found.failed[row])
            begin, end = float(found.values[0, row]), float(found.values[step, row])
            raise LawError(
                f"{type(self).__name__}: the ascent diverges in {len(bad)} of {len(states)} states, in row {row} at "
                f"step {step} of {self.steps}: its value goes from {begin:.4g} to {end:.4g}. Fix: a smaller alpha "
                f"(now {float(self.alpha):g}), a radius, or fallback=True to leave such states alone."
            )
        return found

    @property
    def fallbacks(self) -> Int[Tensor, " steps"]:
        """How many states were left alone because their ascent diverged at step 1, 2, ..., since the law was made.

        Counts every state the law was handed, those that its scope then leaves alone included.
        """
        return self._fell[1:].clone()

    def value(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """V of each state, in float32 or wider."""
        net = self._net(state)
        return value(net, net.wide(state))

    def _net(self, state: Tensor) -> ReluNet:
        if not len(self.first) or self.first.shape[1] != state.shape[-1]:
            held = f"holds a value of states of width {self.first.shape[1]}" if len(self.first) else "is not fitted"
            raise LawError(f"{type(self).__name__}: {held}; the state has width {state.shape[-1]}. Fix: fit it.")
        parts: dict[str, Any] = {name: getattr(self, name) for name in ReluNet._fields}
        if self.layers == 2:
            parts |= {"inner": None, "inner_bias": None}
        return ReluNet(**parts)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What falls back is counted where the states are."""
        self._fell = fn(self._fell)
        return super()._apply(fn, recurse)

    # Fitting

    def fit(self, contrast: Contrast) -> Self:
        """Fit on a contrast as if it were answers of a single token: reward 1 in the positive class, 0 in the other."""
        return self.fit_rewarded(Rewarded.of_classes(contrast))

    def fit_from(self, source: Source) -> Self:
        """Fit on answers of the unsteered plant, which the source lets it give and rewards."""
        return self.fit_rewarded(cast("RewardedSource", source).trajectories([source.site])[0])

    @torch.inference_mode(False)
    def fit_rewarded(self, rewarded: Rewarded) -> Self:
        """Train the value; see `steerlib.control.values.fit_value` for what is refused."""
        data = rewarded.trajectories
        updates = self.passes * math.ceil(len(data) / self.batch)
        fitted = fit_value(
            data, target=self.target, lam=self.lam, layers=self.layers, hidden=self.hidden or data.width,
            how=Training(steps=updates, batch=self.batch, rate=self.rate, floor=1.0, held_out=0.0), seed=self.seed,
        )  # fmt: skip
        self.hold(fitted.network, rewarded.header)
        self.history = fitted.history
        return self

    @torch.inference_mode(False)
    def hold(self, network: ValueNetwork, header: LawHeader | None = None) -> Self:
        """Take a value that was trained elsewhere; return the law.

        Args:
            network: of any size; the law then has its layers.
            header: where it was trained; None if it belongs to no plant.

        Raises:
            LawError: if a weight is not finite, or its width is not that of the header.
        """
        if header is not None and header.width != network.width:
            raise LawError(
                f"value network: made for states of width {network.width}, got a header of {header.plant!r}, whose "
                f"states have width {header.width}. Fix: a network fitted on this plant."
            )
        net = ReluNet.of(network, getattr(torch, self.precision))
        none, nothing = net.out.new_zeros((0, 0)), net.out.new_zeros((0,))
        if net.inner is None:
            net = net._replace(inner=none, inner_bias=nothing)
        if bad := [name for name, tensor in net._asdict().items() if not bool(tensor.isfinite().all())]:
            raise LawError(f"value network: {bad[0]} is not finite in {self.precision}. Fix: train it again.")
        for name, tensor in net._asdict().items():
            self.register_buffer(name, tensor)
        hidden, width = net.first.shape
        form = cheaper_form(width=width, hidden=hidden, steps=self.steps) if self.form == "auto" else self.form
        self.gram = gram_of(net.first) if form == "gram" else none
        self.layers, self.header, self.history = network.layers, header, None
        return self

    @property
    def network(self) -> ValueNetwork:
        """The value as a network, in float32: to look at it, or for another law to hold."""
        return self._net(self.first).network()


def _checked(name: str, number: float) -> float:
    """A number of the ascent that can be meant, and that float32 can hold."""
    low, most = (0.0 if name != "goal" else -math.inf), torch.finfo(torch.float32).max
    if not isinstance(number, (int, float)) or not max(low, -most) <= number <= most or (name, number) == ("radius", 0):
        kind = "positive" if name == "radius" else "finite" if name == "goal" else "non-negative"
        raise LawError(f"{name}: got {number!r}, expected a {kind} number.")
    return float(number)
