"""Bellman's equation for a language model's answers: value networks, and the targets they are trained to.

An answer passes through states o_0 .. o_{L-1}: o_t is the state that token t is drawn from, o_0 the one at the last
prompt token. The reward r comes once, when the answer is whole, and nothing is discounted. The value of a state is the
reward that is still to be expected, so

    V(o_t) = E[ V(o_{t+1}) | o_t ]  for t < L - 1,        V(o_{L-1}) = E[ r | o_{L-1} ]                 (Bellman)

if o_t says all that the future depends on. The state of a plant does not: its key-value cache is hidden. Then the
targets below part ways even with endless data; `steerlib.control.linear_values` has their limits in closed form.

=============  ===================================================  =========================================
target         V(o_t) is drawn to                                   source
=============  ===================================================  =========================================
"td0"          V(o_{t+1}), held fixed; r at the last token          RE-Control, the paper (Kong et al. 2024)
"residual"     the same, but V(o_{t+1}) gives way too               residual gradient (Baird 1995)
"released"     V(o_{t+1}), which gives way; r at the *first* token  RE-Control, the released code
"monte-carlo"  r, at every token                                    regression on the outcome
"td-lambda"    a mixture of V at later tokens and r                 Sutton 1988; 0 is td0, 1 is monte-carlo
"prompt-only"  r, at the first token; no other token is seen        control: a value that knows the prompt only
=============  ===================================================  =========================================

The released code seeks the last token of a padded row by `argmax` over ones and zeros, and `argmax` gives the first of
equal numbers: index 0. So the reward meets the value of the prompt, and the rest of the answer is only asked to have
the same value as the prompt.

Each loss is a sum over tokens and a mean over answers, as in paper and code, so that only the targets differ.

Knows tensors and modules; knows nothing about plants, tokens or laws.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import relu, smooth_l1_loss, softplus

from steerlib.errors import LawError, unknown

Target = Literal["td0", "residual", "released", "monte-carlo", "td-lambda", "prompt-only"]
TARGETS: tuple[Target, ...] = get_args(Target)


class ValueNetwork(nn.Module):
    """The value of a state: linear layers with ReLU between them, one number out, nothing else (Kong et al. 2024).

    Args:
        width: of the states.
        hidden: numbers in an inner layer (the paper: 4096).
        layers: linear layers, 2 (width -> hidden -> 1) or 3 (width -> hidden -> hidden -> 1).

    Raises:
        LawError: if a size is out of its range.
    """

    def __init__(self, width: int, hidden: int, layers: int = 2) -> None:
        """Lay out the layers."""
        super().__init__()
        if layers not in (2, 3):
            raise LawError(f"layers: got {layers}, expected 2 or 3 linear layers.")
        for name, got in (("width", width), ("hidden", hidden)):
            if got < 1:
                raise LawError(f"{name}: got {got}, expected at least 1.")
        self.width, self.hidden, self.layers = width, hidden, layers
        sizes = [width, *[hidden] * (layers - 1), 1]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False))

    @property
    def weights(self) -> list[Float[Tensor, "out in"]]:
        """Weight of each layer, the first first."""
        return [linear.weight for linear in self.linears]  # type: ignore[misc]

    @property
    def biases(self) -> list[Float[Tensor, " out"]]:
        """Bias of each layer."""
        return [linear.bias for linear in self.linears]  # type: ignore[misc]

    def forward(self, states: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """Value of each state, computed in the type of the weights.

        Raises:
            LawError: if the states have another width.
        """
        if states.shape[-1] != self.width:
            raise LawError(
                f"value network: made for states of width {self.width}, got width {states.shape[-1]}. "
                "Fix: a network fitted on this plant, at this site."
            )
        *inner, last = self.linears
        found = states.to(last.weight.dtype)  # type: ignore[arg-type]
        for linear in inner:
            found = relu(linear(found))
        return last(found)[..., 0]


def check_target(target: str, lam: float = 0.0) -> None:
    """Refuse a target that does not exist, or a lambda outside [0, 1], with a LawError."""
    if target not in TARGETS:
        raise LawError(f"target: {unknown('target', target, TARGETS)}")
    if not 0 <= lam <= 1:
        raise LawError(f"lam: got {lam}, expected a number in [0, 1].")


def within(lengths: Int[Tensor, " batch"], time: int) -> Bool[Tensor, "batch time"]:
    """Which positions of right-padded rows hold a state."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def padded(values: Float[Tensor, " tokens"], lengths: Int[Tensor, " batch"]) -> Float[Tensor, "batch time"]:
    """Values of states laid end to end, answer after answer, as right-padded rows; padding is zero."""
    mask = within(lengths, int(lengths.max()))
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def lambda_returns(
    values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"], rewards: Float[Tensor, " batch"], lam: float
) -> Float[Tensor, "batch time"]:
    """What TD(lambda) draws each value to.

        G_t = (1 - lam) sum_{k=1}^{L-1-t} lam^(k-1) V_{t+k}  +  lam^(L-1-t) r,

    the solution of G_t = (1 - lam) V_{t+1} + lam G_{t+1} with G_{L-1} = r. One product with a triangular matrix of
    powers does all tokens at once; nothing is divided by a power, so lam = 0 is V_{t+1} and lam = 1 is r, exactly.

    Args:
        values: V_t of right-padded rows.
        lengths: states of each row, at least 1.
        rewards: r of each row.
        lam: in [0, 1].
    """
    time = values.shape[1]
    steps = torch.arange(time, device=values.device)
    ahead = steps[None, :] - steps[:, None] - 1  # k - 1, for the value of column t + k in the target of row t
    mixing = torch.where(ahead >= 0, (1 - lam) * torch.pow(lam, ahead.clamp(min=0).to(values)), 0.0)
    known = torch.where(within(lengths, time), values, 0.0)
    left = (lengths[:, None] - 1 - steps).clamp(min=0).to(values)
    return known @ mixing.T + torch.pow(lam, left) * rewards[:, None]


def bellman_errors(
    values: Float[Tensor, "batch time"],
    lengths: Int[Tensor, " batch"],
    rewards: Float[Tensor, " batch"],
    *,
    target: Target,
    lam: float = 0.9,
) -> Float[Tensor, "batch time"]:
    """By how much each value misses its target; zero where there is no state, or a target asks nothing.

    Gradients flow where the target lets them. With "released", the error at a row's last position is that of its
    first value against the reward: each row has one error for each state, as with the others.

    Args:
        values: V_t of right-padded rows; what stands in the padding is not read.
        lengths: states of each row, at least 1.
        rewards: r of each row.
        target: see the module's text.
        lam: for "td-lambda".

    Raises:
        LawError: unknown target, or lam out of its range.
    """
    check_target(target, lam)
    values, rewards = values.float() if values.dtype.itemsize < 4 else values, rewards.to(values.device)
    rewards = rewards.to(values.dtype)[:, None]
    real = within(lengths, values.shape[1])
    last = torch.arange(values.shape[1], device=values.device) == lengths[:, None] - 1
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    if target == "td0":
        errors = values - torch.where(last, rewards, after.detach())
    elif target == "residual":
        errors = values - torch.where(last, rewards, after)
    elif target == "released":
        errors = torch.where(last, values[:, :1] - rewards, values - after)
    elif target == "monte-carlo":
        errors = values - rewards
    elif target == "td-lambda":
        errors = values - lambda_returns(values.detach(), lengths, rewards[:, 0], lam)
    else:
        errors = values - rewards
        real = real & (torch.arange(values.shape[1], device=values.device) == 0)
    return torch.where(real, errors, 0.0)


def bellman_loss(
    values: Float[Tensor, "batch time"],
    lengths: Int[Tensor, " batch"],
    rewards: Float[Tensor, " batch"],
    *,
    target: Target,
    lam: float = 0.9,
) -> Float[Tensor, ""]:
    """Squared `bellman_errors`, summed over states and averaged over rows."""
    return bellman_errors(values, lengths, rewards, target=target, lam=lam).square().sum() / len(values)


# Beyond the paper


def final_values(values: Float[Tensor, "batch time"], lengths: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Value of the last state of each right-padded row."""
    return values.gather(1, (lengths - 1)[:, None])[:, 0]


def preference_loss(
    preferred: Float[Tensor, " pairs"],
    rejected: Float[Tensor, " pairs"],
    generated: Float[Tensor, " pairs"] | None = None,
    *,
    pull: float = 1.0,
) -> Float[Tensor, ""]:
    """Pairs in the loss (after Pref-CTRL, 2026): -log sigmoid(V_pref - V_rej) + pull (V_gen - V_pref)^2, averaged.

    The first term is Bradley and Terry's: the preferred answer of a pair is to end at the higher value. It leaves the
    level of V free, which a Bellman loss beside it has to set. The second draws the plant's own answers towards the
    preferred ones. It is a reading of a description; that paper's weights of the terms are not known here.

    Args:
        preferred: `final_values` of the preferred answers.
        rejected: of the rejected ones to the same prompts.
        generated: of the plant's own answers to them; None leaves the second term out.
        pull: weight of the second term.
    """
    loss = softplus(rejected - preferred).mean()
    return loss if generated is None else loss + pull * (generated - preferred).square().mean()


def reaching_rewards(rewards: Float[Tensor, " n"], goal: float) -> Float[Tensor, " n"]:
    """Rewards -(r - goal)^2, whose value is highest where r is close to a goal rather than large.

    Its value at o is -(E[r | o] - goal)^2 - Var[r | o]: unlike `reaching_loss`, it also counts how uncertain r is.
    """
    return -(rewards - goal).square()


def reaching_loss(values: Float[Tensor, "*batch"], goal: float, *, beta: float = 0.5) -> Float[Tensor, "*batch"]:
    """How far the value is from a goal: what an input descends to reach a score rather than maximise it.

    Half the square within beta of the goal, divided by beta, and the distance less beta / 2 beyond (Huber; Pre-Control
    2025 uses beta = 0.5): far from the goal the steps have the size of those that maximise.
    """
    return smooth_l1_loss(values, torch.full_like(values, goal), beta=beta, reduction="none")
