"""The released code of ODESteer's comparators and of AcT, and ours, on the same random states."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from steerlib.laws.act import LinearAcT, MeanAcT
from steerlib.laws.base import Contrast, Law
from steerlib.laws.mimic import MiMiC
from tests.laws.fixtures.released_transport import POSITIVES, SUPPORTS, inputs

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "released_transport.json").read_text())
#: The comparators, as ODESteer's code has them: everything at once, from the last token, rows dropped.
COMPARATORS: dict[str, Law] = {
    "MiMiC": MiMiC(),
    "LinAcT": LinearAcT(position="last", support="none", matching="truncate"),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, torch.Tensor]:
    found, digest = inputs()
    assert digest == FIXTURE["provenance"]["inputs_sha256"], "the random numbers are not those of the fixture"
    return {name: torch.from_numpy(value) for name, value in found.items()}


@pytest.mark.parametrize("name", COMPARATORS)
def test_comparators(name: str, drawn: dict[str, torch.Tensor]) -> None:
    released = torch.tensor(FIXTURE["moved"][name], dtype=torch.float64)
    law = COMPARATORS[name].fit(Contrast(drawn["positive"], drawn["negative"]))
    torch.testing.assert_close(law(drawn["states"]), released, atol=1e-5, rtol=1e-5)
    moved = (released != drawn["states"]).any(-1)
    assert moved.all() if name == "LinAcT" else 0 < int(moved.sum()) < len(moved), "both sides of the gate occur"


@pytest.mark.parametrize("strength", [1.0, 0.4])
@pytest.mark.parametrize("theirs", SUPPORTS)
@pytest.mark.parametrize(("hook", "kind"), [("OnlyMeanHook", MeanAcT), ("LinearOTHook", LinearAcT)])
def test_originals(
    hook: str, kind: type[LinearAcT], theirs: str, strength: float, drawn: dict[str, torch.Tensor]
) -> None:
    released = torch.tensor(FIXTURE["moved"][f"{hook} {theirs} {strength}"], dtype=torch.float64)
    law = kind(support=SUPPORTS[theirs], strength=strength)
    law.fit(Contrast(drawn["positive"], drawn["negative"][:POSITIVES]))
    torch.testing.assert_close(law(drawn["states"]), released, atol=1e-5, rtol=1e-5)
    stayed = (released == drawn["states"].float().double()).float().mean()
    assert stayed == 0 if theirs == "q_all" else 0.05 < stayed < 0.9, "both sides of the support occur"
