from __future__ import annotations

from typing import Any

import pytest

from steerlib.experiment.claims import BandClaim, ClaimError, ExactClaim, SignClaim, Verdict
from steerlib.experiment.ledger import discoveries, ledger
from steerlib.experiment.records import PageRecord
from tests.experiment.test_claims import BAND, IDENTITY, SIGN

EVERYWHERE = {"profiles": ["tiny", "gpu", "paper"]}
CLAIMS = {
    claim.id: claim
    for claim in (
        ExactClaim.model_validate({**IDENTITY, **EVERYWHERE}),
        SignClaim.model_validate({**SIGN, "check": "notebooks/12_y", **EVERYWHERE}),
        BandClaim.model_validate(BAND),
    )
}


def record(page: str = "11_x", profile: str = "tiny", *, finished: bool = True, **checks: dict[str, Any]) -> PageRecord:
    held = {f"a.{name}": {"claim": f"a.{name}", **check} for name, check in checks.items()}
    return PageRecord.model_validate(
        {"page": page, "profile": profile, "plant": "toy", "seeds": (0,), "started": "now", "checks": held,
         "finished": finished}
    )  # fmt: skip


def test_every_claim_stands_on_every_profile() -> None:
    entries = ledger(
        [
            record(identity={"verdict": "reproduced", "estimate": 0.0, "note": "exactly"}),
            record("12_y", "gpu", sign={"verdict": "contradicted", "p": 0.01}),
        ],
        CLAIMS,
    )
    table = {(entry.claim.id, entry.profile): entry for entry in entries}
    assert len(entries) == len(table) == 9
    assert {key: entry.verdict for key, entry in table.items()} == {
        ("a.identity", "tiny"): Verdict.REPRODUCED,
        ("a.identity", "gpu"): Verdict.NOT_RUN,
        ("a.identity", "paper"): Verdict.NOT_RUN,
        ("a.sign", "tiny"): Verdict.NOT_RUN,
        ("a.sign", "gpu"): Verdict.CONTRADICTED,
        ("a.sign", "paper"): Verdict.NOT_RUN,
        ("a.band", "tiny"): Verdict.CANNOT_CHECK,
        ("a.band", "gpu"): Verdict.CANNOT_CHECK,
        ("a.band", "paper"): Verdict.NOT_RUN,
    }
    first = table["a.identity", "tiny"]
    assert first.check is not None and first.check.estimate == 0.0 and first.why == "exactly"
    assert table["a.sign", "tiny"].why == "12_y has not been run in this profile"
    assert "own model and data" in table["a.band", "tiny"].why
    assert [entry.profile for entry in entries[:3]] == ["tiny", "gpu", "paper"]


def test_why_a_page_gave_no_verdict() -> None:
    (broken,) = (
        e for e in ledger([record(finished=False)], CLAIMS) if (e.claim.id, e.profile) == ("a.identity", "tiny")
    )
    (silent,) = (e for e in ledger([record()], CLAIMS) if (e.claim.id, e.profile) == ("a.identity", "tiny"))
    assert (broken.why, silent.why) == ("11_x did not finish", "11_x ran without checking it")
    assert broken.verdict is silent.verdict is Verdict.NOT_RUN


def test_records_that_do_not_belong_together() -> None:
    with pytest.raises(ClaimError, match="two records of page 11_x in profile tiny"):
        ledger([record(), record()], CLAIMS)
    with pytest.raises(ClaimError, match=r"11_x check a\.gone, which data/claims does not hold"):
        ledger([record(gone={"verdict": "reproduced"})], CLAIMS)


def test_luck_is_counted_over_the_whole_ledger() -> None:
    """Benjamini and Hochberg by hand: 0.012, 0.02 and 0.04 of three adjust to 0.03, 0.03 and 0.04."""
    entries = ledger(
        [
            record(profile="tiny", identity={"verdict": "reproduced"}, band={"verdict": "reproduced", "p": 0.04}),
            record("12_y", "tiny", sign={"verdict": "reproduced", "p": 0.02}),
            record("12_y", "gpu", sign={"verdict": "contradicted", "p": 0.012}),
        ],
        CLAIMS,
    )
    found = discoveries(entries, rate=0.035)
    assert (found.tested, found.found, found.rate) == (3, 2, 0.035)
    assert found.adjusted == pytest.approx(
        {("a.sign", "tiny"): 0.03, ("a.sign", "gpu"): 0.03, ("a.band", "tiny"): 0.04}
    )
    assert discoveries(ledger([], CLAIMS)).tested == 0
