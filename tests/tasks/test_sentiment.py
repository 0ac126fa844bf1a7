"""Sentiment on any language model, and on a real one that nobody here trained."""

from __future__ import annotations

import numpy as np
import pytest

from steerlib import tasks
from steerlib.data.sources import AbsentDataError
from steerlib.errors import ContrastError
from steerlib.laws.additive import DifferenceOfMeans, RandomDirection
from steerlib.plant import Plant
from steerlib.tasks.sentiment import Sentiment, lexicon
from tests import families
from tests.data import sets


@pytest.fixture(scope="module")
def stories(sample_models: Path) -> Plant:
    return Plant.load(str(sample_models / "stories260K"))


def test_splits_share_no_name_and_no_sentence() -> None:
    words = lexicon()
    for group in (words.openings, words.stems):
        assert not set(group["fit"]) & set(group["test"])
        assert not set(group["validation"]) & set(group["test"])
    assert not set(words.happy) & set(words.sad)
    assert len(words.positive) == len(words.negative) == len(set(words.positive + words.negative)) / 2


class TestSst2:
    """Where it is asked for; on a plant that no story was told."""

    def test_it_lies_where_the_environment_says(self, tmp_path, monkeypatch) -> None:  # noqa: ANN001
        plant = families.plant("llama")
        sets.sst2(tmp_path)
        monkeypatch.setenv("STEERLIB_DATA", str(tmp_path))
        task = Sentiment(plant, fit_on="sst2")
        happy, sad = task.contrast_texts(n=50, seed=0)
        # Of 20 sentences of each kind three of five; the short one is left out.
        assert (
            len(happy) == len(sad) == 12 and all(" w94 " in text for text in happy) and not any("." in t for t in sad)
        )
        given = Sentiment(plant, data=tmp_path)
        assert given.contrast_texts(n=50, seed=0) == (happy, sad)
        assert Sentiment.data_files({"fit_on": "sst2"}) == Sentiment.data_files({"data": str(tmp_path)})
        assert tmp_path / "sst2" / "train.tsv" in Sentiment.data_files({"fit_on": "sst2"})

    def test_an_environment_alone_changes_no_contrast(self, tmp_path, monkeypatch) -> None:  # noqa: ANN001
        plant = families.plant("llama")
        before = Sentiment(plant).contrast_texts(n=50, seed=0)
        sets.sst2(tmp_path)
        monkeypatch.setenv("STEERLIB_DATA", str(tmp_path))
        assert Sentiment(plant).contrast_texts(n=50, seed=0) == before
        assert Sentiment(plant, fit_on="shipped").contrast_texts(n=50, seed=0) == before
        assert len(Sentiment.data_files({})) == 1

    def test_without_it_nothing_is_fitted(self, tmp_path, monkeypatch) -> None:  # noqa: ANN001
        plant = families.plant("llama")
        monkeypatch.setenv("STEERLIB_DATA", str(tmp_path))
        monkeypatch.setenv("STEERLIB_CACHE", str(tmp_path))
        with pytest.raises(AbsentDataError, match="data set 'sst2' .* Fix: get it from https"):
            Sentiment(plant, fit_on="sst2")
        with pytest.raises(ContrastError, match="got fit_on='sst' without a folder of data; expected 'sst2'"):
            Sentiment(plant, fit_on="sst")  # type: ignore[arg-type]
        with pytest.raises(ContrastError, match="got fit_on='shipped' with a folder of data"):
            Sentiment(plant, data=tmp_path, fit_on="shipped")
        with pytest.raises(ContrastError, match="was made on the shipped sentences, expected one on SST-2. Fix: "):
            Sentiment(plant)._sst2("fit")


class TestStories:
    """On a 260 thousand parameter story model."""

    def test_exact_scores_are_probabilities(self, stories: Plant) -> None:
        task = tasks.for_plant(stories)
        assert isinstance(task, Sentiment)
        scores = task.exact(limit=8)
        assert ((scores.wanted > 0) & (scores.wanted < 1)).all()
        assert ((scores.intact > 0) & (scores.intact < 1)).all()
        stem = task.words.stems["test"][0]
        happy = stories.logprobs([stem] * 7, [f" {w}" for w in task.words.happy]).exp().sum()
        both = happy + stories.logprobs([stem] * 7, [f" {w}" for w in task.words.sad]).exp().sum()
        assert scores.wanted[0] == pytest.approx(float(happy / both), rel=1e-5)
        assert scores.intact[0] == pytest.approx(float(both), rel=1e-5)

    def test_expected_rewards_belong_to_the_stems_that_are_scored(self, stories: Plant) -> None:
        task = Sentiment(stories)
        prompts, rewards = task.expected_rewards(n=5)
        assert len(prompts) == len(rewards) == 5
        assert set(prompts) <= set(task.words.stems["fit"])
        for prompt, reward in zip(prompts, rewards, strict=True):
            happy, sad = (
                stories.logprobs([prompt] * len(group), [f" {w}" for w in group]).exp().sum()
                for group in (task.words.happy, task.words.sad)
            )
            assert reward == pytest.approx(float(happy / (happy + sad)), rel=1e-5)
        assert len(task.expected_rewards(n=10_000)[0]) == len(task.expected_rewards(n=10_000)[1])

    def test_counting_words(self, stories: Plant) -> None:
        task = Sentiment(stories)
        assert task.happiness("She was so happy and proud, not sad.") == 1.0
        assert task.happiness("He cried. He was scared!") == 0.0
        assert task.happiness("A red ball.") == 0.5

    def test_contrasts_are_of_their_split_and_seed(self, stories: Plant) -> None:
        task = Sentiment(stories)
        fit, _ = task.contrast_texts(n=500, seed=0)
        held_out, _ = task.contrast_texts(n=500, seed=0, split="test")
        assert not set(fit) & set(held_out)
        assert task.contrast_texts(n=10, seed=1)[0] == task.contrast_texts(n=10, seed=1)[0]
        assert task.contrast_texts(n=10, seed=1)[0] != task.contrast_texts(n=10, seed=2)[0]
        header = task.contrast(layer=2, n=5, seed=7).header
        assert header is not None
        assert (header.layer, header.seed, header.weight_hash) == (2, 7, stories.weight_hash)

    def test_a_happy_direction_beats_twenty_random_ones(self, stories: Plant) -> None:
        """Layer and strength chosen on validation, effect on held-out stems, against equal norms."""
        task = Sentiment(stories)
        best, law = -1.0, None
        for contrast in task.contrasts(range(stories.depth)):
            norm = float(contrast.negative.norm(dim=1).mean())
            candidate = DifferenceOfMeans(scale="unit").fit(contrast)
            for share in (0.25, 0.5):
                with stories.under(candidate.at(share * norm)):
                    value = task.exact(split="validation", limit=16).combined().value
                if value > best:
                    best, law, kept, strength = value, candidate, contrast, share * norm
        assert law is not None
        with stories.under(law.at(strength)):
            steered = task.exact().wanted.mean()
        chance = []
        for seed in range(20):
            push = RandomDirection(seed=seed).fit(kept)
            push.vector /= push.vector.norm()
            with stories.under(push.at(strength)):
                chance.append(task.exact().wanted.mean())
        assert steered > task.exact().wanted.mean() + 0.1
        assert steered > np.quantile(chance, 0.95)

    def test_sst2_gives_contrasts(self, stories: Plant, sample_data: Path) -> None:
        task = tasks.for_plant(stories, data=sample_data)
        positive, negative = task.contrast_texts(n=300, seed=0)
        held_out, _ = task.contrast_texts(n=300, seed=0, split="test")
        assert len(positive) == len(negative) == 300
        assert not set(positive) & set(held_out)
        assert not any(text.endswith((" ", ".")) or " ," in text for text in positive)

    def test_a_folder_without_sst2_is_refused(self, stories: Plant, tmp_path) -> None:  # noqa: ANN001
        with pytest.raises(AbsentDataError, match=r"data set 'sst2' .* no .*train.tsv. Fix: "):
            Sentiment(stories, data=tmp_path)
