from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from steerlib.experiment.claims import (
    BandClaim,
    ClaimError,
    ExactClaim,
    RankClaim,
    RatioClaim,
    SignClaim,
    StructureClaim,
    Verdict,
    judge_figure,
    judge_value,
    load_claims,
    read_claims,
    verdict,
)
from steerlib.experiment.records import Artist, AxesRecord, FigureRecord, Value

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
METRIC = {**COMMON, "check": "notebooks/11_x metric truth.txi"}
VERSUS = {"ours": "dom", "rivals": ["none"]}
READ = {"row": "big", "value": "ours"}
NUMBER = {**METRIC, "profiles": ["paper"], "plant": "big/model", "published": {"big": {"ours": 5.0, "none": 2.0}}}
BAND = {**NUMBER, "id": "a.band", "kind": "band", "methods": {"ours": "dom"}, "reading": READ,
        "tolerance": {"level": 0.05, "within": 0.1}}  # fmt: skip
RATIO = {**NUMBER, "id": "a.ratio", "kind": "ratio", "methods": VERSUS, "reading": {**READ, "over": "none"},
         "tolerance": {"level": 0.05, "factor": 1.2}}  # fmt: skip
SHOWN = {**COMMON, "check": "notebooks/11_x figure dose", "id": "a.shown", "kind": "structure",
         "contains": {"panels": 2, "lines": 3, "labels": ["Random"], "xlabel": "layer"}}  # fmt: skip
finite = st.floats(-10, 10)


def write(folder: Path, *claims: dict[str, object], name: str = "a.yml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(list(claims)))
    return path


def test_the_shipped_claims_load_and_cite_the_bibliography() -> None:
    claims = load_claims(ROOT / "data" / "claims")
    bibliography = (ROOT / "book" / "references.bib").read_text()
    papers = {claim.paper for claim in claims.values()}
    assert all(f"{{{paper}," in bibliography for paper in papers)
    assert papers == {"kong2024recontrol", "skifstad2026alqr", "zhao2026odesteer"}
    assert {claim.kind for claim in claims.values()} == {
        "identity", "theorem", "sign", "rank", "monotone", "ratio", "band", "structure"
    }  # fmt: skip


def test_what_a_paper_says_and_what_its_code_does_stand_side_by_side_for_each_paper() -> None:
    pairs = [claim for claim in load_claims(ROOT / "data" / "claims").values() if claim.counterpart]
    assert {claim.paper for claim in pairs} == {"kong2024recontrol", "skifstad2026alqr", "zhao2026odesteer"}
    assert sum(claim.source == "code" for claim in pairs) == len(pairs) / 2


def test_what_is_checked_for_us_alone_has_no_counterpart_and_says_where_it_comes_from() -> None:
    """A sentence of ours must not stand under the paper's name, nor its consequence under what it says."""
    claims = load_claims(ROOT / "data" / "claims").values()
    assert all(claim.origin and not claim.counterpart for claim in claims if claim.source == "ours")
    worked_out = [claim for claim in claims if "worked out by us" in claim.origin]
    assert worked_out and all(claim.derived and claim.derived != claim.says for claim in worked_out)


def test_the_published_numbers_say_what_the_claim_says() -> None:
    """A row ends with our method; a wrong sign or a mistyped digit would turn a verdict around.

    A claim that is about the unsteered plant alone may quote a whole row of a table, other methods included.
    """
    seen = 0
    for claim in load_claims(ROOT / "data" / "claims").values():
        if isinstance(claim, SignClaim | RankClaim):
            alone = claim.methods is not None and claim.methods.rivals == ("unsteered",)
            for row in claim.published.values():
                *others, ours = row.values()
                if alone and "original" in row:
                    others = [row["original"]]
                assert others
                assert all((ours > other) == (claim.expects == "positive") for other in others), claim.id
                seen += 1
    assert seen > 20


def test_published_products_are_the_products_of_the_published_shares() -> None:
    claim = load_claims(ROOT / "data" / "claims")["odesteer.text.txi-is-a-product"]
    assert isinstance(claim, ExactClaim)
    gaps = [abs(row["true"] * row["info"] / 100 - row["txi"]) for row in claim.published.values()]
    assert len(gaps) == 8
    assert max(gaps) <= claim.tolerance.absolute


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
        ({"source": "nobody"}, "source.*'text', 'code' or 'ours'"),
    ],
)
def test_malformed_claims_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ClaimError, match=rf"(?s)a\.yml.*a\.identity.*{message}"):
        read_claims(write(tmp_path, {**IDENTITY, **change}))


@pytest.mark.parametrize(
    ("claim", "change", "message"),
    [
        (SIGN, {"methods": VERSUS}, "one rival and a metric"),
        ({**SIGN, **METRIC}, {"methods": {"ours": "dom", "rivals": ["a", "b"]}}, "for several rivals the kind is rank"),
        ({**SIGN, **METRIC}, {"tolerance": {"level": 0.01}}, "level 0.05"),
        ({**SIGN, **METRIC}, {"methods": {"ours": "dom", "rivals": []}}, "rivals"),
        ({**SIGN, **METRIC}, {"tolerance": {"level": 0.05, "paired": False}}, "paired"),
        (BAND, {"profiles": ["tiny", "gpu"]}, "no published number can be checked"),
        (BAND, {"reading": {"row": "bug", "value": "ours"}}, "published has no bug: ours"),
        (BAND, {"check": "notebooks/11_x"}, "metric NAME for a claim of this kind"),
        (RATIO, {"reading": READ}, "what is divided by"),
        (RATIO, {"reading": {**READ, "over": "base"}}, "published has no big: base"),
        (RATIO, {"published": {"big": {"ours": 5.0, "none": 0.0}}}, "above 0"),
        (RATIO, {"tolerance": {"level": 0.05, "factor": 0.9}}, "factor"),
        (SHOWN, {"check": "notebooks/11_x metric dose"}, "figure NAME for a claim of this kind"),
        (SHOWN, {"contains": {"line": 3}}, "contains.line"),
        (IDENTITY, {"check": "notebooks/11_x metrics dose"}, "check"),
        (IDENTITY, {"source": "rumour"}, "source"),
    ],
)
def test_claims_that_cannot_be_checked_as_they_stand(
    tmp_path: Path, claim: dict[str, Any], change: dict[str, object], message: str
) -> None:
    read_claims(write(tmp_path, claim))
    with pytest.raises(ClaimError, match=rf"(?s){claim['id']}.*{message}"):
        read_claims(write(tmp_path, {**claim, **change}))


def test_what_a_claim_is_checked_with(tmp_path: Path) -> None:
    by_hand, metric, figure = read_claims(write(tmp_path, SIGN, BAND, SHOWN))
    assert [(c.page, c.metric, c.figure) for c in (by_hand, metric, figure)] == [
        ("11_x", "", ""), ("11_x", "truth.txi", ""), ("11_x", "", "dose")
    ]  # fmt: skip
    assert "own model and data" in metric.barred("tiny")
    assert by_hand.barred("gpu") == "it is checked in tiny, not in gpu"


def test_published_numbers_are_read_from_the_table() -> None:
    assert BandClaim.model_validate(BAND).expected == 5.0
    assert BandClaim.model_validate({**BAND, "reading": {**READ, "scale": 0.01}}).expected == pytest.approx(0.05)
    assert RatioClaim.model_validate(RATIO).expected == 2.5


def test_text_and_code_are_named_in_pairs(tmp_path: Path) -> None:
    text = {**IDENTITY, "id": "a.text", "counterpart": "a.code"}
    code = {**IDENTITY, "id": "a.code", "counterpart": "a.text", "source": "code"}
    write(tmp_path, text, code)
    assert load_claims(tmp_path)["a.code"].counterpart == "a.text"
    for number, wrong in enumerate(({**code, "source": "text"}, {**code, "counterpart": ""}, {**code, "id": "a.cod"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        write(folder, text, wrong)
        with pytest.raises(ClaimError, match="names a.text as its own counterpart"):
            load_claims(folder)


def test_a_recorded_number_decides() -> None:
    near = ExactClaim.model_validate({**IDENTITY, **METRIC, "equals": 2.0})
    assert judge_value(near, Value(value=2.0 - 1e-8, shown="2")).verdict is Verdict.REPRODUCED
    off = judge_value(near, Value(value=1.5, n=7, note="why", shown="2"))
    assert (off.verdict, off.estimate, off.n, off.note) == (Verdict.CONTRADICTED, 0.5, 7, "why")
    sign = SignClaim.model_validate({**SIGN, **METRIC})
    clear = judge_value(sign, Value(value=1.0, low=0.5, high=1.5, shown="1"))
    assert (clear.verdict, clear.detectable) == (Verdict.REPRODUCED, None)
    unclear = judge_value(sign, Value(value=0.5, low=-0.5, high=1.5, shown="1"))
    assert unclear.verdict is Verdict.NOT_REPRODUCED
    assert unclear.detectable == pytest.approx(1.0 * (1.960 + 0.842) / 1.960, rel=1e-3)
    with pytest.raises(ClaimError, match="coverage 0.95"):
        judge_value(sign, Value(value=1.0, shown="1"))
    with pytest.raises(ClaimError, match=r"page\.samples\('truth\.txi'"):
        judge_value(BandClaim.model_validate(BAND), Value(value=1.0, shown="1"))


def test_claims_that_need_more_than_a_number() -> None:
    with pytest.raises(ClaimError, match="a.band is a claim of kind band: got one number, expected samples"):
        verdict(BandClaim.model_validate(BAND), estimate=1.0, low=0.0, high=2.0)
    with pytest.raises(ClaimError, match="expected a figure"):
        verdict(StructureClaim.model_validate(SHOWN), estimate=1.0)


def drawn(panels: int, curves: list[str], xlabel: str) -> FigureRecord:
    lines = tuple(Artist(kind="line", label=name, points=9, data="") for name in curves)
    axes = {"title": "", "ylabel": "T*I", "scales": ("linear", "linear"), "legend": ()}
    empty = AxesRecord(**axes, xlabel="", artists=())  # type: ignore[arg-type]
    full = AxesRecord(**axes, xlabel=xlabel, artists=lines)  # type: ignore[arg-type]
    return FigureRecord(alt="", axes=(full, *[empty] * (panels - 1)))


def test_a_figure_shows_what_is_asked_or_what_it_lacks_is_named() -> None:
    claim = StructureClaim.model_validate(SHOWN)
    whole = judge_figure(claim, drawn(2, ["ours", "random push", "probe"], "Layer (block)"))
    assert (whole.verdict, whole.estimate) == (Verdict.REPRODUCED, 0)
    halved = judge_figure(claim, drawn(2, ["random push"], "layer"))
    assert (halved.verdict, halved.note) == (Verdict.NOT_REPRODUCED, "1 lines, expected at least 3")
    other = judge_figure(claim, drawn(1, ["a", "b", "c"], "strength"))
    assert other.estimate == 3
    for part in ("1 panels", "nothing labelled 'Random'", "no x axis labelled 'layer'"):
        assert part in other.note
    long = StructureClaim.model_validate({**SHOWN, "contains": {"points": 10, "ylabel": "t*i"}})
    assert judge_figure(long, drawn(1, ["a"], "")).note == "9 points on the longest line, expected at least 10"


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
    (tmp_path / "c.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ClaimError, match=r"c\.yml is not YAML"):
        read_claims(tmp_path / "c.yml")
