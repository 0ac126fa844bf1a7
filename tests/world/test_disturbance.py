"""Noise and short sight in the blocks of every family, judged by what can depend on what."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steerlib.anatomy import find_anatomy
from steerlib.world.almanac import World
from steerlib.world.disturbance import NoisyBlock, attention_mask, noisy, short_sighted
from steerlib.world.families import FAMILIES, build_model
from steerlib.world.grow import _Grower
from steerlib.world.plants import PLANTS, Recipe

TOKENS = 9
KINDS = [(family, attention) for family in FAMILIES for attention in ("eager", "sdpa") if (family, attention) != ("gemma2", "sdpa")]  # fmt: skip  # noqa: E501


def tiny(family, attention="eager"):
    """A model with weights large enough that nothing is equal by being small."""
    recipe = Recipe("tiny", family, width=32, depth=2, heads=4, hidden=48, steps=1)
    model = build_model(recipe, vocabulary=50, pad=0, end=1, attention=attention).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def trace(model, block, rows=3):
    """States before a block, and what the model gives to it and gets from it."""
    seen = {}

    def note(_module, args, kwargs, out):
        seen["in"], seen["kwargs"] = args[0], kwargs
        seen["out"] = out[0] if isinstance(out, tuple) else out

    handle = block.register_forward_hook(note, with_kwargs=True)
    ids = torch.randint(2, 50, (rows, TOKENS), generator=torch.Generator().manual_seed(0))
    logits = model(ids, use_cache=False).logits
    handle.remove()
    return seen["in"], seen["out"], logits


def reach(state_in, state_out, row):
    """Which earlier token each token depends on through one block: the support of the Jacobian."""
    direction = torch.randn(state_out.shape[-1], generator=torch.Generator().manual_seed(1))
    rows = [
        torch.autograd.grad(state_out[row, t] @ direction, state_in, retain_graph=True)[0][row].norm(dim=-1)
        for t in range(TOKENS)
    ]
    return torch.stack(rows) > 1e-7


@pytest.mark.parametrize(("family", "attention"), KINDS)
def test_through_a_short_sighted_block_nothing_comes_from_beyond_the_horizon(family, attention):
    model = tiny(family, attention)
    _, plain, plain_logits = trace(model, find_anatomy(model).blocks[1])
    horizon = torch.tensor([1, 3, TOKENS])
    sees = short_sighted(horizon, length=TOKENS)
    with noisy(model, 0.0) as blocks:
        blocks[1].sight = attention_mask(model, sees)
        before, after, logits = trace(model, blocks[1])
    for row in range(3):
        assert torch.equal(reach(before, after, row), sees[row, 0])
    # A row that may see everything is the unmodified model; the others are not.
    assert torch.allclose(after[2], plain[2], atol=1e-5) and torch.allclose(logits[2], plain_logits[2], atol=1e-4)
    assert not torch.allclose(after[1, 3:], plain[1, 3:], atol=1e-2)
    assert torch.allclose(after[1, :3], plain[1, :3], atol=1e-5)  # the first three see all there is


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_has_the_stated_norm_and_touches_its_rows_only(family):
    model = tiny(family)
    with noisy(model, 0.15) as blocks:
        assert isinstance(find_anatomy(model).blocks[1], NoisyBlock)
        _, plain, _ = trace(model, blocks[1])
        draws = []
        for seed in range(20):
            blocks[1].noise = torch.randn(2, TOKENS, 32, generator=torch.Generator().manual_seed(seed))
            draws.append(trace(model, blocks[1])[1])
        moved = torch.stack(draws) - plain
    share = moved[:, :2].norm(dim=-1) / plain[:2].norm(dim=-1)
    assert share.square().mean().sqrt().item() == pytest.approx(0.15, rel=0.03)
    assert torch.equal(moved[:, 2:], torch.zeros_like(moved[:, 2:]))
    assert not isinstance(find_anatomy(model).blocks[1], NoisyBlock)


def test_the_state_is_not_pulled_by_its_own_noise():
    model = tiny("llama")
    with noisy(model, 0.5) as blocks:
        blocks[1].noise = torch.randn(3, TOKENS, 32, generator=torch.Generator().manual_seed(0))
        raw, disturbed, _ = trace(model, blocks[1].block)[1], *trace(model, blocks[1])[1:]
        gradient = torch.autograd.grad(disturbed.sum(), find_anatomy(model).blocks[1].mlp.down_proj.weight)[0]
        expected = torch.autograd.grad(raw.sum(), find_anatomy(model).blocks[1].mlp.down_proj.weight)[0]
    assert torch.allclose(gradient, expected, atol=1e-4)


def test_a_short_sighted_row_looks_back_as_far_as_it_may():
    mask = short_sighted(torch.tensor([1, 3, 9]), length=5)[:, 0]
    assert torch.equal(mask[0], torch.eye(5, dtype=torch.bool))
    assert mask[1, 4].tolist() == [False, False, True, True, True]
    assert torch.equal(mask[2], torch.ones(5, 5, dtype=torch.bool).tril())


def test_a_block_that_would_ignore_the_mask_is_refused():
    block = NoisyBlock(torch.nn.Identity(), 0.1)
    block.sight = torch.ones(1)
    with pytest.raises(TypeError, match="Identity gets no attention_mask by that name"):
        block(torch.ones(1, 2, 4))


def grower(family, **changes):
    recipe = replace(PLANTS["almanac-seedling"], family=family, depth=2, **changes)
    return _Grower(recipe, World.build(1), Path("unused"), torch.device("cpu"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_is_one_graph_and_the_disturbances_are_in_it(family):
    g = grower(family)
    rows = g._draw_rows(0)
    with g.ready():
        g.step = 6  # short-sighted
        g._disturb()
        whole = torch.compile(g._loss, dynamic=False, backend="eager", fullgraph=True)
        with torch.no_grad():
            first, plain = whole(rows), g._loss(rows)
            assert first.item() == pytest.approx(plain.item(), abs=1e-6)
            # New noise and new horizons are filled in place: the same graph must see both.
            for change in (lambda: g.blocks[0].noise.zero_(), lambda: g.blocks[-1].sight.copy_(g._sight(np.full(4, 48)))):  # fmt: skip  # noqa: E501
                change()
                again, plain = whole(rows), g._loss(rows)
                assert again.item() == pytest.approx(plain.item(), abs=1e-6)
                assert abs(again.item() - first.item()) > 1e-5
                first = again


@pytest.mark.slow
@pytest.mark.skipif(" " in torch.__file__, reason="Inductor cannot link from a path with a space")
@pytest.mark.parametrize("family", ["llama", "gemma2"])  # a minute each; all are one graph, see above
def test_a_step_compiled_as_in_training_takes_the_same_course(family):
    """Losses of six steps, three of them short-sighted, agree with those of the uncompiled steps to bf16's rounding."""
    courses = []
    for compiled in (False, True):
        torch._dynamo.reset()
        g = grower(family, steps=6)
        g.compiled = compiled
        with g.ready():
            courses.append([g.advance().item() for _ in range(6)])
    assert courses[1] == pytest.approx(courses[0], abs=0.02)
    assert courses[0][0] - courses[0][-1] > 0.1
