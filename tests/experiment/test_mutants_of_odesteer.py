"""Claims about ODESteer turn when the law is spoilt: one that does nothing, and one that goes downhill."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlib import Plant
from steerlib.experiment.claims import Verdict, load_claims
from steerlib.experiment.claims.paired import judge_samples
from steerlib.experiment.claims.rules import judge_interval
from steerlib.experiment.claims.schema import SignClaim
from steerlib.experiment.samples import product_scores
from steerlib.laws.additive import shuffled
from steerlib.laws.barrier import ODESteer
from steerlib.laws.base import Contrast
from steerlib.metrics import mean_interval
from steerlib.tasks import Truth
from tests.experiment.spoilt import EXPECTED, MUTANTS

LAYER, LIMIT = 2, 16
CHOSEN, FAR = 0.4, 2.4  # in mean lengths of a state


@pytest.fixture(scope="module")
def task() -> Truth:
    return Truth(Plant.load("almanac-llama", dtype=torch.float32))


@pytest.fixture(scope="module")
def contrast(task: Truth) -> Contrast:
    return task.contrast(layer=LAYER, n=60, seed=0)


@pytest.fixture(scope="module")
def length(contrast: Contrast) -> float:
    """Mean length of a state at the block."""
    return float(torch.cat([*contrast]).norm(dim=1).mean())


@pytest.fixture(scope="module")
def away(task: Truth) -> Tensor:
    """Held-out negative states."""
    return task.contrast(layer=LAYER, n=60, seed=0, split="validation").negative.double()


@pytest.fixture(scope="module")
def law(contrast: Contrast) -> ODESteer:
    return ODESteer(dimension=1000).fit(contrast)


def again(law: ODESteer, strength: float, **options: object) -> ODESteer:
    """The same barrier, followed in another way."""
    assert law.ratio is not None
    return ODESteer(strength=strength, **options).hold(law.ratio.barrier, law.header)  # type: ignore[arg-type]


def heights(law: ODESteer, by: ODESteer, states: Tensor) -> np.ndarray:
    """The barrier of one law along the ways of another."""
    path = by.flow(states, trace=True).path
    assert path is not None
    return law.h(path).numpy()


def verdict(claim: str, samples: dict[str, np.ndarray]) -> Verdict:
    return judge_samples(load_claims()[claim], {name: row[None] for name, row in samples.items()}).verdict  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def one_step(task: Truth, law: ODESteer, length: float) -> dict[str, np.ndarray]:
    """Truth times information, prompt by prompt; strength 0 is the unsteered plant bit for bit."""
    found = {}
    for name, sign in MUTANTS.items():
        with task.plant.under(again(law, sign * CHOSEN * length, steps=1)):
            scores = task.exact(limit=LIMIT)
        found[name] = product_scores(scores.wanted[None], scores.intact[None])[0]
    return found


@pytest.mark.parametrize(("name", "expected"), EXPECTED)
def test_one_step(one_step: dict[str, np.ndarray], name: str, expected: Verdict) -> None:
    samples = {"unsteered": one_step["idle"], "odesteer-one-step": one_step[name]}
    assert verdict("odesteer.t3.txi.one-step-beats-unsteered", samples) is expected


@pytest.mark.parametrize(("name", "expected"), EXPECTED)
def test_the_barrier_along_the_way(law: ODESteer, length: float, away: Tensor, name: str, expected: Verdict) -> None:
    found = heights(law, again(law, MUTANTS[name] * CHOSEN * length), away)
    samples = {f"step-{k}": found[k] for k in range(11)}
    assert verdict("odesteer.f2.barrier-rises-along-trajectories", samples) is expected


@pytest.mark.parametrize(
    ("name", "expected", "beside_luck"),
    [
        ("law", Verdict.REPRODUCED, Verdict.REPRODUCED),
        ("idle", Verdict.NOT_REPRODUCED, Verdict.NOT_REPRODUCED),
        ("shuffled", Verdict.NOT_REPRODUCED, Verdict.NOT_REPRODUCED),
    ],
)
def test_who_ends_inside(
    law: ODESteer, contrast: Contrast, length: float, away: Tensor, name: str, expected: Verdict, beside_luck: Verdict
) -> None:
    luck = ODESteer(dimension=1000, strength=CHOSEN * length).fit(shuffled(contrast, seed=0))
    by = luck if name == "shuffled" else again(law, MUTANTS[name] * CHOSEN * length)
    inside = [(heights(law, one, away) >= 0).astype(float) for one in (by, luck)]
    samples = {"unsteered": inside[0][0], "odesteer": inside[0][-1], "shuffled": inside[1][-1]}
    assert verdict("odesteer.f2.more-end-inside", samples) is expected
    assert verdict("odesteer.ours.shuffled-labels-bring-fewer-inside", samples) is beside_luck


@pytest.mark.parametrize(("share", "expected"), [(FAR, Verdict.REPRODUCED), (CHOSEN, Verdict.NOT_REPRODUCED)])
def test_chatter_is_a_matter_of_going_too_far(
    law: ODESteer, length: float, away: Tensor, share: float, expected: Verdict
) -> None:
    form = law.sensed(away)[0]
    curved = 2 * float(form.values[-1] - form.values[0]) + float(form.linear.norm())  # type: ignore[union-attr]
    time = 40 * float(away.norm(dim=1).min()) ** 2 / curved
    ways = {
        "unit": again(law, share * length, steps=40),
        "gradient": again(law, time, steps=40, field="gradient", solver="geodesic"),
    }
    samples = {
        name: (np.diff(heights(law, one, away), axis=0) > -1e-9).all(0).astype(float) for name, one in ways.items()
    }
    assert samples["gradient"].all()
    assert verdict("odesteer.ours.unit-field-chatters-at-the-top", samples) is expected


def test_a_constant_push_has_no_direction_of_its_own_for_each_state(
    law: ODESteer, contrast: Contrast, length: float, away: Tensor
) -> None:
    claim = load_claims()["odesteer.s4.direction-depends-on-the-state"]
    assert isinstance(claim, SignClaim)
    straight = ODESteer(barrier="means", normalise=False, strength=CHOSEN * length).fit(contrast)
    found = {}
    for name, one in (("law", again(law, CHOSEN * length)), ("straight", straight)):
        push = torch.nn.functional.normalize(one.input(away), dim=1)
        mean = torch.nn.functional.normalize(push.mean(0), dim=0)
        turn = mean_interval((1 - push @ mean).clamp(min=0).numpy().round(6))
        found[name] = judge_interval(claim, estimate=turn.value, low=turn.low, high=turn.high).verdict
    assert found == {"law": Verdict.REPRODUCED, "straight": Verdict.NOT_REPRODUCED}
