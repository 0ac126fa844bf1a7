"""Answers replayed under many laws: the numbers of the plain way, with one unsteered pass."""

from __future__ import annotations

import pytest
import torch

from steerlib.errors import MetricError, NotFiniteError
from steerlib.laws.additive import Additive
from steerlib.metrics import kl_by_token, kl_per_token
from steerlib.metrics.replay import Replay
from tests.families import WIDTH, plant, words

PROMPTS = [words(5, 9, 30), words(60, 3), words(4)]
ANSWERS = [" " + words(21, 34, 8), " " + words(55), " "]


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("scope", ["all", "last", "prefill"])
def test_it_is_the_plain_divergence_under_every_law(scope: str, batch_size: int) -> None:
    p = plant("llama")
    replay = Replay(p, PROMPTS, ANSWERS, batch_size=batch_size)
    for strength in (0.0, 0.5, -2.0, 0.5):  # the first law again at the end: nothing of the others stays
        acting = p.under(Additive(torch.linspace(-1, 1, WIDTH)).at(strength), layer=1, scope=scope)
        plain = kl_per_token(p, acting, PROMPTS, ANSWERS)
        got = replay.kl(acting)
        assert (got.tokens, got.blank) == (plain.tokens, plain.blank) == (4, 1)
        assert got.mean == pytest.approx(plain.mean, abs=1e-6)
        assert got.p95 == pytest.approx(plain.p95, abs=1e-6)
        traces = zip(replay.by_token(acting), kl_by_token(p, acting, PROMPTS, ANSWERS), strict=True)
        assert all(mine == pytest.approx(theirs, abs=1e-6) for mine, theirs in traces)
        assert (got.mean > 1e-4) == (strength != 0)


def test_the_unsteered_plant_is_asked_once() -> None:
    p = plant("llama")
    passes: list[int] = []
    handle = p.model.register_forward_hook(lambda *_: passes.append(1))
    replay = Replay(p, PROMPTS, ANSWERS)
    for strength in (1.0, 2.0, 3.0):
        replay.kl(p.under(Additive(torch.ones(WIDTH)).at(strength), layer=0))
    handle.remove()
    assert len(passes) == 1 + 3


def test_what_cannot_be_replayed_is_refused() -> None:
    p = plant("llama")
    with pytest.raises(MetricError, match="Replay: got 3 prompts and 1 answers"):
        Replay(p, PROMPTS, ANSWERS[:1])
    with pytest.raises(MetricError, match="Replay: every answer is empty"):
        Replay(p, PROMPTS[:1], [" "])
    with pytest.raises(NotFiniteError):
        Replay(p, PROMPTS, ANSWERS).kl(p.under(Additive(torch.full((WIDTH,), torch.inf)), layer=1))
