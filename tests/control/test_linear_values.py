"""Linear values: the closed forms are where the losses stop, and the toys have the limits that are derived by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlib.control.bellman import TARGETS, bellman_loss
from steerlib.control.linear_values import (
    aliased,
    aliased_limits,
    linear_value,
    normal_equations,
    walk,
    walk_limits,
)
from steerlib.errors import LawError


def noise(seed: int = 0, n: int = 30, time: int = 7, width: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    features = torch.randn(n, time, width, generator=chance, dtype=torch.float64)
    lengths = torch.randint(1, time + 1, (n,), generator=chance)
    features[torch.arange(time) >= lengths[:, None]] = torch.nan  # padding must not be read
    return features, lengths, torch.randn(n, generator=chance, dtype=torch.float64)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_the_loss_of_each_target_stops_at_its_closed_form(target, lam: float) -> None:
    features, lengths, rewards = noise()
    found = linear_value(features, lengths, rewards, target=target, lam=lam).requires_grad_()
    loss = bellman_loss(features.nan_to_num() @ found, lengths, rewards, target=target, lam=lam)
    (slope,) = torch.autograd.grad(loss, found)
    assert float(slope.abs().max()) < 1e-12
    # And nowhere else: the slope is 2 (A w - b).
    elsewhere = torch.ones(3, dtype=torch.float64, requires_grad=True)
    loss = bellman_loss(features.nan_to_num() @ elsewhere, lengths, rewards, target=target, lam=lam)
    (slope,) = torch.autograd.grad(loss, elsewhere)
    matrix, vector = normal_equations(features, lengths, rewards, target=target, lam=lam)
    torch.testing.assert_close(slope, 2 * (matrix @ elsewhere.detach() - vector))


def test_updates_of_td0_reach_lstd() -> None:
    """The solution of a semi-gradient is no minimum, but its expected updates get there."""
    features, lengths, rewards = walk(4, start=1.0)
    matrix, vector = normal_equations(features, lengths, rewards, target="td0")
    w = torch.zeros(3, dtype=torch.float64)
    for _ in range(400):
        w += 0.05 * (vector - matrix @ w)
    torch.testing.assert_close(w, linear_value(features, lengths, rewards, target="td0"), atol=1e-6, rtol=0)


@pytest.mark.parametrize("start", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("steps", [1, 5])
def test_the_walk_has_the_limits_of_the_derivation(steps: int, start: float) -> None:
    for target, limit in walk_limits(steps, start=start).items():
        if target == "prompt-only":
            continue
        found = linear_value(*walk(steps, start=start), target=target, lam=0.7)
        assert found.tolist() == pytest.approx([limit, 1.0, 0.0], abs=1e-12), target
    assert set(walk_limits(steps, start=start)) == set(TARGETS) - (set() if start else {"prompt-only"})


def test_the_prompt_alone_says_what_it_says() -> None:
    found = linear_value(*walk(4, start=2.0), target="prompt-only")
    assert found.tolist() == pytest.approx([walk_limits(4, start=2.0)["prompt-only"], 1.0, 0.0], abs=1e-12)
    with pytest.raises(LawError, match="equations of condition .* the features depend on each other.*positive ridge"):
        linear_value(*walk(4), target="prompt-only")
    assert linear_value(*walk(4), target="prompt-only", ridge=1e-9).tolist() == pytest.approx([0, 1, 0], abs=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 6])
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0])
def test_an_aliased_state_parts_the_targets(steps: int, lam: float) -> None:
    limits = aliased_limits(steps, lam=lam)
    assert set(limits) == set(TARGETS)
    for target, limit in limits.items():
        assert float(linear_value(*aliased(steps), target=target, lam=lam)) == pytest.approx(limit, abs=1e-12), target
    assert (limits["td0"], limits["residual"], limits["monte-carlo"]) == (1 / steps, 1 / (2 * steps - 1), 1)


def test_the_numbers_of_the_card() -> None:
    """T = 32: a residual gradient halves the weight, the released code takes it away."""
    limits = walk_limits(32)
    assert (limits["residual"], limits["released"], limits["td0"]) == (0.5, 0.0, 1.0)


def test_limits_hold_in_simulation() -> None:
    """Twenty thousand sampled paths of 32 steps, as a check on enumeration itself."""
    chance = torch.Generator().manual_seed(0)
    n, steps = 20_000, 32
    prompt = torch.randn(n, 1, generator=chance)
    places = torch.cat([torch.zeros(n, 1), torch.randn(n, steps, generator=chance)], dim=1).cumsum(1)
    features = torch.stack([places, prompt.expand_as(places), torch.ones_like(places)], dim=-1)
    lengths = torch.full((n,), steps + 1)
    for target in ("td0", "residual", "released", "monte-carlo", "td-lambda"):
        found = linear_value(features, lengths, places[:, -1] + prompt[:, 0], target=target)
        # Standard errors: 0.01 for Monte-Carlo on the place, 0.04 on the prompt; the others have less.
        assert float(found[0]) == pytest.approx(walk_limits(steps)[target], abs=0.03), target
        assert float(found[1]) == pytest.approx(1.0, abs=0.15), target


def test_chances_count_paths() -> None:
    features, lengths, rewards = noise(n=4)
    thrice = [0, 1, 1, 1, 2, 3]
    for target in TARGETS:
        one = normal_equations(features[thrice], lengths[thrice], rewards[thrice], target=target)
        other = normal_equations(features, lengths, rewards, target=target, chances=torch.tensor([1, 3, 1, 1]) / 6)
        for left, right in zip(one, other, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-7)
