"""What a source measures, with true and shuffled labels, with and without pairs."""

import pytest
import torch

from steerlib.actuator import Pass, Site, prompt_ends
from steerlib.errors import ContrastError
from steerlib.laws.additive import DifferenceOfMeans, shuffled
from steerlib.laws.base import Contrast, Law
from steerlib.laws.regression import StaticRE
from steerlib.plant import Plant
from steerlib.recorder import record
from steerlib.tasks.base import spread
from steerlib.tasks.refusal import Refusal
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

    def test_states_averaged_over_the_tokens_of_a_text(self, task):
        source = TaskSource(task, SITES[0], n=6, seed=2)
        (pooled,) = source.contrasts(SITES[:1], position="mean")
        texts = task.contrast_texts(n=6, seed=2)
        for found, group in zip(pooled, texts, strict=True):
            torch.testing.assert_close(found, record(task.plant, group, sites=SITES[:1], position="mean").at(0))
        (last,) = source.contrasts(SITES[:1])
        assert pooled.header.data_hash != last.header.data_hash and not torch.allclose(pooled.positive, last.positive)
        with pytest.raises(ContrastError, match="got 'all', expected one state for each text"):
            task.contrasts(SITES, n=6, position="all")

    def test_a_law_is_fitted_where_it_is_to_act(self, task):
        source = TaskSource(task, SITES[1], n=6, scope="last")
        law = DifferenceOfMeans().fit_from(source)
        assert law.header is not None and (law.header.layer, law.header.scope) == (1, "last")
        assert torch.equal(law.vector, DifferenceOfMeans().fit(task.contrast(layer=1, n=6)).vector)

    def test_texts_of_one_s_own_position_by_position(self, task):
        texts = (["The capital of Orvanne is"], ["Q: What is the"])
        (found,) = TaskSource(task, SITES[0]).by_position(SITES[:1], texts=texts)
        assert len(found) == min(len(row) for row in task.plant._ids([texts[0][0], texts[1][0]]))
        for k, contrast in enumerate(found):
            for group, side in zip(texts, contrast, strict=True):
                alone = record(task.plant, group, sites=SITES[:1], position=k).at(SITES[0])
                torch.testing.assert_close(side, alone)

    def test_only_texts_that_are_long_enough_count_at_a_position(self, task):
        texts = (["Q: What is", "Q: What", "Q:"], ["A: It", "A:"])
        (found,) = TaskSource(task, SITES[0]).by_position(SITES[:1], positions=3, texts=texts)
        assert [(len(c.positive), len(c.negative)) for c in found] == [(3, 2), (3, 2), (2, 1)]
        torch.testing.assert_close(
            found[2].positive, record(task.plant, texts[0][:2], sites=SITES[:1], position=2).at(SITES[0])
        )

    def test_states_after_prompts_with_the_exact_score_as_expected_reward(self, task):
        first, second = TaskSource(task, SITES[0], n=5, scope="last").scored(SITES)
        prompts = spread(task.prompts("fit"), 10)
        torch.testing.assert_close(first.states, record(task.plant, prompts, sites=SITES[:1]).at(SITES[0]))
        assert first.rewards.tolist() == task.exact(split="fit", limit=10).wanted.tolist() == second.rewards.tolist()
        assert first.header is not None and (first.header.layer, first.header.scope) == (0, "last")
        mixed = TaskSource(task, SITES[0], n=5, labels="shuffled").scored(SITES[:1])[0]
        assert torch.equal(mixed.states, first.states) and not torch.equal(mixed.rewards, first.rewards)
        assert torch.equal(mixed.rewards.sort().values, first.rewards.sort().values)
        assert mixed.header is not None and mixed.header.data_hash != first.header.data_hash

    def test_a_regression_on_them_raises_the_exact_score(self, task):
        refusal = Refusal(task.plant)
        source = TaskSource(refusal, Site(1), n=50)
        law = StaticRE(scale="unit").fit_from(source)
        before = refusal.exact(split="validation", limit=20).wanted.mean()
        step = 0.05 * float(source.scored([Site(1)])[0].states.norm(dim=1).mean())
        for strength, sign in ((step, 1), (-step, -1)):
            with task.plant.under(law.at(strength)):
                assert sign * (refusal.exact(split="validation", limit=20).wanted.mean() - before) > 0.02

    def test_labels_may_stand_for_rewards(self, task):
        source = TaskSource(task, Site(1), n=30)
        law = StaticRE(rewards="labels").fit_from(source)
        assert torch.equal(law.vector, StaticRE().fit(source.contrasts([Site(1)])[0]).vector)


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
