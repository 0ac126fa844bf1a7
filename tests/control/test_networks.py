"""Training is seeded, keeps the best weights on rows it has not seen, and stops; freezing leaves a pure function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from steerlib.control.networks import Training, frozen, seeded, train
from steerlib.errors import LawError

INPUTS = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
TRUTH = torch.tensor([[1.0, -2.0, 0.5]])
HOW = Training(steps=400, batch=32, rate=0.05, warm_up=20, check=20)


def line(targets: Tensor, network: nn.Module):  # noqa: ANN201
    return lambda rows, _: (network(INPUTS[rows]) - targets[rows]).square().mean()


def linear(seed: int = 0) -> nn.Linear:
    return seeded(lambda: nn.Linear(3, 1), seed=seed)


def test_seeded_weights_are_torch_s_own_and_leave_the_global_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = linear(), linear(), linear(1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.weight, again.weight) and not torch.equal(first.weight, other.weight)
    wide = seeded(lambda: nn.Linear(400, 300), seed=2).weight.detach()
    assert float(wide.abs().max()) == pytest.approx(400**-0.5, rel=1e-3)
    assert float(wide.std()) == pytest.approx(400**-0.5 / 3**0.5, rel=1e-2)
    with pytest.raises(TypeError, match="got a layer LayerNorm with weights"):
        seeded(lambda: nn.LayerNorm(3), seed=0)


def test_it_finds_the_line_also_where_gradients_are_off() -> None:
    network = linear()
    with torch.no_grad():
        history = train(network, line(INPUTS @ TRUTH.T + 0.3, network), rows=200, how=HOW, seed=0)
    torch.testing.assert_close(network.weight.detach(), TRUTH, atol=1e-3, rtol=0)
    assert float(network.bias.detach()) == pytest.approx(0.3, abs=1e-3)
    assert len(history.held_out) == 1 + history.steps // HOW.check


def test_the_same_seed_gives_the_same_weights() -> None:
    found = []
    for seed in (0, 0, 1):
        network = linear()
        train(
            network, line(INPUTS @ TRUTH.T, network), rows=200, how=Training(steps=30, batch=32, rate=0.05), seed=seed
        )
        found.append(network.weight.detach())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_held_out_rows_decide_which_weights_are_kept() -> None:
    """Targets are a toss except on the rows held out, which ask for the weights of the start."""
    network = linear()
    before = network.weight.detach().clone()
    own, noise = network(INPUTS).detach(), 5 * torch.randn(200, 1, generator=torch.Generator().manual_seed(1))
    trained: set[int] = set()

    def loss(rows: Tensor, held_out: bool) -> Tensor:
        if not held_out:
            trained.update(rows.tolist())
        return (network(INPUTS[rows]) - (own if held_out else noise)[rows]).square().mean()

    history = train(network, loss, rows=200, how=Training(steps=400, batch=32, rate=0.05, check=5, patience=3), seed=0)
    assert torch.equal(network.weight, before)
    assert (history.kept, history.steps) == (0, 15) and len(trained) <= 180


def test_nothing_is_held_out_of_few_rows_or_when_told_so() -> None:
    for rows, share in ((9, 0.5), (200, 0.0)):
        network = linear()
        how = Training(steps=50, batch=32, rate=0.05, held_out=share)
        history = train(network, line(INPUTS @ TRUTH.T, network), rows=rows, how=how, seed=0)
        assert (history.held_out, history.kept, history.steps) == ((), 50, 50)


@pytest.mark.parametrize(("schedule", "floor", "half", "end"), [("linear", 0.0, 0.5, 0.0), ("cosine", 0.7, 0.7, 0.7)])
def test_rates(schedule, floor: float, half: float, end: float) -> None:
    how = Training(steps=110, batch=1, rate=1.0, warm_up=10, schedule=schedule, floor=floor)
    assert [how.rate_at(step) for step in (0, 5, 10, 60, 110)] == pytest.approx([0.0, 0.5, 1.0, half, end])
    assert Training(steps=100, batch=1, rate=1.0).rate_at(25) == pytest.approx((1 + 0.5**0.5) / 2)


def test_refusals() -> None:
    for options, message in (
        ({"steps": 0}, "steps: got 0, expected at least 1"),
        ({"batch": 0}, "batch: got 0"),
        ({"rate": 0.0}, "rate: got 0.0, expected a positive number"),
        ({"held_out": 1.0}, r"held_out: got 1.0, expected a share in \[0, 1\)"),
    ):
        with pytest.raises(LawError, match=message):
            Training(**{"steps": 1, "batch": 1, "rate": 1.0, **options})
    network = linear()
    with pytest.raises(LawError, match="got a loss of nan at update 0"):
        train(network, lambda rows, _: network(INPUTS[rows]).sum() * torch.nan, rows=5, how=HOW, seed=0)


def test_frozen_networks_hold_buffers_only() -> None:
    network = nn.Sequential(linear(), nn.ReLU(), seeded(lambda: nn.Linear(1, 2), seed=1))
    expected = network(INPUTS).detach()
    still = frozen(network)
    assert not list(still.parameters()) and len(list(still.named_buffers())) == 4
    assert torch.equal(still(INPUTS), expected) and not still(INPUTS).requires_grad
