from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from steerlib.experiment.claims import (
    BandClaim,
    ClaimError,
    Finding,
    MonotoneClaim,
    RankClaim,
    RatioClaim,
    SampledClaim,
    SignClaim,
    Verdict,
    paired,
)
from steerlib.experiment.claims.paired import judge_samples
from steerlib.metrics import Difference
from tests.experiment.test_claims import COMMON

SEEDS, PROMPTS = 4, 60
SAMPLED = {**COMMON, "check": "notebooks/11_x metric truth.txi", "tolerance": {"level": 0.05}}
SIGN = SignClaim.model_validate(
    {**SAMPLED, "id": "a.sign", "kind": "sign", "expects": "positive", "methods": {"ours": "dom", "rivals": ["none"]}}
)
RANK = RankClaim.model_validate(
    {**SAMPLED, "id": "a.rank", "kind": "rank", "methods": {"ours": "dom", "rivals": ["none", "random", "iti"]}}
)
DOSES = ("d0", "d1", "d2", "d3", "d4")
MONOTONE = MonotoneClaim.model_validate(
    {**SAMPLED, "id": "a.dose", "kind": "monotone", "expects": "increasing", "methods": {"doses": DOSES}}
)
NUMBER = {
    **SAMPLED,
    "profiles": ["paper"],
    "plant": "big/model",
    "published": {"big": {"ours": 50.0, "base": 25.0}},
}
BAND = BandClaim.model_validate(
    {
        **NUMBER,
        "id": "a.band",
        "kind": "band",
        "methods": {"ours": "dom"},
        "reading": {"row": "big", "value": "ours", "scale": 0.01},
        "tolerance": {"level": 0.05, "within": 0.1},
    }
)
RATIO = RatioClaim.model_validate(
    {
        **NUMBER,
        "id": "a.ratio",
        "kind": "ratio",
        "methods": {"ours": "dom", "rivals": ["none"]},
        "reading": {"row": "big", "value": "ours", "over": "base"},
        "tolerance": {"level": 0.05, "factor": 1.3},
    }
)


def cloud(
    rng: np.random.Generator, *means: float, noise: float = 0.3, drift: float = 0.0, shape: tuple[int, int] = (4, 60)
) -> list[np.ndarray]:
    """Scores of several methods on prompts of very different difficulty; `drift` is what a seed adds to a method."""
    hard = rng.normal(0, 2, shape[1])
    return [m + hard + drift * rng.normal(size=(shape[0], 1)) + noise * rng.normal(size=shape) for m in means]


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for a level of 0.05, and five times as fast, for tests that judge many draws."""
    monkeypatch.setattr(paired, "RESAMPLES", 400)


def swapped(claim: SampledClaim, **change: object) -> Any:
    return type(claim).model_validate({**claim.model_dump(), **change})


def judged(claim: SampledClaim, keys: tuple[str, ...], *means: float, seed: int = 0, **options: Any) -> Finding:
    scores = cloud(np.random.default_rng(seed), *means, **options)
    return judge_samples(claim, dict(zip(keys, scores, strict=True)), plant="big/model")


def share(verdict: Verdict, draw: Callable[[int], Finding], n: int) -> float:
    return sum(draw(seed).verdict is verdict for seed in range(n)) / n


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(0.3, Verdict.REPRODUCED), (0.0, Verdict.NOT_REPRODUCED), (-0.3, Verdict.CONTRADICTED)],
)
def test_a_planted_sign_is_found(gain: float, verdict: Verdict) -> None:
    found = judged(SIGN, ("dom", "none"), gain, 0.0)
    assert found.verdict is verdict
    assert (found.n, found.seeds) == (SEEDS * PROMPTS, SEEDS)
    assert found.estimate == pytest.approx(gain, abs=0.1)
    assert found.low is not None and found.high is not None and found.p is not None
    assert found.low <= found.estimate <= found.high
    assert (found.p < 0.01) == (gain != 0)
    assert (found.detectable is None) == (verdict is not Verdict.NOT_REPRODUCED)


def test_prompts_are_paired() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = cloud(rng, 0.3, 0.0)
    alone = judge_samples(SIGN, {"dom": ours, "none": theirs})
    mixed = judge_samples(SIGN, {"dom": ours, "none": theirs[:, rng.permutation(PROMPTS)]})
    assert (alone.verdict, mixed.verdict) == (Verdict.REPRODUCED, Verdict.NOT_REPRODUCED)


def test_a_claim_of_the_other_sign_gives_the_other_verdict_on_the_same_figures() -> None:
    scores = dict(zip(("dom", "none"), cloud(np.random.default_rng(1), 0.3, 0.0), strict=True))
    up, down = judge_samples(SIGN, scores), judge_samples(swapped(SIGN, expects="negative"), scores)
    assert (up.verdict, down.verdict) == (Verdict.REPRODUCED, Verdict.CONTRADICTED)
    assert (up.estimate, up.low, up.high) == pytest.approx((down.estimate, down.low, down.high))


@pytest.mark.usefixtures("few_resamples")
def test_nothing_is_found_where_nothing_is() -> None:
    """Two-sided at 0.05: each wrong verdict has chance 0.025 at most; of 150, 10 or more have chance 0.004."""
    draws = [judged(SIGN, ("dom", "none"), 0.0, 0.0, seed=seed, drift=0.02) for seed in range(150)]
    assert sum(d.verdict is Verdict.REPRODUCED for d in draws) < 10
    assert sum(d.verdict is Verdict.CONTRADICTED for d in draws) < 10
    assert sum(d.verdict is not Verdict.NOT_REPRODUCED for d in draws) >= 1  # at this level some luck must show


def test_a_seed_that_helps_one_method_is_not_an_effect_of_the_method() -> None:
    """Every prompt agrees, and all comes from two of four seeds: the sign-flip test alone would call it certain."""
    rng = np.random.default_rng(0)
    ours, theirs = cloud(rng, 0.0, 0.0, noise=0.05)
    ours += np.array([[0.9], [-0.6], [0.7], [-0.4]])
    found = judge_samples(SIGN, {"dom": ours, "none": theirs})
    assert found.p is not None and found.p < 0.01
    assert found.verdict is Verdict.NOT_REPRODUCED


@pytest.mark.usefixtures("few_resamples")
def test_where_seeds_decide_everything_five_of_them_are_five_observations() -> None:
    """A bootstrap of five seeds alone errs in some 15 of 100 such worlds; at 0.05, 13 or more of 120 are rare."""
    draws = [judged(SIGN, ("dom", "none"), 0.0, 0.0, seed=seed, drift=0.5, shape=(5, 30)) for seed in range(120)]
    assert sum(d.verdict is not Verdict.NOT_REPRODUCED for d in draws) <= 12


def test_the_interval_of_a_two_way_layout_by_hand() -> None:
    """Rows 0 and 2 without noise: the variance of the mean is 2 / 2, with one degree of freedom (t = 12.706)."""
    gaps = np.array([[0.0, 0.0, 0.0], [2.0, 2.0, 2.0]])
    assert paired._two_way(gaps, 0.05) == pytest.approx(12.706, rel=1e-4)
    columns = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])  # variance 1 / 3, two degrees of freedom (t = 4.303)
    assert paired._two_way(columns, 0.05) == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert paired._two_way(gaps[:1], 0.05) == paired._two_way(np.ones((2, 3)), 0.05) == 0


@pytest.mark.usefixtures("few_resamples")
def test_the_detectable_effect_is_detected_four_times_in_five() -> None:
    typical = judged(SIGN, ("dom", "none"), 0.0, 0.0, shape=(1, 50)).detectable
    assert typical is not None
    found = share(
        Verdict.REPRODUCED, lambda seed: judged(SIGN, ("dom", "none"), typical, 0.0, seed=seed, shape=(1, 50)), 100
    )
    assert 0.65 <= found <= 0.95


def test_beating_all_takes_beating_each() -> None:
    keys = RANK.keys
    assert judged(RANK, keys, 0.5, 0.0, 0.1, 0.2).verdict is Verdict.REPRODUCED
    tied = judged(RANK, keys, 0.5, 0.0, 0.1, 0.5)
    assert tied.verdict is Verdict.NOT_REPRODUCED
    assert "dom against iti" in tied.note and tied.note.endswith("not beaten: iti")
    assert tied.detectable is not None
    beaten = judged(RANK, keys, 0.5, 0.0, 0.1, 0.9)
    assert beaten.verdict is Verdict.CONTRADICTED
    assert beaten.estimate == pytest.approx(-0.4, abs=0.1)
    assert "other way: iti" in beaten.note
    assert judged(swapped(RANK, expects="negative"), keys, -0.5, 0.0, 0.1, 0.2).verdict is Verdict.REPRODUCED


def test_the_strongest_rival_gives_the_figures() -> None:
    scores = dict(zip(RANK.keys, cloud(np.random.default_rng(0), 0.5, 0.0, 0.1, 0.3), strict=True))
    sign = swapped(SIGN, methods={"ours": "dom", "rivals": ["iti"]})
    whole, alone = judge_samples(RANK, scores), judge_samples(sign, scores)
    assert (whole.estimate, whole.low, whole.high) == (alone.estimate, alone.low, alone.high)


def test_the_p_value_of_beating_all_is_the_largest() -> None:
    scores = dict(zip(RANK.keys, cloud(np.random.default_rng(0), 0.2, 0.0, 0.1, 0.12), strict=True))
    single = [
        judge_samples(swapped(SIGN, methods={"ours": "dom", "rivals": [rival]}), scores).p for rival in RANK.keys[1:]
    ]
    assert judge_samples(RANK, scores).p == max(p for p in single if p is not None) > min(p for p in single if p)


def test_holm_guards_a_contradiction_and_not_a_reproduction(monkeypatch: pytest.MonkeyPatch) -> None:
    """One loss at p = 0.03 among three is not significant after Holm; three wins at 0.03 each are enough."""

    def at(value: float, p: float) -> Difference:
        return Difference(value, value - 0.1, value + 0.1, p, 9)

    scores = dict(zip(RANK.keys, cloud(np.random.default_rng(0), 0.0, 0.0, 0.0, 0.0), strict=True))

    def verdict(*found: Difference) -> Verdict:
        queue = iter(found)
        monkeypatch.setattr(paired, "_difference", lambda *_: next(queue))
        return judge_samples(RANK, scores).verdict

    assert verdict(at(0.2, 0.03), at(0.2, 0.03), at(0.2, 0.03)) is Verdict.REPRODUCED
    assert verdict(at(0.2, 0.03), at(0.2, 0.03), at(-0.2, 0.03)) is Verdict.NOT_REPRODUCED
    assert verdict(at(0.2, 0.03), at(0.2, 0.03), at(-0.2, 0.01)) is Verdict.CONTRADICTED


@pytest.mark.usefixtures("few_resamples")
def test_equal_methods_are_seldom_ranked() -> None:
    draws = [judged(RANK, RANK.keys, 0.0, 0.0, 0.0, 0.0, seed=seed, shape=(2, 40)) for seed in range(80)]
    assert sum(d.verdict is Verdict.REPRODUCED for d in draws) <= 2  # all three by luck: far below the level
    assert sum(d.verdict is Verdict.CONTRADICTED for d in draws) <= 7  # any of three, corrected: 0.05 of 80 at most


@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        ((0.0, 0.1, 0.2, 0.3, 0.4), Verdict.REPRODUCED),
        ((0.0, 0.4, 0.5, 0.5, 0.5), Verdict.REPRODUCED),  # levels off
        ((0.0, 0.0, 0.0, 0.0, 0.6), Verdict.REPRODUCED),  # late
        ((0.0, 0.0, 0.0, 0.0, 0.0), Verdict.NOT_REPRODUCED),  # flat
        ((0.3, 0.0, 0.0, 0.4, 0.9), Verdict.CONTRADICTED),  # a U, whose slope is clearly positive
        ((0.0, 0.5, 0.9, 0.9, 0.4), Verdict.CONTRADICTED),  # past its peak
        ((0.4, 0.3, 0.2, 0.1, 0.0), Verdict.CONTRADICTED),
    ],
    ids=["straight", "saturating", "late", "flat", "u", "peak", "falling"],
)
def test_what_rises(curve: tuple[float, ...], verdict: Verdict) -> None:
    assert judged(MONOTONE, DOSES, *curve, noise=0.2).verdict is verdict
    fallen = swapped(MONOTONE, expects="decreasing")
    assert judged(fallen, DOSES, *(-x for x in curve), noise=0.2).verdict is verdict


def test_the_turn_is_named_and_the_slope_is_in_the_units_of_the_score() -> None:
    found = judged(MONOTONE, DOSES, 0.0, 0.1, 0.2, 0.3, 0.4, noise=0.05)
    assert found.estimate == pytest.approx(0.1, abs=0.02)
    assert "d2 to d4" in judged(MONOTONE, DOSES, 0.0, 0.5, 0.9, 0.9, 0.4).note
    falling = judged(swapped(MONOTONE, expects="decreasing"), DOSES, 0.4, 0.3, 0.2, 0.1, 0.0, noise=0.05)
    assert falling.estimate == pytest.approx(-0.1, abs=0.02)
    assert falling.low is not None and falling.high is not None and falling.low < falling.high < 0


def test_a_doubtful_turn_withholds_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that is significant alone, but not after Holm, leaves neither verdict."""
    real = paired.holm
    curve = (0.0, 0.3, 0.6, 0.9, 0.7)
    assert judged(MONOTONE, DOSES, *curve).verdict is Verdict.CONTRADICTED
    monkeypatch.setattr(paired, "holm", lambda p: np.ones_like(real(p)))
    found = judged(MONOTONE, DOSES, *curve)
    assert found.verdict is Verdict.NOT_REPRODUCED
    assert "seems to turn from d3 to d4" in found.note


@pytest.mark.usefixtures("few_resamples")
def test_a_flat_curve_is_seldom_called_a_rise_or_a_turn() -> None:
    draws = [judged(MONOTONE, DOSES, 0, 0, 0, 0, 0, seed=seed, shape=(2, 40)) for seed in range(40)]
    assert sum(d.verdict is Verdict.REPRODUCED for d in draws) <= 4
    assert sum(d.verdict is Verdict.CONTRADICTED for d in draws) <= 6


@pytest.mark.parametrize(
    ("mean", "noise", "verdict"),
    [
        (0.52, 0.1, Verdict.REPRODUCED),
        (0.5, 3.0, Verdict.NOT_REPRODUCED),  # right, and much too wide to say so
        (0.61, 0.1, Verdict.NOT_REPRODUCED),  # across the border
        (0.9, 0.1, Verdict.CONTRADICTED),
        (0.1, 0.1, Verdict.CONTRADICTED),
    ],
)
def test_bands(mean: float, noise: float, verdict: Verdict) -> None:
    grid = mean + noise * np.random.default_rng(0).normal(size=(4, 60))
    found = judge_samples(BAND, {"dom": grid - grid.mean() + mean}, plant="big/model")
    assert found.verdict is verdict
    assert "published 0.5" in found.note
    assert (found.detectable is None) == (verdict is not Verdict.NOT_REPRODUCED)


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [
        (2.0, Verdict.REPRODUCED),
        (2.6, Verdict.NOT_REPRODUCED),
        (1.0, Verdict.CONTRADICTED),
        (4.0, Verdict.CONTRADICTED),
    ],
)
def test_ratios(factor: float, verdict: Verdict) -> None:
    base = np.random.default_rng(0).uniform(0.5, 1.5, size=(4, 60))
    noisy = factor * base + 0.2 * np.random.default_rng(1).normal(size=base.shape)
    found = judge_samples(RATIO, {"dom": noisy, "none": base}, plant="big/model")
    assert found.verdict is verdict
    assert found.estimate == pytest.approx(factor, abs=0.1)
    exact = judge_samples(RATIO, {"dom": factor * base, "none": base}, plant="big/model")
    assert (exact.low, exact.high) == pytest.approx((factor, factor))  # drawn together, the spread cancels


def test_a_ratio_to_nothing_has_no_interval() -> None:
    ones, rare = np.ones((1, 30)), np.zeros((1, 30))
    rare[0, 3] = 1.0  # many resamples hold none
    for below in (np.zeros((1, 30)), rare):
        found = judge_samples(RATIO, {"dom": ones, "none": below}, plant="big/model")
        assert found.verdict is Verdict.CANNOT_CHECK
        assert "no interval" in found.note


def test_a_number_of_another_model_is_not_compared() -> None:
    found = judge_samples(BAND, {"dom": np.full((4, 60), 0.5)}, plant="small/model")
    assert found.verdict is Verdict.CANNOT_CHECK
    assert "published for big/model, and small/model was run" in found.note


def test_too_few_seeds() -> None:
    claim = swapped(SIGN, tolerance={"level": 0.05, "seeds": 5, "paired": True})
    found = judged(claim, ("dom", "none"), 0.5, 0.0)
    assert (found.verdict, found.note) == (Verdict.CANNOT_CHECK, "it needs 5 seeds and 4 were run")


def test_methods_that_are_not_there() -> None:
    with pytest.raises(ClaimError, match=r"a\.rank: its methods random, iti are not among .*'truth.txi'.* dom, none"):
        judge_samples(RANK, {"dom": np.zeros((2, 3)), "none": np.zeros((2, 3))})


def test_equal_scores_are_no_effect() -> None:
    same = np.random.default_rng(0).normal(size=(3, 20))
    found = judge_samples(SIGN, {"dom": same, "none": same.copy()})
    assert (found.verdict, found.estimate, found.p) == (Verdict.NOT_REPRODUCED, 0.0, 1.0)
