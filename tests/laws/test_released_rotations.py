"""The released code of HPR and of angular steering, and ours, on the same random states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steerlib.control.rotation import plane
from steerlib.laws.angular import AngularSteering
from steerlib.laws.householder import HouseholderRotation
from tests.laws.fixtures.released_rotations import DEGREES, LAYERS, inputs

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "released_rotations.json").read_text())


@pytest.fixture(scope="module")
def drawn() -> dict[str, Tensor]:
    found, digest = inputs()
    assert digest == FIXTURE["provenance"]["inputs_sha256"], "the random numbers are not those of the fixture"
    return {name: torch.from_numpy(value) for name, value in found.items()}


def test_householder(drawn: dict[str, Tensor]) -> None:
    law = HouseholderRotation(layers=LAYERS)
    law.normal = drawn["normal"] / drawn["normal"].norm()
    for i, layer in enumerate(law.angle.layers):
        layer.weight, layer.bias = drawn[f"weight{i}"].float(), drawn[f"bias{i}"].float()
    found, released = law(drawn["states"]), torch.tensor(FIXTURE["householder"], dtype=torch.float64)
    torch.testing.assert_close(found, released, atol=1e-5, rtol=1e-5)
    moved = (found != drawn["states"]).any(-1)
    assert 0 < int(moved.sum()) < moved.numel(), "both sides of the probe occur"


@pytest.mark.parametrize(("when", "mode"), [("always", 0), ("aligned", 1)])
@pytest.mark.parametrize("degrees", DEGREES)
def test_angular(drawn: dict[str, Tensor], degrees: float, when: str, mode: int) -> None:
    law = AngularSteering(angle=degrees, when=when)  # type: ignore[arg-type]
    law.basis = plane(drawn["first"], drawn["second"])
    released = torch.tensor(FIXTURE["angular"][f"{degrees} {mode}"], dtype=torch.float64)
    torch.testing.assert_close(law(drawn["states"]), released, atol=1e-5, rtol=1e-5)
