"""The claims about difference of means turn when the law is spoilt, on the main plant."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steerlib import Plant
from steerlib.experiment.claims import PairedTolerance, SignClaim, Verdict, load_claims
from steerlib.experiment.claims.paired import judge_samples
from steerlib.experiment.claims.schema import Versus
from steerlib.experiment.samples import product_scores
from steerlib.laws.additive import DifferenceOfMeans
from steerlib.laws.base import Law, LawHeader
from steerlib.tasks import Truth
from steerlib.tasks.base import Scores
from tests import families
from tests.experiment.mutants import Flipped, Idle, Misplaced, mutants

FITTED, LAST = 2, 5
LIMIT = 24


def product(found: Scores) -> np.ndarray:
    return product_scores(found.wanted[None], found.intact[None])


#: The two claims whose sign stands or falls with the law, and what page 11 records for each.
CLAIMS = {
    "odesteer.t2.true.caa-beats-unsteered": lambda found: found.wanted[None],
    "odesteer.t2.txi.caa-beats-unsteered": product,
}


@pytest.fixture(scope="module")
def scored() -> dict[str, Scores]:
    """Exact scores without a law, under the law, and under each of its mutants."""
    plant = Plant.load("almanac-llama", dtype=torch.float32)
    task = Truth(plant)
    law = DifferenceOfMeans(strength=0.5).fit(task.contrast(layer=FITTED, n=50, seed=0))
    out = {"unsteered": task.exact(limit=LIMIT)}
    for name, one in {"law": law, **mutants(law, layer=LAST)}.items():
        with plant.under(one):
            out[name] = task.exact(limit=LIMIT)
    return out


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize(
    ("name", "verdict"),
    [("law", Verdict.REPRODUCED), ("idle", Verdict.NOT_REPRODUCED), ("flipped", Verdict.CONTRADICTED)],
)
def test_a_spoilt_law_turns_the_verdict(scored: dict[str, Scores], claim: str, name: str, verdict: Verdict) -> None:
    samples = {"unsteered": CLAIMS[claim](scored["unsteered"]), "caa": CLAIMS[claim](scored[name])}
    assert judge_samples(load_claims()[claim], samples).verdict is verdict  # type: ignore[arg-type]


def test_a_law_that_does_nothing_leaves_every_score_as_it_was(scored: dict[str, Scores]) -> None:
    for part in ("wanted", "intact"):
        np.testing.assert_array_equal(getattr(scored["idle"], part), getattr(scored["unsteered"], part))


def test_the_wrong_layer_keeps_the_sign_and_loses_a_claim_about_size(scored: dict[str, Scores]) -> None:
    """One direction reads as truth through all blocks, so a sign alone does not say where a law belongs."""
    claim = load_claims()["odesteer.t2.true.caa-beats-unsteered"]
    moved = {"unsteered": scored["unsteered"].wanted[None], "caa": scored["misplaced"].wanted[None]}
    assert judge_samples(claim, moved).verdict is Verdict.REPRODUCED  # type: ignore[arg-type]
    placed = SignClaim(
        id="test.place", paper="p", where="here", says="a law does more where it was fitted than after the last block",
        kind="sign", expects="positive", methods=Versus(ours="caa", rivals=("elsewhere",)), profiles=("tiny",),
        check="notebooks/11_difference_of_means metric truth.place", tolerance=PairedTolerance(level=0.05),
    )  # fmt: skip
    here, elsewhere = scored["law"].wanted[None], scored["misplaced"].wanted[None]
    assert judge_samples(placed, {"caa": here, "elsewhere": elsewhere}).verdict is Verdict.REPRODUCED
    assert judge_samples(placed, {"caa": elsewhere, "elsewhere": elsewhere}).verdict is Verdict.NOT_REPRODUCED


class _Gain(Law):
    """Doubles the state: a law whose input depends on it."""

    def input(self, state):
        return state


def test_mutants_spoil_any_law_in_its_own_way() -> None:
    plant = families.plant("llama")
    text = families.words(5, 9, 14)
    inner = _Gain(strength=0.5)
    with pytest.raises(ValueError, match="_Gain: got a law without a header"):
        Idle(inner)
    inner.header = LawHeader(
        layer=1, point="resid_post", scope="generated", plant=plant.name, weight_hash=plant.weight_hash,
        width=plant.width, data_hash="none", seed=0,
    )  # fmt: skip
    state = torch.randn(4, families.WIDTH, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Flipped(inner)(state), 0.5 * state)
    torch.testing.assert_close(Idle(inner)(state), state)
    moved = Misplaced(inner, layer=2)
    torch.testing.assert_close(moved(state), 1.5 * state)
    with plant.under(inner, scope="all"):
        early = plant.forward([text])
    with plant.under(moved, scope="all"):
        late = plant.forward([text])
    assert not torch.allclose(early, late), "it acts after another block"
    with pytest.raises(ValueError, match="layer: got 1, where the law was fitted"):
        Misplaced(inner, layer=1)
