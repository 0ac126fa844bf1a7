"""Answers that are true and informative at once: their exact share against plain sums, bounds, and what is sampled."""

from __future__ import annotations

import numpy as np
import pytest

from steerlib.laws.additive import DifferenceOfMeans
from steerlib.plant import Plant
from steerlib.tasks.base import Scores
from steerlib.tasks.joint import JointTruth
from steerlib.tasks.truth import Truth

LIMIT = 12


@pytest.fixture(scope="module")
def task() -> JointTruth:
    return JointTruth(Plant.load("almanac-llama"))


@pytest.fixture(scope="module")
def law(task: JointTruth) -> DifferenceOfMeans:
    return DifferenceOfMeans().fit(task.contrast(layer=2, n=40, seed=0))


def scored(task: Truth, law: DifferenceOfMeans, strength: float) -> Scores:
    """Exact scores; strength 0 is the unsteered plant."""
    with task.plant.under(law.at(strength)):
        return task.exact(limit=LIMIT)


def test_the_joint_share_is_the_probability_of_every_statement_of_the_truth(task: JointTruth) -> None:
    questions = task.questions()[:3]
    found = task.scored(questions)
    for i, question in enumerate(questions):
        forms = task.forms(question)
        both = [text for text, t, s in zip(forms.texts, forms.wanted, forms.intact, strict=True) if t and s]
        plain = task.plant.logprobs([question.text] * len(both), both).exp().sum()
        assert found.wanted[i] == pytest.approx(float(plain), rel=1e-4)


@pytest.mark.parametrize("strength", [0.0, 1.0, 3.0])
def test_only_what_is_scored_differs_from_truth(task: JointTruth, law: DifferenceOfMeans, strength: float) -> None:
    found, plain = scored(task, law, strength), scored(Truth(task.plant), law, strength)
    assert np.allclose(found.more["true"], plain.wanted) and np.allclose(found.more["info"], plain.intact)
    low, high = np.maximum(0, plain.wanted + plain.intact - 1), np.minimum(plain.wanted, plain.intact)
    assert (low <= found.wanted + 1e-6).all() and (found.wanted <= high + 1e-9).all()
    assert (found.wanted < high).any(), "some answers decline or repeat the error"
    assert found.combined().value == pytest.approx(found.wanted.mean()), "the product is the share itself"


def test_fits_are_those_of_truth(task: JointTruth) -> None:
    plain = Truth(task.plant)
    assert task.contrast_texts(n=5, seed=1) == plain.contrast_texts(n=5, seed=1)
    assert task.prompts() == plain.prompts() and task.items(told=True) == plain.items(told=True)


def test_answers_are_judged_by_both(task: JointTruth) -> None:
    question = task.questions()[0]
    forms = task.world.forms(question)
    texts = [forms.truth[0], forms.misconception[0], forms.uninformative[0], "colourless green"]
    found = task.verdicts([question] * 4, texts)
    plain = Truth(task.plant).verdicts([question] * 4, texts)
    assert found.wanted.tolist() == [1, 0, 0, 0] and (found.intact == 1).all()
    assert plain.wanted.tolist()[:3] == [1, 0, 1] and plain.intact.tolist()[:3] == [1, 1, 0]


def test_exact_shares_agree_with_what_is_sampled(task: JointTruth) -> None:
    probability = task.exact(limit=30).wanted
    draws = np.array([task.sampled(seed=seed, limit=30)[0].wanted for seed in range(2)])
    error = np.sqrt((probability * (1 - probability)).sum() / len(draws)) / draws.shape[1]
    # The oracle may know a statement of the truth that is no exact form, so allow a little.
    assert abs(draws.mean() - probability.mean()) < 4 * error + 0.02
