"""Claims about feedback over depth turn when the law is spoilt: it does nothing, or pushes the other way.

A claim that compares with a rival is given one that does nothing, so that it can come out at all; what is asked is
whether the verdict hangs on the law, not what the rival is worth. Scores are exact, and take the place of shares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from steerlib import Plant
from steerlib.actuator import Site
from steerlib.experiment.claims import Verdict, load_claims
from steerlib.laws.lqr import ALQR
from steerlib.laws.pid import SPID
from steerlib.laws.setpoint import Setpoints
from steerlib.tasks import Concept, Refusal, Toxicity, Truth
from steerlib.tasks.base import Scores, Task
from steerlib.tasks.source import TaskSource
from tests.experiment.spoilt import EXPECTED, MUTANTS, Part, product, unwanted, verdict, wanted

LIMIT = 12
#: How much of the input is let through: of all of it answers to provocations fall apart, which counts as toxic.
GENTLY = {"truth": 1.0, "toxicity": 0.2}


@pytest.fixture(scope="module")
def plant() -> Plant:
    return Plant.load("almanac-llama", dtype=torch.float32)


def fitted(task: Task, **options: float) -> ALQR:
    return ALQR(prompts=6, **options).fit_from(TaskSource(task, Site(-1), n=40))  # type: ignore[arg-type]


def under(task: Task, law: Setpoints, strength: float, *, scope: str = "last") -> Scores:
    """Exact scores; a law without strength is the unsteered plant bit for bit, which need not be scored again."""
    with task.plant.under(law.at(strength), scope=scope):  # type: ignore[arg-type]
        return task.exact(limit=LIMIT)


@pytest.fixture(scope="module")
def scored(plant: Plant) -> dict[tuple[str, str], dict[str, Scores]]:
    """(behaviour, law) -> scores of the law and of its mutants."""
    found = {}
    for name, task in (("truth", Truth(plant)), ("toxicity", Toxicity(plant))):
        source = TaskSource(task, Site(-1), n=40)
        laws = {
            "a-lqr": fitted(task, setpoint=2.0),
            "s-pid": SPID(setpoint=1.5, kp=0.2, ki=0.02).fit_from(source),
        }
        bare = under(task, laws["a-lqr"], 0.0)
        for key, law in laws.items():
            runs = {mutant: under(task, law, GENTLY[name] * size) for mutant, size in MUTANTS.items() if size}
            found[name, key] = {"idle": bare, **runs}
    return found


#: Claim -> behaviour, its own law, the score that it is about.
CLAIMS: dict[str, tuple[str, str, Part]] = {
    "alqr.tqa.true.a-lqr-raises": ("truth", "a-lqr", wanted),
    "alqr.tqa.txi.beats-all": ("truth", "a-lqr", product),
    "alqr.ours.jacobians-beat-the-identity": ("truth", "a-lqr", product),
    "alqr.ours.feedback-beats-one-push": ("truth", "a-lqr", product),
    "alqr.ours.labels-matter": ("truth", "a-lqr", product),
    "alqr.tqa.txi.s-pid-beats-unsteered": ("truth", "s-pid", product),
    "alqr.text.feedback-beats-fitted-pushes": ("truth", "s-pid", product),
    "alqr.tox.below-unsteered": ("toxicity", "a-lqr", unwanted),
    "alqr.tox.beats-all": ("toxicity", "a-lqr", unwanted),
    "alqr.tox.beats-s-pid": ("toxicity", "a-lqr", unwanted),
    "alqr.ours.tox.below-unsteered": ("toxicity", "a-lqr", unwanted),
    "alqr.tox.s-pid-below-unsteered": ("toxicity", "s-pid", unwanted),
    "alqr.ours.tox.s-pid-below-unsteered": ("toxicity", "s-pid", unwanted),
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize(("name", "expected"), EXPECTED)
def test_a_spoilt_law_turns_the_verdict(
    scored: dict[tuple[str, str], dict[str, Scores]], claim: str, name: str, expected: Verdict
) -> None:
    behaviour, ours, part = CLAIMS[claim]
    found = scored[behaviour, ours]
    methods: Any = load_claims()[claim].methods
    assert methods.ours == ours
    rivals = dict.fromkeys(methods.rivals, part(found["idle"]))
    assert verdict(claim, {ours: part(found[name]), **rivals}) is expected


@pytest.fixture(scope="module")
def aims(plant: Plant) -> dict[str, dict[str, np.ndarray]]:
    task = Truth(plant)
    return against_setpoints(task, fitted(task), (0.5, 1.0, 1.5, 2.0))


def against_setpoints(task: Task, law: ALQR, lams: tuple[float, ...]) -> dict[str, dict[str, np.ndarray]]:
    """What is wanted against the setpoint, under the law and its mutants."""
    found = {
        name: {f"lambda-{lam:g}": under(task, law.toward(lam), strength).wanted for lam in lams}
        for name, strength in MUTANTS.items()
        if strength
    }
    found["idle"] = dict.fromkeys(found["law"], under(task, law, 0.0).wanted)
    return found


@pytest.mark.parametrize(("name", "expected"), EXPECTED)
def test_truth_against_its_setpoint(aims: dict[str, dict[str, np.ndarray]], name: str, expected: Verdict) -> None:
    assert verdict("alqr.s4.behaviour-follows-the-setpoint", aims[name]) is expected


@pytest.fixture(scope="module")
def refusal(plant: Plant) -> dict[str, dict[str, Scores]]:
    """Refusal pushed down, at the last token and at all."""
    task = Refusal(plant)
    law = fitted(task, setpoint=-2.0, q=0.2, r=7.0, q_f=0.2)
    return {
        scope: {name: under(task, law, strength, scope=scope) for name, strength in MUTANTS.items()}
        for scope in ("last", "all")
    }


#: Exact scores hold the probability of every refusal ("wanted"), and of every refusal and agreement ("intact").
REFUSALS: dict[str, tuple[str, str, Part]] = {
    "alqr.refusal.a-lqr-breaks-refusals": ("a-lqr", "last", lambda s: s.intact - s.wanted),
    "alqr.refusal.all-tokens-leave-no-refusal": ("a-lqr-all", "all", lambda s: s.wanted),
}


@pytest.mark.parametrize("claim", REFUSALS)
@pytest.mark.parametrize(("name", "expected"), EXPECTED)
def test_refusal(refusal: dict[str, dict[str, Scores]], claim: str, name: str, expected: Verdict) -> None:
    key, scope, part = REFUSALS[claim]
    samples = {"unsteered": part(refusal[scope]["idle"]), key: part(refusal[scope][name])}
    assert verdict(claim, samples) is expected


@pytest.fixture(scope="module")
def doses(plant: Plant) -> dict[str, dict[str, np.ndarray]]:
    task = Concept(plant, "war")
    return against_setpoints(task, fitted(task), (0.5, 1.0, 1.5, 2.0, 2.5))


@pytest.mark.parametrize(("name", "expected"), EXPECTED)
def test_a_concept_against_its_setpoint(doses: dict[str, dict[str, np.ndarray]], name: str, expected: Verdict) -> None:
    assert verdict("alqr.concepts.a-second-concept-follows-too", doses[name]) is expected
