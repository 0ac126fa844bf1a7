"""What a source measures, with true and shuffled labels, with and without pairs."""

import pytest
import torch

from steerlib.actuator import Pass, Site, prompt_ends
from steerlib.errors import ContrastError
from steerlib.laws.additive import DifferenceOfMeans, shuffled
from steerlib.laws.base import Contrast, Law
from steerlib.plant import Plant
from steerlib.tasks.source import TaskSource
from steerlib.tasks.truth import Truth

SITES = [Site(0), Site(1)]


@pytest.fixture(scope="module")
def task():
    return Truth(Plant.load("almanac-llama-tiny"))


class TestPairs:
    def test_coins_swap_within_pairs_and_keep_them(self):
        positive = torch.arange(40.0).reshape(20, 2)
        pairs = Contrast(positive, -positive, paired=True)
        mixed = shuffled(pairs, seed=3, within_pairs=True)
        assert mixed.paired and torch.equal(mixed.negative, -mixed.positive)
        assert torch.equal(mixed.positive.abs(), positive)
        swapped = (mixed.positive[1:] < 0).any(1)
        assert 0 < int(swapped.sum()) < 19
        assert not shuffled(pairs, seed=3).paired

    def test_refused_without_pairs(self):
        with pytest.raises(ContrastError, match="without pairs"):
            shuffled(Contrast(torch.ones(2, 2), torch.zeros(2, 2)), seed=0, within_pairs=True)
        with pytest.raises(ContrastError, match="got 2 positive and 1 negative"):
            Contrast(torch.ones(2, 2), torch.zeros(1, 2), paired=True)


class TestTaskSource:
    def test_several_sites_in_one_pass_agree_with_one_each(self, task):
        both = TaskSource(task, SITES[0], n=6, seed=2).contrasts(SITES)
        for site, found in zip(SITES, both, strict=True):
            alone = task.contrast(layer=site.layer, n=6, seed=2)
            assert torch.equal(found.positive, alone.positive) and found.header == alone.header

    def test_shuffled_labels_mix_or_swap(self, task, monkeypatch):
        source = TaskSource(task, SITES[0], n=12, labels="shuffled")
        plain = task.contrast(layer=0, n=12)
        (mixed,) = source.contrasts(SITES[:1])
        assert torch.equal(mixed.positive, shuffled(plain, seed=0).positive)
        monkeypatch.setattr(Truth, "paired", False)
        with pytest.raises(ContrastError, match="do not come in pairs"):
            source.contrasts(SITES[:1], pairs=True)
        monkeypatch.setattr(Truth, "paired", True)
        (swapped,) = source.contrasts(SITES[:1], pairs=True)
        assert swapped.paired
        assert torch.equal(swapped.positive + swapped.negative, plain.positive + plain.negative)

    def test_a_law_is_fitted_where_it_is_to_act(self, task):
        source = TaskSource(task, SITES[1], n=6, scope="last")
        law = DifferenceOfMeans().fit_from(source)
        assert law.header is not None and (law.header.layer, law.header.scope) == (1, "last")
        assert torch.equal(law.vector, DifferenceOfMeans().fit(task.contrast(layer=1, n=6)).vector)


class Marker(Law):
    """Adds a mark at the last prompt token alone: it must know which token that is."""

    sees_pass = True

    def during(self, state, now: Pass):
        if now.decoding:
            return state
        ends = prompt_ends(now, (state.shape[0], state.shape[1]), state.device)
        mark = torch.zeros_like(state)
        mark[torch.arange(len(state)), ends] = 100.0
        return state + mark


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_law_is_told_where_the_prompt_ends(task, side):
    plant = task.plant
    texts = ["The capital of", "Q: What is the capital of Orvanne? A: The capital"]
    batch = plant.encode(texts, side=side)
    lengths = torch.tensor([2, 3])

    def difference(**what):
        def states():
            seen = []
            with plant.under(lambda state: seen.append(state.clone()) or state, layer=0, scope="all"):
                plant.forward(batch, **what)
            return seen[-1]

        plain = states()
        with plant.under(Marker(), layer=0, scope="all"):
            return ((states() - plain).abs().amax(-1) > 50) & batch.attention_mask.bool()

    real, ordinal = batch.attention_mask.bool(), batch.attention_mask.cumsum(1)
    assert torch.equal(difference(), real & (ordinal == batch.lengths[:, None]))
    assert torch.equal(difference(prompt_lengths=lengths), real & (ordinal == lengths[:, None]))
