"""Skipping the blocks below a push changes no number, and never hides what something else does there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from steerlib.actuator import Site
from steerlib.forest import Forest, resumes
from steerlib.laws.additive import Additive
from steerlib.plant import Plant
from steerlib.resume import Memory
from tests.families import DEPTH, FAMILIES, WIDTH, plant, words

PROMPTS = [words(5, 9), words(5, 9), words(60)]
TAILS = [" " + words(21, 34), " " + words(21, 55), " " + words(89)]
SITES = [Site(layer, point) for layer in range(DEPTH) for point in ("resid_pre", "resid_post")]


def push(seed: int) -> Additive:
    return Additive(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)) * 2.0)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the Llama blocks that compute."""
    found: list[int] = []
    p = plant("llama")
    kind = type(p.blocks[0])
    forward = kind.forward

    def counting(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        found.append(self.self_attn.layer_idx)  # type: ignore[union-attr, arg-type]
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(kind, "forward", counting)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_and_every_order_gives_the_plain_numbers(family: str) -> None:
    p = plant(family)
    forest = Forest.of(p, PROMPTS, TAILS)
    assert resumes(p)
    for seed in (0, 1):  # the second time round everything is in memory
        torch.testing.assert_close(forest.logprobs(p), p.logprobs(PROMPTS, TAILS), atol=1e-4, rtol=1e-4)
        for site in SITES:
            with p.under(push(seed), layer=site.layer, point=site.point):
                expected = p.logprobs(PROMPTS, TAILS)
                torch.testing.assert_close(forest.logprobs(p), expected, atol=1e-4, rtol=1e-4)


def test_blocks_below_the_push_run_once(ran: list[int]) -> None:
    p = plant("llama")
    forest = Forest.of(p, PROMPTS, TAILS)
    assert resumes(p)
    for seed, expected in ((0, [0, 1, 2]), (1, [2]), (2, [2])):
        ran.clear()
        with p.under(push(seed), layer=1):
            forest.logprobs(p)
        assert ran == expected
    ran.clear()
    with p.under(push(0), layer=0):
        forest.logprobs(p)
    assert ran == [0, 1, 2]  # what was kept is above this push, and of no use


def test_two_laws_start_at_the_lower(ran: list[int]) -> None:
    p = plant("llama")
    forest = Forest.of(p, PROMPTS, TAILS)
    for _ in range(2):
        ran.clear()
        with p.under(push(0), layer=2), p.under(push(1), layer=1, point="resid_pre"):
            expected = p.logprobs(PROMPTS, TAILS)
            ran.clear()
            torch.testing.assert_close(forest.logprobs(p), expected, atol=1e-4, rtol=1e-4)
    assert ran == [1, 2]


def test_a_hook_of_somebody_else_is_never_skipped() -> None:
    p = plant("llama")
    forest = Forest.of(p, PROMPTS, TAILS)
    with p.under(push(0), layer=2):
        before = forest.logprobs(p)
        for module in (p.blocks[0], p.blocks[1].self_attn, p.model.get_input_embeddings()):
            handle = module.register_forward_hook(lambda _m, _a, out: _shifted(out))
            expected = p.logprobs(PROMPTS, TAILS)
            torch.testing.assert_close(forest.logprobs(p), expected, atol=1e-4, rtol=1e-4)
            assert (expected - before).abs().max() > 1e-2
            handle.remove()
        torch.testing.assert_close(forest.logprobs(p), before)


def _shifted(output: Any) -> Any:
    return (output[0] + 1.0, *output[1:]) if isinstance(output, tuple) else output + 1.0


def test_changed_weights_are_noticed() -> None:
    p = plant("llama", seed=5)
    forest = Forest.of(p, PROMPTS, TAILS)
    with p.under(push(0), layer=2):
        before = forest.logprobs(p)
        with torch.no_grad():
            next(p.blocks[0].parameters()).mul_(1.5)
        expected = p.logprobs(PROMPTS, TAILS)
        assert (expected - before).abs().max() > 1e-3
        torch.testing.assert_close(forest.logprobs(p), expected, atol=1e-4, rtol=1e-4)


def test_an_error_inside_leaves_the_blocks_as_they_were() -> None:
    p = plant("llama")
    forest = Forest.of(p, PROMPTS, TAILS)
    assert resumes(p)

    def broken(_state: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), p.under(broken, layer=1):
        forest.logprobs(p)
    assert all("forward" not in block.__dict__ for block in p.blocks)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steerlib.resume.LIMIT", 1000)
    memory = Memory()
    for i in range(10):
        memory.keep((i,), torch.zeros(100))
    assert sum(memory.get((i,)) is not None for i in range(10)) <= 2
    memory.keep(("big",), torch.zeros(10_000))
    assert memory.get(("big",)) is None


def test_two_plants_do_not_share(ran: list[int]) -> None:
    first, second = plant("llama", seed=0), plant("llama", seed=1)
    forest: dict[str, Forest] = {}
    for p in (first, second):
        forest[p.name] = Forest.of(p, PROMPTS, TAILS)
        torch.testing.assert_close(forest[p.name].logprobs(p), p.logprobs(PROMPTS, TAILS), atol=1e-4, rtol=1e-4)
    crossed: Plant = second
    torch.testing.assert_close(
        forest[first.name].logprobs(crossed), crossed.logprobs(PROMPTS, TAILS), atol=1e-4, rtol=1e-4
    )
    assert ran
