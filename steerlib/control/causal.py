"""What a push of the read-out state does to the expected value, through the choice of the next token.

A state o is read out as logits W o, the next token y is drawn from pi = softmax(W o), and Q(y) is the value once y is
written. The value that is expected before y is drawn, and its gradient with respect to a push of o, are

    E_pi[Q] = sum_y pi(y) Q(y),        W' [pi * (Q - V)],    V = E_pi[Q].

This is what a push *causes*: with the cache left alone, nothing of it but the token remains. The gradient of a value
network V(o) says another thing, how the reward goes with the state over answers that nobody pushed: a direction in
which states of good answers differ, but which W does not read, has a gradient there, and no effect.

Knows tensors; knows nothing about plants, or how Q was found.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def expected_value(
    logits: Float[Tensor, "*batch tokens"], values: Float[Tensor, "*#batch tokens"]
) -> Float[Tensor, "*batch"]:
    """E_pi[Q] for the next token.

    Args:
        logits: as the token is drawn from them, at temperature 1.
        values: Q of each token.
    """
    return (logits.softmax(-1) * values).sum(-1)


def causal_gradient(
    readout: Float[Tensor, "tokens width"],
    logits: Float[Tensor, "*batch tokens"],
    values: Float[Tensor, "*#batch tokens"],
    *,
    cap: float | None = None,
) -> Float[Tensor, "*batch width"]:
    """Gradient of the expected value with respect to the state that is read out: W' [pi * (Q - V)].

    A constant in Q changes nothing, nor does Q of a token that is never drawn.

    Args:
        readout: W; a bias of the read-out plays no part.
        logits: W o, as the plant gives them.
        values: Q of each token.
        cap: where logits are cap * tanh(W o / cap) (Gemma-2), so that W o itself moves them by 1 - (logits / cap)^2.
    """
    pull = logits.softmax(-1) * (values - expected_value(logits, values)[..., None])
    if cap is not None:
        pull = pull * (1 - (logits / cap).square())
    return pull @ readout.to(pull.dtype)
