"""The released code of ITI, of CAST and of LiSeCo, and ours, on the same random states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steerlib.actuator import Pass
from steerlib.laws.additive import Additive
from steerlib.laws.base import Contrast
from steerlib.laws.condition import Condition, best_cut
from steerlib.laws.conditional import Conditional
from steerlib.laws.iti import ITI
from steerlib.laws.projection import HalfSpaceProjection
from tests.laws.fixtures.released_interventions import CHOSEN, HEADS, HELD_OUT, LAYERS, READS, SETPOINTS, inputs

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "released_interventions.json").read_text())
CAST = FIXTURE["conditions"]
SIDES = {"smaller": "above", "larger": "below"}  # theirs says on which side the threshold lies, ours the similarity


@pytest.fixture(scope="module")
def drawn() -> dict[str, Tensor]:
    found, digest = inputs()
    assert digest == FIXTURE["provenance"]["inputs_sha256"], "the random numbers are not those of the fixture"
    return {name: torch.from_numpy(value) for name, value in found.items()}


class TestHeads:
    @pytest.mark.parametrize(("direction", "off"), [("mass-mean", 1e-5), ("probe", 1e-3)])
    def test_the_same_heads_along_the_same_pushes(self, drawn, direction, off, monkeypatch) -> None:
        """Of probes to the tolerance of scikit-learn's solver, which stops at a gradient of 1e-4."""
        law = ITI(num_heads=CHOSEN, direction=direction, held_out=HELD_OUT / len(drawn["order"]))
        monkeypatch.setattr(law, "_split", lambda *_: (drawn["order"], drawn["order"]))
        states = drawn["heads"].flatten(-2)  # questions, classes, layers, width of a layer
        contrasts = [Contrast(*states[:, :, layer].unbind(1), paired=True) for layer in range(LAYERS)]
        law.fit_heads(contrasts, heads=HEADS)
        torch.testing.assert_close(law.accuracies.flatten(), torch.tensor(FIXTURE["heads"]["accuracies"]))
        assert law.selected.nonzero().tolist() == FIXTURE["heads"]["chosen"]
        released = torch.tensor(FIXTURE["heads"][direction]).flatten(1)
        chosen = [layer for layer in range(LAYERS) if law.selected[layer].any()]
        assert not released[[layer for layer in range(LAYERS) if layer not in chosen]].any()
        ours = torch.stack([part.vector for part in law])  # type: ignore[misc]
        torch.testing.assert_close(ours, released[chosen], atol=off, rtol=off)


class TestConditions:
    def test_the_vector_is_theirs_up_to_a_sign_that_it_is_blind_to(self, drawn) -> None:
        ours = Condition(vector="pca-pairs").fit(Contrast(*drawn["pairs"].unbind(1), paired=True)).vector
        theirs = torch.tensor(CAST["vector"])
        torch.testing.assert_close(ours * torch.sign(ours @ theirs), theirs, atol=1e-5, rtol=0)

    def test_the_threshold_is_at_least_as_good_as_the_best_of_their_grid(self, drawn) -> None:
        made = Condition(vector="pca-pairs", similarity="tanh").fit(Contrast(*drawn["pairs"].unbind(1), paired=True))
        act, leave = (made.similarities(states) for states in drawn["pairs"].unbind(1))

        def f1(threshold: float, side: str) -> float:
            hits, alarms = (int((s > threshold if side == "above" else s < threshold).sum()) for s in (act, leave))
            return 2 * hits / (hits + alarms + len(act))

        released = f1(CAST["threshold"], SIDES[CAST["side"]])
        assert released == pytest.approx(CAST["f1"]) and 0.7 < released < 1
        cut = best_cut(act, leave)
        assert released <= f1(*cut) <= released + 0.1 and float(made.f1) == pytest.approx(f1(*cut))
        assert cut[1] == SIDES[CAST["side"]]

    @pytest.mark.parametrize("read", READS)
    def test_the_gate_opens_for_the_same_prompts(self, drawn, read) -> None:
        """A batch of prompts and three more tokens, where theirs takes one prompt at a time."""
        law = Conditional(behaviour="difference-of-means", read=read, similarity="tanh", strength=1.5)
        law.condition.vector = torch.tensor(CAST["vector"])
        law.condition.threshold = torch.tensor(CAST["threshold"])
        law.condition.above = torch.tensor(CAST["side"] == "smaller")
        assert isinstance(law.gated.law, Additive)
        law.gated.law.vector = drawn["behaviour"].float()
        found = []
        for states in (drawn["prompts"], *drawn["answers"].split(1, 1)):
            now = Pass(decoding=states.shape[1] == 1)
            found.append(law.gated.during(law.condition.during(states, now), now))
            if not now.decoding:
                said = law.condition.similarities(law.condition._prompt(states, now))
        released = torch.tensor([row["states"] for row in CAST[read]], dtype=torch.float64)
        torch.testing.assert_close(torch.cat(found, 1), released, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(said, torch.tensor([row["similarity"] for row in CAST[read]]), atol=1e-5, rtol=1e-5)
        moved = (torch.cat(found, 1) != torch.cat([drawn["prompts"], drawn["answers"]], 1)).any(-1)
        assert torch.equal(moved.all(1), moved.any(1)) and 0 < int(moved.all(1).sum()) < len(moved)


@pytest.mark.parametrize("setpoint", SETPOINTS)
def test_projections(drawn: dict[str, Tensor], setpoint: float) -> None:
    law = HalfSpaceProjection(setpoint=setpoint)
    law.weight, law.bias = drawn["weight"].float(), drawn["bias"].float()
    states = drawn["states"].float()
    released = torch.tensor(FIXTURE["projections"][str(setpoint)])
    torch.testing.assert_close(law.input(states), released, atol=1e-5, rtol=1e-5)
    moved = released.any(-1)
    assert 0 < int(moved.sum()) < len(moved), "states on both sides"
