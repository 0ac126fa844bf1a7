"""Claims about what ODESteer does turn when the law is spoilt: one that does nothing, and one that goes downhill.

A claim that compares with a rival is given one that does nothing, so that it can come out at all; what is asked is
whether the verdict hangs on the law, not what the rival is worth.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steerlib import Plant
from steerlib.experiment.claims import Verdict
from steerlib.laws.barrier import ODESteer
from steerlib.tasks import Helpfulness, Toxicity, Truth, Utility
from steerlib.tasks.base import Scores, Task
from tests.experiment.spoilt import EXPECTED, MUTANTS, Part, product, unwanted, verdict, wanted

BLOCK, LIMIT = 3, 12


@pytest.fixture(scope="module")
def plant() -> Plant:
    return Plant.load("almanac-llama", dtype=torch.float32)


class Course:
    """One behaviour under ODESteer at horizons that are asked for, as shares of the mean norm of its states."""

    def __init__(self, task: Task, share: float) -> None:
        contrast = task.contrast(layer=BLOCK, n=40, seed=0)
        self.task, self.share = task, share
        self.norm = float(torch.cat([contrast.positive, contrast.negative]).norm(dim=1).mean())
        self.law = ODESteer(dimension=512).fit(contrast)
        self.found: dict[float, Scores] = {}

    def at(self, share: float, task: Task | None = None) -> Scores:
        """Exact scores of its own task, each horizon once, or of another one."""
        if task is None and share in self.found:
            return self.found[share]
        with self.law_at(share):
            scores = (task or self.task).exact(limit=LIMIT)
        if task is None:
            self.found[share] = scores
        return scores

    def law_at(self, share: float):  # noqa: ANN201
        return self.task.plant.under(self.law.at(share * self.norm))

    def versus(self, mutant: str, part: Part, rival: float) -> tuple[np.ndarray, np.ndarray]:
        """Scores of a mutant, and of a rival at a share of the horizon."""
        return part(self.at(MUTANTS[mutant] * self.share)), part(self.at(rival * self.share))


@pytest.fixture(scope="module")
def truth(plant: Plant) -> Course:
    return Course(Truth(plant), 0.2)


@pytest.fixture(scope="module")
def toxicity(plant: Plant) -> Course:
    return Course(Toxicity(plant), 0.2)


@pytest.fixture(scope="module")
def preference(plant: Plant) -> Course:
    return Course(Helpfulness(plant), 0.2)


#: Claim -> course, the score that it is about, key of its own method, key of its rival.
CLAIMS: dict[str, tuple[str, Part, str, str]] = {
    "odesteer.t2.txi.odesteer-beats-unsteered": ("truth", product, "odesteer", "unsteered"),
    "odesteer.t2.txi.odesteer-beats-caa": ("truth", product, "odesteer", "caa"),
    "odesteer.t2.txi.odesteer-beats-iti": ("truth", product, "odesteer", "iti"),
    "odesteer.t2.txi.odesteer-beats-re-control": ("truth", product, "odesteer", "re-control"),
    "odesteer.t2.true.odesteer-beats-unsteered": ("truth", wanted, "odesteer", "unsteered"),
    "odesteer.t2.true.odesteer-beats-hpr": ("truth", wanted, "odesteer", "hpr"),
    "odesteer.t3.txi.ten-steps-beat-one": ("truth", product, "odesteer", "odesteer-one-step"),
    "odesteer.t3.txi.one-step-beats-a-linear-probe": ("truth", product, "odesteer-one-step", "iti"),
    "odesteer.ours.labels-matter-to-the-barrier": ("truth", product, "odesteer", "shuffled"),
    "odesteer.ours.flow-beats-one-push": ("truth", product, "odesteer", "caa"),
    "odesteer.t2.toxicity.odesteer-below-unsteered": ("toxicity", unwanted, "odesteer", "unsteered"),
    "odesteer.t2.toxicity.odesteer-below-hpr": ("toxicity", unwanted, "odesteer", "hpr"),
    "odesteer.t3.toxicity.ten-steps-below-one": ("toxicity", unwanted, "odesteer", "odesteer-one-step"),
    "odesteer.t3.toxicity.one-step-below-a-linear-probe": ("toxicity", unwanted, "odesteer-one-step", "iti"),
    "odesteer.t2.reward.odesteer-beats-unsteered": ("preference", wanted, "odesteer", "unsteered"),
    "odesteer.t2.reward.odesteer-beats-re-control": ("preference", wanted, "odesteer", "re-control"),
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize(("name", "expected"), EXPECTED)
def test_a_spoilt_law_turns_the_verdict(
    claim: str, name: str, expected: Verdict, request: pytest.FixtureRequest
) -> None:
    course, part, ours, rival = CLAIMS[claim]
    mine, theirs = request.getfixturevalue(course).versus(name, part, 0.0)
    assert verdict(claim, {ours: mine, rival: theirs}) is expected


def test_a_rival_that_goes_as_far_is_not_beaten(truth: Course) -> None:
    both = product(truth.at(truth.share))
    claim = "odesteer.t2.txi.odesteer-beats-caa"
    assert verdict(claim, {"odesteer": both, "caa": both}) is Verdict.NOT_REPRODUCED


#: Claim -> key of its own method, key of its rival.
WINS = {
    "odesteer.t2.win.odesteer-beats-unsteered": ("odesteer", "unsteered"),
    "odesteer.t3.win.ten-steps-beat-one": ("odesteer", "odesteer-one-step"),
    "odesteer.t3.win.one-step-beats-a-linear-probe": ("odesteer-one-step", "iti"),
}


@pytest.mark.parametrize("claim", WINS)
@pytest.mark.parametrize(("name", "expected"), EXPECTED)
def test_wins(preference: Course, claim: str, name: str, expected: Verdict) -> None:
    """Wins are counted against the unsteered plant; a rival that is left alone ties everywhere."""
    mine, bare = preference.versus(name, wanted, 0.0)
    wins = (mine > bare) + (mine == bare) / 2
    ours, rival = WINS[claim]
    assert verdict(claim, {ours: wins, rival: np.full_like(wins, 0.5)}) is expected


def test_a_horizon_that_is_too_long_does_harm(truth: Course) -> None:
    claim = "odesteer.f5.too-long-a-horizon-does-harm"
    far, near = (product(truth.at(share)) for share in (3.0, 0.2))
    assert verdict(claim, {"share-1.6": far, "share-0.4": near}) is Verdict.REPRODUCED
    assert verdict(claim, {"share-1.6": near, "share-0.4": far}) is Verdict.CONTRADICTED
    assert verdict(claim, {"share-1.6": near, "share-0.4": near}) is Verdict.NOT_REPRODUCED


def test_knowledge_falls_under_a_law_that_goes_too_far(plant: Plant, truth: Course) -> None:
    """The claim turns with the law: broken at a long horizon, and nothing at none."""
    claim, asked = "odesteer.t8.knowledge-falls", Utility(plant)
    bare, far = (truth.at(share, asked).wanted for share in (0.0, 3.0))
    assert verdict(claim, {"odesteer": far, "unsteered": bare}) is Verdict.REPRODUCED
    assert verdict(claim, {"odesteer": bare, "unsteered": bare}) is Verdict.NOT_REPRODUCED
