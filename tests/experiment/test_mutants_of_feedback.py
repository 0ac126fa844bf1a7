"""Claims about A-LQR turn when the law is spoilt: one that does nothing, and one that pushes the other way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from steerlib import Plant
from steerlib.actuator import Site
from steerlib.experiment.claims import Verdict, load_claims
from steerlib.experiment.claims.paired import judge_samples
from steerlib.laws.lqr import ALQR
from steerlib.tasks import Concept, Refusal, Truth
from steerlib.tasks.base import Scores, Task
from steerlib.tasks.source import TaskSource

LIMIT = 12
#: What is made of a law's strength: A-LQR itself, and its mutants.
MUTANTS = {"law": 1.0, "idle": 0.0, "flipped": -1.0}
EXPECTED = [("law", Verdict.REPRODUCED), ("idle", Verdict.NOT_REPRODUCED), ("flipped", Verdict.CONTRADICTED)]


@pytest.fixture(scope="module")
def plant() -> Plant:
    return Plant.load("almanac-llama", dtype=torch.float32)


def fitted(task: Task, **options: float) -> ALQR:
    return ALQR(prompts=6, **options).fit_from(TaskSource(task, Site(-1), n=40))  # type: ignore[arg-type]


def under(task: Task, law: ALQR, strength: float, *, scope: str = "last") -> Scores:
    """Exact scores; a law without strength is the unsteered plant bit for bit, which need not be scored again."""
    with task.plant.under(law.at(strength), scope=scope):  # type: ignore[arg-type]
        return task.exact(limit=LIMIT)


def verdict(claim: str, samples: dict[str, np.ndarray]) -> Verdict:
    """Of one seed: seeds are asked for by the claim, and are no matter here."""
    found = load_claims()[claim]
    once = found.model_copy(update={"tolerance": found.tolerance.model_copy(update={"seeds": 1})})  # type: ignore[union-attr]
    return judge_samples(once, {name: grid[None] for name, grid in samples.items()}).verdict  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def truth(plant: Plant) -> dict[str, Scores]:
    task = Truth(plant)
    law = fitted(task, setpoint=2.0)
    return {name: under(task, law, strength) for name, strength in MUTANTS.items()}


@pytest.mark.parametrize(("name", "expected"), EXPECTED)
def test_truth(truth: dict[str, Scores], name: str, expected: Verdict) -> None:
    samples = {"unsteered": truth["idle"].wanted, "a-lqr": truth[name].wanted}
    assert verdict("alqr.tqa.true.a-lqr-raises", samples) is expected


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
REFUSALS: dict[str, tuple[str, str, Callable[[Scores], np.ndarray]]] = {
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
    law, lams = fitted(task), (0.5, 1.0, 1.5, 2.0, 2.5)
    found = {
        name: {f"lambda-{lam:g}": under(task, law.toward(lam), strength).wanted for lam in lams}
        for name, strength in MUTANTS.items()
        if strength
    }
    found["idle"] = dict.fromkeys(found["law"], under(task, law, 0.0).wanted)
    return found


@pytest.mark.parametrize(("name", "expected"), EXPECTED)
def test_a_concept_against_its_setpoint(doses: dict[str, dict[str, np.ndarray]], name: str, expected: Verdict) -> None:
    assert verdict("alqr.concepts.a-second-concept-follows-too", doses[name]) is expected
