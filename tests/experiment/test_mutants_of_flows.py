"""Claims about barriers and their fields turn when what they are about is spoilt, on the main plant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steerlib import Plant, metrics
from steerlib.control import barrier as barriers
from steerlib.control.barrier import Barrier
from steerlib.control.density_ratio import Features, Kind, auc, fit_ratio
from steerlib.experiment.claims import Verdict, load_claims
from steerlib.experiment.claims.paired import judge_samples
from steerlib.experiment.claims.rules import judge_value
from steerlib.experiment.records import Value
from steerlib.laws.additive import shuffled
from steerlib.laws.barrier import ODESteer
from steerlib.laws.base import Contrast
from steerlib.metrics import Estimate
from steerlib.tasks import Truth

LAYER, SEEDS, FITTED = 3, range(5), 50
DIRECTIONS, RAW = Features(dimension=2000), Features(unit=False)


@pytest.fixture(scope="module")
def measured() -> tuple[Contrast, Contrast]:
    """States to fit on, and states of other texts."""
    task = Truth(Plant.load("almanac-llama", dtype=torch.float32))
    return task.contrast(layer=LAYER, n=80, seed=0), task.contrast(layer=LAYER, n=40, seed=0, split="test")


def verdict(claim: str, found: Estimate) -> Verdict:
    value = Value(value=found.value, low=found.low, high=found.high, n=found.n, unit="", note="", shown="")
    return judge_value(load_claims()[claim], value).verdict


def part(contrast: Contrast, seed: int) -> Contrast:
    """Some of the texts, other ones for each seed."""
    rows = torch.randperm(len(contrast.positive), generator=torch.Generator().manual_seed(seed))[:FITTED]
    return Contrast(contrast.positive[rows], contrast.negative[rows], contrast.header)


@pytest.mark.parametrize(
    ("strength", "expected"),
    [(1.0, Verdict.REPRODUCED), (0.0, Verdict.NOT_REPRODUCED), (-1.0, Verdict.CONTRADICTED)],
)
def test_steps_keep_what_is_inside(measured: tuple[Contrast, Contrast], strength: float, expected: Verdict) -> None:
    """A law that does nothing gains nothing; one that goes downhill loses what it had."""
    fit, fresh = measured
    law = ODESteer(dimension=2000, strength=1.0).fit(fit)
    begun = fresh.positive[law.h(fresh.positive) >= 0].double()
    law.at(strength * 0.4 * float(begun.norm(dim=1).mean()))
    path = law.flow(begun, trace=True).path
    assert path is not None and len(begun) > 20
    h = law.h(path)
    least = (h[1:] - h[:-1]).amin(0).double().numpy()
    assert verdict("odesteer.p1.steps-keep-what-is-inside", metrics.mean_interval(least)) is expected


@pytest.mark.parametrize(
    ("how", "expected"),
    [("fitted", Verdict.REPRODUCED), ("shuffled", Verdict.NOT_REPRODUCED), ("reversed", Verdict.CONTRADICTED)],
)
def test_the_barrier_tells_held_out_texts_apart(
    measured: tuple[Contrast, Contrast], how: str, expected: Verdict
) -> None:
    """Labels that mean nothing, and labels that mean the opposite."""
    fit, fresh = measured
    above = []
    for seed in SEEDS:
        some = part(fit, seed)
        if how == "shuffled":
            some = shuffled(some, seed=seed)
        if how == "reversed":
            some = Contrast(some.negative, some.positive, some.header)
        h = fit_ratio(some.positive, some.negative, features=DIRECTIONS).barrier
        read = [barriers.value(h, side.double()) for side in fresh]
        above.append(auc(*read) - 0.5)
    assert verdict("odesteer.eq12.barrier-tells-held-out-texts-apart", metrics.mean_interval(above)) is expected


def turning(h: Barrier, states: torch.Tensor) -> np.ndarray:
    """One minus the cosine of the field at a state with the mean field, as the page measures it."""
    fields = barriers.direction(h, states.to(h.constant.dtype)).double()
    return (1 - fields @ torch.nn.functional.normalize(fields.mean(0), dim=0)).numpy()


@pytest.fixture(scope="module")
def turned(measured: tuple[Contrast, Contrast]) -> dict[str, np.ndarray]:
    fit, fresh = measured
    kinds: dict[str, tuple[Kind, Features]] = {
        "caa": ("means", RAW),
        "linear-on-directions": ("linear", DIRECTIONS),
        "odesteer": ("sketch", DIRECTIONS),
    }
    parts = [part(fit, seed) for seed in SEEDS]
    return {
        name: np.stack(
            [turning(fit_ratio(p.positive, p.negative, kind, features=how).barrier, fresh.negative) for p in parts]
        )
        for name, (kind, how) in kinds.items()
    }


@pytest.mark.parametrize(
    ("claim", "mutant"),
    [
        ("odesteer.t1.its-field-is-not-constant", "caa"),
        ("odesteer.t1.polynomial-features-turn-the-field", "linear-on-directions"),
    ],
)
def test_the_field_turns(turned: dict[str, np.ndarray], claim: str, mutant: str) -> None:
    """A field in ODESteer's place that is constant, or that of a linear probe, does not turn by more than that."""
    found = load_claims()[claim]
    assert judge_samples(found, turned).verdict is Verdict.REPRODUCED  # type: ignore[arg-type]
    spoilt = {**turned, "odesteer": turned[mutant]}
    assert judge_samples(found, spoilt).verdict is Verdict.NOT_REPRODUCED  # type: ignore[arg-type]
