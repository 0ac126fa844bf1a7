"""Which tasks say that their texts come in pairs, and whether they do: what the two texts of a pair share."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from steerlib.experiment.cells import Cell, Fit, LawSpec
from steerlib.experiment.methods import Method, elsewhere
from steerlib.plant import Plant
from steerlib.tasks import Concept, Helpfulness, Refusal, Sentiment, Task, Toxicity, Truth
from steerlib.tasks.concepts import another_concept
from steerlib.tasks.real import Preference, Requests, ToxicPrompts, TruthfulQA
from steerlib.world.pages import NAMES
from tests import families
from tests.data import sets

Shared = Callable[[str], object]


def question(text: str) -> str:
    """The last question put to the speaker."""
    return text.rsplit("Q: ", 1)[1].partition("\nA:")[0]


def wishes(text: str) -> tuple[str, ...]:
    """Every request of the text."""
    return tuple(line for line in text.splitlines() if line.startswith("Wish:"))


def cast(text: str) -> tuple[str, ...]:
    """Who speaks, line by line, and what the first of them says."""
    said = [re.match(r"(\w+)(?:, \w+)?:(.*)", line) for line in text.splitlines()]
    found = [m for m in said if m]
    return (*(m.group(1) for m in found), found[0].group(2))


def opening(text: str) -> str:
    """How the last, unfinished sentence begins."""
    return re.split(r"[.:] ", text)[-1]


def first_words(text: str) -> tuple[str, ...]:
    """The beginning of a sentence."""
    return tuple(text.split()[:2])


MAKE: dict[str, tuple[Callable[[Plant], Task], Shared]] = {
    "truth": (Truth, question),
    "toxicity": (Toxicity, cast),
    "refusal": (Refusal, wishes),
    "refusal of honest requests": (lambda p: Refusal(p, harmful=False), wishes),
    "preference": (Helpfulness, wishes),
    "concept": (lambda p: Concept(p, "storms"), opening),
}


def agreement(pair: tuple[Sequence[str], Sequence[str]], shared: Shared) -> tuple[float, float]:
    """Share of pairs that agree in what they should share, and of pairs of neighbours."""
    positive, negative = ([shared(text) for text in texts] for texts in pair)
    pairs, others = zip(positive, negative, strict=True), zip(positive, negative[1:], strict=False)
    count = len(positive)
    return sum(a == b for a, b in pairs) / count, sum(a == b for a, b in others) / (count - 1)


@pytest.fixture(scope="module")
def tiny() -> Plant:
    return Plant.load("almanac-llama-tiny")


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("seed", [0, 3])
def test_pairs_of_the_almanac_share_what_is_asked(name: str, seed: int, tiny: Plant) -> None:
    make, shared = MAKE[name]
    task = make(tiny)
    assert task.paired and task.contrast(layer=0, n=3).paired
    own, others = agreement(task.contrast_texts(n=60, seed=seed), shared)
    assert own == 1.0 and others < 0.2


def test_sentences_about_feelings_are_pairs_where_they_are_counterparts(tiny: Plant) -> None:
    task = Sentiment(tiny)
    assert task.paired
    own, others = agreement(task.contrast_texts(n=30, seed=1), first_words)
    assert own > 0.9 and others < 0.3


def test_sentences_of_sst2_are_no_pairs(tiny: Plant, sample_data: Path) -> None:
    assert not Sentiment(tiny, data=sample_data).paired


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sets.everything(tmp_path_factory.mktemp("sets"))


class TestRealData:
    def test_pairs_share_their_prompt(self, folder: Path) -> None:
        plant = families.plant("llama")
        truth = TruthfulQA(plant, data=folder, settings={"max_new_tokens": 4})
        liked = Preference(plant, data=folder, settings={"max_new_tokens": 4})
        civil = ToxicPrompts(plant, data=folder, settings={"max_new_tokens": 4}, fit_on="paradetox")
        for task, shared in (
            (truth, lambda text: text.partition("?")[0]),
            (liked, lambda text: text.rpartition("Assistant:")[0]),
            (civil, lambda text: text.split()[:3]),
        ):
            assert task.paired, task.name
            own, others = agreement(task.contrast_texts(n=20, seed=0), shared)
            assert own == 1.0 and others < 0.2, task.name

    def test_others_are_none(self, folder: Path) -> None:
        plant = families.plant("llama")
        short = {"max_new_tokens": 4}
        assert not Requests(plant, data=folder, settings=short).paired
        assert not ToxicPrompts(plant, data=folder, settings=short, fit_on="rtp").paired

    def test_the_real_truthfulqa(self, sample_data: Path) -> None:
        stories = TruthfulQA(families.plant("llama"), data=sample_data)
        pairs = stories._answered["fit"]  # the plant knows no English, so nothing would be drawn
        asked = {stories._prompt(row) for row in stories.rows}
        assert len(pairs) > 300
        assert all(any(b.startswith(p) for p in asked if a.startswith(p)) for a, b in pairs[:50])


class TestElsewhere:
    METHOD = Method(name="push", laws=(LawSpec(name="linear-probe", layer=1, strength=2.0, fit=Fit(n=7, seed=3)),))

    def test_the_same_law_fitted_for_another_behaviour(self) -> None:
        other = elsewhere(self.METHOD, "concept", {"concept": another_concept("storms")})
        (law,) = other.laws
        assert other.control and other.name == "push: fitted for concept harvest"
        assert (law.name, law.layer, law.strength, law.fit.n, law.fit.seed) == ("linear-probe", 1, 2.0, 7, 3)
        cell = Cell(plant="almanac-llama-tiny", task="concept", task_options={"concept": "storms"}, law=law)
        assert cell.fitted_for == ("concept", {"concept": "harvest"})
        assert "fitted for concept harvest" in cell.title

    def test_every_concept_serves_once(self) -> None:
        assert sorted(map(another_concept, NAMES)) == sorted(NAMES)
        assert not any(another_concept(name) == name for name in NAMES)
        with pytest.raises(ValueError, match="unknown concept 'tea'"):
            another_concept("tea")
