"""Inputs that raise a value: gradient ascent through a ReLU network, in closed form.

With V(z) = w . relu(W1 z + b1) + c (two layers) and p = W1 z + b1 the gradient is W1' g, where

    g = [p > 0] * w                                       (two layers)
    g = [p > 0] * W2' ([q > 0] * w),  q = W2 relu(p) + b2   (three layers),

so ascent u <- u + alpha W1' g needs no autograd, and works under `inference_mode` and in compiled code. There are two
ways to go, which give the same u:

* plain: u itself is kept, and each step takes W1' g and W1 times that: 4 d h operations for d numbers in z, h in p;
* Gram: only p matters on the way, and a step moves it by alpha (W1 W1') g: 2 h^2 operations. The g are summed, and W1'
  is applied to the sum once.

The products at both ends are shared, so n steps take 4 d h n operations against 2 h^2 (n - 1) + 4 d h, and three layers
4 h^2 n more in both. So from two steps on Gram is cheaper where h < 2 d: by nearly half for a network as wide as the
state. The weights that are read at each step stand in the same proportion.

Knows tensors; knows nothing about plants or laws.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import linear, relu

from steerlib.control.bellman import ValueNetwork
from steerlib.control.networks import frozen, seeded

Form = Literal["plain", "gram"]


class ReluNet(NamedTuple):
    """Weights of a value network; see `steerlib.control.bellman.ValueNetwork`.

    Weights may be of lower precision than the state: products are taken in theirs, sums in the state's.

    Attributes:
        first: W1.
        first_bias: b1.
        inner: W2 of three layers, None of two.
        inner_bias: b2.
        out: w.
        out_bias: c.
    """

    first: Float[Tensor, "hidden width"]
    first_bias: Float[Tensor, " hidden"]
    inner: Float[Tensor, "hidden2 hidden"] | None
    inner_bias: Float[Tensor, " hidden2"] | None
    out: Float[Tensor, " last"]
    out_bias: Float[Tensor, ""]

    @classmethod
    def of(cls, network: ValueNetwork, dtype: torch.dtype) -> Self:
        """Copies of a network's weights."""
        weights, biases = ([t.detach().to(dtype).clone() for t in ts] for ts in (network.weights, network.biases))
        inner = (weights[1], biases[1]) if network.layers == 3 else (None, None)
        return cls(weights[0], biases[0], *inner, weights[-1][0], biases[-1][0])

    def network(self) -> ValueNetwork:
        """A frozen network of these weights, in float32."""
        hidden, width = self.first.shape
        made = seeded(lambda: ValueNetwork(width, hidden, 2 if self.inner is None else 3), seed=0)
        inner = () if self.inner is None else ((self.inner, self.inner_bias),)
        parts = ((self.first, self.first_bias), *inner, (self.out[None], self.out_bias[None]))
        with torch.no_grad():
            for held, given in zip(
                (*made.weights, *made.biases), (*(w for w, _ in parts), *(b for _, b in parts)), strict=True
            ):
                held.copy_(given)  # type: ignore[arg-type]
        return frozen(made)

    def wide(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The state in the type that sums are taken in: float32, or that of the weights if it is wider."""
        return state.to(torch.promote_types(torch.promote_types(state.dtype, torch.float32), self.first.dtype))

    def start(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch hidden"]:
        """The first pre-activation p."""
        return _times(state, self.first, self.first_bias)

    def look(
        self, p: Float[Tensor, "*batch hidden"], out: Float[Tensor, " last"], *, valued: bool = True
    ) -> tuple[Float[Tensor, "*batch hidden"], Float[Tensor, "*batch"]]:
        """The gradient g with respect to p, and the value (zero if it is not asked for).

        Args:
            p: first pre-activation.
            out: the last weights, or a multiple of them, which multiplies g and not the value.
            valued: whether to compute the value.
        """
        last, scaled = p, out.to(p.dtype)
        if self.inner is not None:
            last = _times(relu(p), self.inner, self.inner_bias)
        slope = torch.where(last > 0, scaled, 0.0)
        if self.inner is not None:
            slope = torch.where(p > 0, _times(slope, self.inner.T), 0.0)
        if not valued:
            return slope, p.new_zeros(())
        return slope, relu(last) @ self.out.to(p.dtype) + self.out_bias.to(p.dtype)

    def noise(self, p: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch"]:
        """By how much rounding may move the value."""
        last = p
        if self.inner is not None:
            last = _times(relu(p), self.inner, self.inner_bias)
        size = relu(last) @ self.out.to(p.dtype).abs() + self.out_bias.to(p.dtype).abs()
        return 8 * torch.finfo(self.first.dtype).eps * size


class Ascent(NamedTuple):
    """What an ascent found.

    Attributes:
        input: u.
        failed: first step (from 1) after which a row had a lower value than at the start (was farther from its goal),
            or numbers that are not finite; 0 for rows where no step had. Of zeros if nobody watched.
        path: u after each step, the first before any; None unless it was asked for.
        values: V along the path; likewise.
    """

    input: Float[Tensor, "... width"]
    failed: Int[Tensor, ...]
    path: Float[Tensor, "points ... width"] | None = None
    values: Float[Tensor, "points ..."] | None = None  # noqa: UP037 - a shape, no type


def value(net: ReluNet, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
    """V of each state."""
    return net.look(net.start(state), net.out)[1]


def gradient(net: ReluNet, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """Gradient of V at each state. At a kink, where there is none, the unit counts as off, as in autograd."""
    return _times(net.look(net.start(state), net.out, valued=False)[0], net.first.T)


def gram_of(first: Float[Tensor, "hidden width"]) -> Float[Tensor, "hidden hidden"]:
    """W1 W1', summed in float32 at least."""
    wide = first.to(torch.promote_types(first.dtype, torch.float32))
    return (wide @ wide.T).to(first.dtype)


def cheaper_form(*, width: int, hidden: int, steps: int) -> Form:
    """The form that needs fewer operations, and reads fewer weights; see the module's text."""
    return "gram" if steps > 1 and hidden < 2 * width else "plain"


def ascend(
    net: ReluNet,
    state: Float[Tensor, "*batch width"],
    *,
    steps: int,
    alpha: Float[Tensor, ""] | float,
    gram: Float[Tensor, "hidden hidden"] | None = None,
    radius: Float[Tensor, ""] | None = None,
    goal: Float[Tensor, ""] | None = None,
    tolerance: Float[Tensor, ""] | None = None,
    huber: float | None = None,
    watch: bool = False,
    trace: bool = False,
) -> Ascent:
    """Take steps u <- u + alpha grad V(z + u) from u = 0, each row by itself.

    Args:
        net: the value network.
        state: z; float32 or wider.
        steps: most steps, taken by all rows together: rows that have arrived take steps of length zero.
        alpha: step size.
        gram: `gram_of` the first layer, to go the Gram way; None to go the plain one.
        radius: trust region: largest |u| as a share of |z|. The step that would leave it ends on its boundary, and is
            the row's last.
        goal: a value to reach in place of the highest: steps descend (V - goal)^2 instead.
        tolerance: a row has arrived when V is as near as that to its goal.
        huber: descend the smooth absolute error of that beta instead (`steerlib.control.bellman.reaching_loss`): the
            step is that of plain ascent, but for the sign, while V is farther from its goal.
        watch: find rows that diverge.
        trace: keep the path.

    Returns:
        The input of each row.
    """
    z = state.reshape(-1, state.shape[-1])
    p, x = net.start(z), None
    out = net.out.to(z.dtype) * alpha
    valued = goal is not None or watch or trace
    bound = None if radius is None else _Region(radius * z.norm(dim=1))
    guard = _Guard(net, p, goal) if watch else None
    onward = net.first if gram is None else gram
    slope, v = net.look(p, out, valued=valued)
    path, values = [torch.zeros_like(z)], [v]
    for step in range(1, steps + 1):
        if goal is not None:
            slope = slope * _pull(v - goal, tolerance, huber)[:, None]
        move = slope if gram is not None else _times(slope, net.first.T)
        if bound is not None:
            share = bound.share(x, move, move if gram is None else _times(move, gram))[:, None]
            move = share * move
        x = move if x is None else x + move
        if step < steps or valued:
            p = _plus(p, move, onward)
            slope, v = net.look(p, out, valued=valued)
        if guard is not None:
            guard.after(step, v)
        if trace:
            path.append(x if gram is None else _times(x, net.first.T))
            values.append(v)
    if x is None:
        x, gram = torch.zeros_like(z), None
    u = x if gram is None else _times(x, net.first.T)
    failed = guard.failed(u) if guard is not None else torch.zeros_like(z[:, 0], dtype=torch.int64)
    shape = state.shape[:-1]
    found = Ascent(u.reshape(state.shape), failed.reshape(shape))
    if not trace:
        return found
    return found._replace(
        path=torch.stack(path).reshape(-1, *state.shape), values=torch.stack(values).reshape(-1, *shape)
    )


class _Region:
    """The ball that u must not leave, row by row.

    In the Gram form u = W1' s is not at hand, but u . W1' g = s . (W1 W1') g is: products of what is kept with images.
    """

    def __init__(self, radius: Float[Tensor, " rows"]) -> None:
        self.left = radius.square()  # R^2 - |u|^2
        self.inside = torch.ones_like(radius, dtype=torch.bool)

    def share(self, x: Tensor | None, move: Tensor, dual: Tensor) -> Float[Tensor, " rows"]:
        """Which share of a step to take: all, or as far as the boundary, or nothing after that."""
        along = torch.zeros_like(self.left) if x is None else (x * dual).sum(1)
        size = (move * dual).sum(1)
        root = (along.square() + size * self.left).clamp(min=0).sqrt()
        # The positive root of |u + t du| = R, without a difference of nearly equal numbers.
        far = torch.where(along > 0, self.left / (along + root), (root - along) / size)
        far = torch.where(size > 0, far.clamp(min=0), torch.inf)
        share = torch.where(self.inside, far.clamp(max=1.0), 0.0)
        self.left = (self.left - 2 * share * along - share.square() * size).clamp(min=0)
        self.inside = self.inside & (far > 1)
        return share


class _Guard:
    """Watches what each row's value does: a step size too large for the network shows in a value that falls."""

    def __init__(self, net: ReluNet, p: Tensor, goal: Tensor | None) -> None:
        self.goal, self.noise = goal, net.noise(p)
        self.first = self._merit(net.look(p, net.out)[1])
        self.at = torch.zeros_like(self.first, dtype=torch.int64)
        self.steps = 0

    def _merit(self, v: Tensor) -> Float[Tensor, " rows"]:
        return v if self.goal is None else -(v - self.goal).abs()

    def after(self, step: int, v: Tensor) -> None:
        """Note the rows that have failed by now."""
        fine = self._merit(v) >= self.first - self.noise  # false for what is no number
        self._note(~(fine & v.isfinite()), step)
        self.steps = step

    def _note(self, bad: Bool[Tensor, " rows"], step: int) -> None:
        self.at = torch.where((self.at == 0) & bad, step, self.at)

    def failed(self, u: Tensor) -> Int[Tensor, " rows"]:
        """The first step at which each row failed, an input that is no number included."""
        self._note(~u.isfinite().all(1), self.steps)
        return self.at


def _pull(error: Tensor, tolerance: Tensor | None, huber: float | None) -> Float[Tensor, " rows"]:
    """What multiplies the gradient of V in a step towards a goal; zero for rows that are there."""
    pull = -2 * error if huber is None else -(error / huber).clamp(-1, 1)
    return pull if tolerance is None else torch.where(error.abs() > tolerance, pull, 0.0)


def _times(x: Float[Tensor, "*batch n"], weight: Float[Tensor, "m n"], bias: Tensor | None = None) -> Tensor:
    """Weight times x, in the weight's type, plus a bias; the result in the type of x."""
    if x.dtype == weight.dtype:
        return linear(x, weight, bias)
    found = linear(x.to(weight.dtype), weight).to(x.dtype)
    return found if bias is None else found + bias.to(x.dtype)


def _plus(p: Float[Tensor, "rows m"], x: Float[Tensor, "rows n"], weight: Float[Tensor, "m n"]) -> Tensor:
    """P plus weight times x, with the sum in the type of p: in half precision small steps would be lost in it."""
    return torch.addmm(p, x, weight.T) if p.dtype == weight.dtype else p + _times(x, weight)
