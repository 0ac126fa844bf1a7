"""Scoring a tree of continuations gives the numbers of scoring each on its own row, steered or not."""

from __future__ import annotations

import pytest
import torch

from steerlib.actuator import Scope
from steerlib.errors import PlantError
from steerlib.forest import Forest, Tree, _score, reads_trees
from steerlib.laws.additive import Additive
from tests.families import FAMILIES, WIDTH, plant, words

HEADS = [words(5, 9, 30), words(60, 3, 8, 77, 12), words(41)]
TAILS = [(21,), (21, 34), (21, 34, 55), (21, 35, 55), (89, 34, 55, 60)]  # one is the beginning of another
PAIRS = [(head, " " + words(*tail)) for tail in TAILS for head in HEADS]  # prompts interleaved


def push() -> Additive:
    return Additive(torch.randn(WIDTH, generator=torch.Generator().manual_seed(3)) * 2.0)


def test_tree_shares_what_is_shared() -> None:
    tree = Tree.of([1, 2], [[1, 2, 7], [1, 2, 7, 8], [1, 2, 9, 8]])
    assert tree.tokens.tolist() == [1, 2, 7, 9]  # what ends an answer is scored, never read
    assert tree.steps.tolist() == [[1, 7], [2, 8], [1, 9], [3, 8]]
    assert tree.paths.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]
    assert tree.sees[3].tolist() == [True, True, False, True]


def test_a_beginning_may_come_after_what_it_begins() -> None:
    tree = Tree.of([1], [[1, 7, 8], [1, 7]])
    assert tree.tokens.tolist() == [1, 7]
    assert tree.paths.int().tolist() == [[1, 1], [1, 0]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scope", ["generated", "last", "all", Scope("prefill", (-1,)), None], ids=str)
def test_tree_equals_rows(family: str, scope: Scope | str | None) -> None:
    p = plant(family)
    prompts, tails = map(list, zip(*PAIRS, strict=True))
    forest = Forest.of(p, prompts, tails)
    free = p.logprobs(prompts, tails)
    if scope is None:
        torch.testing.assert_close(forest.logprobs(p), free, atol=1e-4, rtol=1e-4)
        return
    with p.under(push(), layer=1, scope=scope):
        expected = p.logprobs(prompts, tails)
        torch.testing.assert_close(forest.logprobs(p), expected, atol=1e-4, rtol=1e-4)
    assert (expected - free).abs().max() > 0.03  # the law acted at all


def test_the_fast_way_is_taken_on_llama(monkeypatch: pytest.MonkeyPatch) -> None:
    p = plant("llama")
    prompts, tails = map(list, zip(*PAIRS, strict=True))
    forest = Forest.of(p, prompts, tails)
    assert reads_trees(p)
    monkeypatch.setattr(p, "logprobs", lambda *_, **__: pytest.fail("took the slow way"))
    assert forest.logprobs(p).shape == (len(PAIRS),)


def test_a_law_that_no_tree_suits_does_not_decide_for_the_plant() -> None:
    p = plant("llama")
    with p.under(lambda state: state + torch.arange(state.shape[1])[:, None], layer=1, scope="all"):
        assert not reads_trees(p), "columns of a tree are not positions"
    assert reads_trees(p)


def test_sliding_window_shorter_than_a_path_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    p = plant("gemma2")
    forest = Forest.of(p, [HEADS[1]], [" " + words(*TAILS[-1])])
    assert int(forest.trees[0].sees.sum(1).max()) > p.model.config.sliding_window
    monkeypatch.setattr("steerlib.forest._score", lambda *_: pytest.fail("a tree would see past the window"))
    forest.logprobs(p)


def test_model_that_ignores_the_mask_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    p = plant("llama")
    forward = p.model.forward

    def causal(*args: object, attention_mask: torch.Tensor, **kwargs: object) -> object:
        if attention_mask.dim() == 4:
            attention_mask = torch.ones(attention_mask[:, 0, 0].shape, dtype=torch.long)
        return forward(*args, attention_mask=attention_mask, **kwargs)

    monkeypatch.setattr(p.model, "forward", causal)
    assert not reads_trees(p)
    prompts, tails = map(list, zip(*PAIRS, strict=True))
    torch.testing.assert_close(Forest.of(p, prompts, tails).logprobs(p), p.logprobs(prompts, tails))


def test_many_batches_equal_one(monkeypatch: pytest.MonkeyPatch) -> None:
    p = plant("qwen3")
    prompts, tails = map(list, zip(*PAIRS, strict=True))
    forest = Forest.of(p, prompts, tails)
    whole = torch.cat(_score(p, list(forest.trees)))
    monkeypatch.setattr("steerlib.forest.TOKENS_AT_ONCE", {"cpu": 1})
    pieces = torch.cat([forest.logprobs(p)[owner] for owner in forest.owners])
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=1e-5)


def test_bad_pairs_are_refused_as_by_the_plain_way() -> None:
    p = plant("llama")
    with pytest.raises(PlantError, match="expected as many"):
        Forest.of(p, [HEADS[0]], [])
