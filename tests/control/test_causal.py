"""The causal gradient against finite differences, and where it and a regression part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlib.control.causal import causal_gradient, expected_value

TOKENS, WIDTH = 7, 4


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


READOUT, BIAS = draw(TOKENS, WIDTH, seed=0), draw(TOKENS, seed=1)


def logits_of(state: Tensor, cap: float | None) -> Tensor:
    raw = state @ READOUT.T + BIAS
    return raw if cap is None else cap * (raw / cap).tanh()


@pytest.mark.parametrize("cap", [None, 1.5])
@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_finite_differences_of_the_expected_value(cap: float | None, shape: tuple[int, ...]) -> None:
    state, values = draw(*shape, WIDTH, seed=2), draw(*shape, TOKENS, seed=3)
    found = causal_gradient(READOUT, logits_of(state, cap), values, cap=cap)
    for axis, step in enumerate(1e-5 * torch.eye(WIDTH, dtype=torch.float64)):
        high, low = (expected_value(logits_of(state + s, cap), values) for s in (step, -step))
        torch.testing.assert_close(found[..., axis], (high - low) / 2e-5, atol=1e-8, rtol=1e-6)


def test_two_tokens_by_hand() -> None:
    logits = torch.tensor([0.0, 3.0]).log_softmax(0)
    share = logits.exp()
    readout = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = causal_gradient(readout, logits, torch.tensor([5.0, 9.0]))
    torch.testing.assert_close(found, share.prod() * torch.tensor([-4.0, 4.0]))


def test_what_cannot_be_changed_gives_no_gradient() -> None:
    logits, values = draw(3, TOKENS, seed=4), draw(TOKENS, seed=5)
    torch.testing.assert_close(
        causal_gradient(READOUT, logits, values + 100), causal_gradient(READOUT, logits, values), atol=1e-10, rtol=0
    )
    assert causal_gradient(READOUT, logits, torch.full((TOKENS,), 7.0)).abs().max() < 1e-10
    impossible = logits.clone()
    impossible[:, 2] = -torch.inf
    other = values.clone()
    other[2] = 1e6
    assert torch.equal(causal_gradient(READOUT, impossible, values), causal_gradient(READOUT, impossible, other))


def test_a_direction_that_is_not_read_goes_with_the_reward_and_causes_nothing() -> None:
    """The last coordinate tells the reward of an answer; the read-out is blind to it."""
    readout = READOUT.clone()
    readout[:, -1] = 0
    state, values = draw(500, WIDTH, seed=6), draw(TOKENS, seed=7)
    reward = expected_value(state @ readout.T, values) + 2 * state[:, -1]
    fitted = torch.linalg.lstsq(torch.cat([state, torch.ones(500, 1, dtype=torch.float64)], 1), reward[:, None])
    assert fitted.solution[WIDTH - 1] > 1.9
    assert not causal_gradient(readout, state @ readout.T, values)[:, -1].any()
