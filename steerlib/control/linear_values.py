"""Where each training target leads if the value is linear, V(o) = w . f(o): solved, not trained.

Every target makes an error e_t = d_t . w - g_t at every state, and stops where sum_t E[ p_t e_t ] = 0, so that

    A w = b,        A = sum_t E[ p_t d_t' ],        b = sum_t E[ p_t g_t ],        t = 0 .. L - 1.

What p_t is depends on where gradients flow. If they flow through the whole error, the loss E[e^2] is least and
p_t = d_t. If the target is held fixed ("semi-gradient"), only V(o_t) answers for the error and p_t = f_t. With f_L = 0:

=============  ======================================  ==================  ===  =============================
target         d_t                                     g_t                 p_t  the solution's name
=============  ======================================  ==================  ===  =============================
"td0"          f_t - f_{t+1}                           r at L - 1, else 0  f_t  LSTD (Bradtke and Barto 1996)
"residual"     f_t - f_{t+1}                           r at L - 1, else 0  d_t  Bellman residual (Baird 1995)
"released"     f_t - f_{t+1} for t < L - 1; and f_0    0; and r            d_t  none
"monte-carlo"  f_t                                     r                   f_t  linear regression
"td-lambda"    f_t - (1-l) sum_{k>=1} l^(k-1) f_{t+k}  l^(L-1-t) r         f_t  LSTD(lambda) (Boyan 2002)
"prompt-only"  f_0 at t = 0, else 0                    r at t = 0, else 0  d_t  regression on the prompt
=============  ======================================  ==================  ===  =============================

If f is Markov and some w gives the true value, "td0", "td-lambda" and "monte-carlo" find it. "residual" does not, but
where the next state is certain: E[d d'] holds the variance of f_{t+1}, which a smaller w makes smaller (the bias of a
single sample of the next state). "released" sees r through E[ f_0 r ] alone. If f is not Markov, those three part too.

Two toys show it, with every path enumerated, so that averages are expectations; their limits are `walk_limits` and
`aliased_limits`.

Knows tensors; knows nothing about networks, plants or laws.
"""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlib.control.bellman import Target, check_target, within
from steerlib.errors import LawError

#: Condition numbers beyond this leave no digit of the solution.
SINGULAR = 1e13


def normal_equations(
    features: Float[Tensor, "n time width"],
    lengths: Int[Tensor, " n"],
    rewards: Float[Tensor, " n"],
    *,
    target: Target,
    lam: float = 0.9,
    chances: Float[Tensor, " n"] | None = None,
) -> tuple[Float[Tensor, "width width"], Float[Tensor, " width"]]:
    """A and b of the text above, in float64.

    Args:
        features: f_t of right-padded rows.
        lengths: states of each row, at least 1.
        rewards: r of each row.
        target: see the module's text.
        lam: for "td-lambda".
        chances: probability of each row; equal by default.

    Raises:
        LawError: unknown target, or lam out of its range.
    """
    check_target(target, lam)
    n, time, width = features.shape
    real = within(lengths, time)
    f = torch.where(real[..., None], features.double(), 0.0)
    step, ends = torch.arange(time), (lengths - 1)[:, None]
    r = torch.where(real, rewards.double()[:, None], 0.0)
    after = torch.cat([f[:, 1:], f.new_zeros(n, 1, width)], dim=1)
    if target in ("td0", "residual"):
        d, g = f - after, torch.where(step == ends, r, 0.0)
        p = f if target == "td0" else d
    elif target == "released":
        # As many errors as states: what the last state does not ask, the first is asked of the reward.
        d = torch.where((step == ends)[..., None], f[:, :1], f - after)
        g, p = torch.where(step == ends, r, 0.0), d
    elif target == "td-lambda":
        ahead = step[None, :] - step[:, None] - 1
        mixing = torch.where(ahead >= 0, (1 - lam) * torch.pow(lam, ahead.clamp(min=0).double()), 0.0)
        d, g, p = f - mixing @ f, torch.pow(lam, (ends - step).clamp(min=0).double()) * r, f
    elif target == "monte-carlo":
        d, g, p = f, r, f
    else:
        d = torch.where((step == 0)[:, None], f, 0.0)
        g, p = torch.where(step == 0, r, 0.0), d
    share = torch.full((n,), 1 / n, dtype=torch.float64) if chances is None else chances.double()
    return torch.einsum("n,nti,ntj->ij", share, p, d), torch.einsum("n,nti,nt->i", share, p, g)


def linear_value(
    features: Float[Tensor, "n time width"],
    lengths: Int[Tensor, " n"],
    rewards: Float[Tensor, " n"],
    *,
    target: Target,
    lam: float = 0.9,
    chances: Float[Tensor, " n"] | None = None,
    ridge: float = 0.0,
) -> Float[Tensor, " width"]:
    """The weights w that a linear value ends with; see `normal_equations` for the arguments.

    Args:
        features: f_t of right-padded rows; a constant among them is the bias.
        lengths: states of each row.
        rewards: r of each row.
        target: what the value is drawn to.
        lam: for "td-lambda".
        chances: probability of each row.
        ridge: added to the diagonal of A, for features that depend on each other.

    Raises:
        LawError: if A is singular: the data leave w open.
    """
    matrix, vector = normal_equations(features, lengths, rewards, target=target, lam=lam, chances=chances)
    matrix = matrix + ridge * torch.eye(len(vector), dtype=matrix.dtype)
    condition = float(torch.linalg.cond(matrix))
    if not condition < SINGULAR:
        raise LawError(
            f"linear value: got equations of condition {condition:.3g}, expected less than {SINGULAR:.0e}: the "
            "features depend on each other, or never change. Fix: leave some out, or a positive ridge."
        )
    return torch.linalg.solve(matrix, vector)


# Toys: (features, lengths, rewards), every path once


def walk(steps: int, *, start: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """A walk of fair unit steps beside a prompt P = +-1: f_t = (S_t, P, 1), r = P + S_T, T = steps.

    S_0 = +-start, so it has variance start^2. A state is Markov, and w = (1, 1, 0) is the true value.
    """
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=steps + 2)), dtype=torch.float64)
    places = torch.cat([start * signs[:, :1], signs[:, 2:]], dim=1).cumsum(1)
    prompt = signs[:, 1:2].expand_as(places)
    features = torch.stack([places, prompt, torch.ones_like(places)], dim=-1)
    return features, torch.full((len(signs),), steps + 1), places[:, -1] + signs[:, 1]


def walk_limits(steps: int, *, start: float = 0.0) -> dict[Target, float]:
    """What each target gives the place S_t in a `walk`, where 1 is true; the prompt gets 1 from all.

    S_t, P and 1 are uncorrelated, so each weight stands alone. With v = start^2 and T = steps:
    residual: E[d d] = T + E[S_T^2] = v + 2 T, E[d g] = E[S_T S_T] = v + T;
    released: E[d d] = T + E[S_0^2] = T + v, E[d g] = E[S_0 S_T] = v.
    "prompt-only" sees S_0 alone, which says nothing if it never changes.
    """
    v = start**2
    exact: dict[Target, float] = dict.fromkeys(("td0", "td-lambda", "monte-carlo"), 1.0)
    known: dict[Target, float] = {"prompt-only": 1.0} if start else {}
    return {**exact, "residual": (v + steps) / (v + 2 * steps), "released": v / (v + steps), **known}


def aliased(steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fair signs of which each state shows its own only: f_t = x_t, r = x_0 + .. + x_{T-1}, T = steps.

    A state hides what came before, as a plant's state hides its cache. E[r | o_t] = x_t.
    """
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=steps)), dtype=torch.float64)
    return signs[..., None], torch.full((len(signs),), steps), signs.sum(1)


def aliased_limits(steps: int, *, lam: float = 0.9) -> dict[Target, float]:
    """What each target gives an `aliased` state; Monte-Carlo's 1 is E[r | o_t].

    Signs are uncorrelated, T = steps. td0: E[f d] = T, E[f g] = 1. td-lambda: E[f d] = T again, E[f g] =
    1 + lam + .. + lam^(T-1). residual: E[d d] = 2 (T - 1) + 1, E[d g] = 1, and released has the same two numbers.
    """
    geometric = sum(lam**k for k in range(steps))
    differences = 1 / (2 * steps - 1)
    return {
        "td0": 1 / steps,
        "residual": differences,
        "released": differences,
        "monte-carlo": 1.0,
        "td-lambda": geometric / steps,
        "prompt-only": 1.0,
    }
