from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from steerlib.experiment.claims import ClaimError, ExactClaim, SignClaim, Verdict, load_claims, read_claims, verdict

ROOT = Path(__file__).resolve().parents[2]
COMMON = {
    "paper": "someone2026",
    "where": "Table 1",
    "says": "Something that can be checked, in a sentence.",
    "check": "notebooks/11_x",
    "profiles": ["tiny"],
}
IDENTITY = {**COMMON, "id": "a.identity", "kind": "identity", "tolerance": {"absolute": 1e-6}}
SIGN = {**COMMON, "id": "a.sign", "kind": "sign", "expects": "positive", "tolerance": {"level": 0.05}}
finite = st.floats(-10, 10)


def write(folder: Path, *claims: dict[str, object], name: str = "a.yml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(list(claims)))
    return path


def test_the_shipped_claims_load_and_cite_the_bibliography() -> None:
    claims = load_claims(ROOT / "data" / "claims")
    bibliography = ROOT / "book" / "references.bib"
    for paper in {claim.paper for claim in claims.values()}:
        assert f"{{{paper}," in bibliography.read_text()


def test_published_gains_of_the_shipped_sign_claims_have_the_claimed_sign() -> None:
    for claim in load_claims(ROOT / "data" / "claims").values():
        if isinstance(claim, SignClaim):
            for before, after in (tuple(row.values()) for row in claim.published.values()):
                assert (after > before) == (claim.expects == "positive")


def test_verdicts(tmp_path: Path) -> None:
    identity, sign = read_claims(write(tmp_path, IDENTITY, SIGN))
    assert verdict(identity, estimate=1e-7) is Verdict.REPRODUCED
    assert verdict(identity, estimate=1e-5) is Verdict.CONTRADICTED
    assert verdict(sign, estimate=1, low=0.5, high=2) is Verdict.REPRODUCED
    assert verdict(sign, estimate=1, low=-0.5, high=2) is Verdict.NOT_REPRODUCED
    assert verdict(sign, estimate=-1, low=-2, high=-0.5) is Verdict.CONTRADICTED
    negative = SignClaim.model_validate({**SIGN, "expects": "negative"})
    assert verdict(negative, estimate=-1, low=-2, high=-0.5) is Verdict.REPRODUCED


@given(st.lists(finite, min_size=3, max_size=3).map(sorted))
def test_flipping_the_effect_and_the_claim_changes_nothing(ends: list[float]) -> None:
    low, estimate, high = ends
    positive = SignClaim.model_validate(SIGN)
    negative = SignClaim.model_validate({**SIGN, "expects": "negative"})
    assert verdict(positive, estimate=estimate, low=low, high=high) is verdict(
        negative, estimate=-estimate, low=-high, high=-low
    )


@pytest.mark.parametrize(
    "measured",
    [{"estimate": 1.0}, {"estimate": 1.0, "low": 0.0}, {"estimate": 3.0, "low": 0.0, "high": 1.0},
     {"estimate": 1.0, "high": 2.0}],
)  # fmt: skip
def test_a_sign_needs_an_interval_around_the_estimate(measured: dict[str, float]) -> None:
    with pytest.raises(ClaimError, match="coverage 0.95"):
        verdict(SignClaim.model_validate(SIGN), **measured)


def test_an_identity_takes_no_interval() -> None:
    claim = ExactClaim.model_validate(IDENTITY)
    with pytest.raises(ClaimError, match="no interval"):
        verdict(claim, estimate=0.0, low=0.0, high=1.0)
    with pytest.raises(ClaimError, match="not negative"):
        verdict(claim, estimate=-1.0)
    with pytest.raises(ClaimError, match="finite"):
        verdict(claim, estimate=float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "rang"}, "kind.*rank.*monotone"),
        ({"tolerance": {"level": 0.05}}, "absolute"),
        ({"tolerence": {"absolute": 1}}, "tolerence"),
        ({"profiles": ["huge"]}, "profiles"),
        ({"check": "notebooks/eleven"}, "check"),
        ({"says": "short"}, "says"),
    ],
)
def test_malformed_claims_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ClaimError, match=rf"(?s)a\.yml.*a\.identity.*{message}"):
        read_claims(write(tmp_path, {**IDENTITY, **change}))


def test_malformed_files(tmp_path: Path) -> None:
    write(tmp_path, IDENTITY)
    write(tmp_path, IDENTITY, name="b.yml")
    with pytest.raises(ClaimError, match=r"b\.yml: the id 'a\.identity' is used twice"):
        load_claims(tmp_path)
    (tmp_path / "c.yml").write_text("just: a mapping")
    with pytest.raises(ClaimError, match="expected a list"):
        read_claims(tmp_path / "c.yml")
    (tmp_path / "c.yml").write_text("- [")
    with pytest.raises(ClaimError, match="not YAML"):
        read_claims(tmp_path / "c.yml")
