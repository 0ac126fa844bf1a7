"""Verdicts from scores by method, seed and prompt: paired tests, and comparisons with published numbers.

Knows arrays of shape (seeds, prompts) and the claims that such arrays decide; knows nothing of pages or models.

Two methods differ when the interval of their paired difference, which draws prompts and seeds anew, leaves zero out,
and the p-value of flipping the sign of each prompt's difference is at most the level. Both are asked for: the
p-value takes the seeds as given, the interval does not. A bootstrap of a handful of seeds is too narrow, for it has no
t-quantile; so the interval is the wider of the bootstrap and that of a two-way layout with random seeds and prompts.
Tests are two-sided, so each direction is found by luck in at most half of the level. Then:

- `sign`: the difference has the claimed sign.
- `rank`: each difference has. All must, so each is tested at the level without a correction (an intersection-union
  test; Berger 1982); one that is the other way contradicts the claim, so there Holm's correction applies.
- `monotone`: the slope of the score over the order of the doses has the claimed sign, and no dose is
  significantly past a later one. The first alone would call a U a rise; a curve that levels off has no turn and
  passes. A turn that survives Holm's correction over all pairs contradicts the claim. The slope is a contrast of the
  doses' order, positive for every rising curve, straight or not.
- `ratio`, `band`: the whole interval is inside the published number's tolerance, or wholly outside it; an interval that
  reaches over the border decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
from scipy import stats

from steerlib.experiment.claims.rules import POWER, Finding, reach
from steerlib.experiment.claims.schema import (
    BandClaim,
    ClaimError,
    MonotoneClaim,
    RankClaim,
    RatioClaim,
    SampledClaim,
    SignClaim,
    Verdict,
)
from steerlib.metrics.differences import Difference, detectable_effect, holm, paired_grid_difference
from steerlib.metrics.intervals import grid_interval

RESAMPLES = 2000


def judge_samples(claim: SampledClaim, samples: Mapping[str, np.ndarray], *, plant: str = "") -> Finding:
    """The verdict of a claim from scores.

    Args:
        claim: what the paper says.
        samples: by method, scores of shape (seeds, prompts); more methods than the claim names are no matter.
        plant: the model that was run; a published number is compared only on its own.

    Raises:
        ClaimError: a method that the samples do not hold.
    """
    if lacking := [key for key in claim.keys if key not in samples]:
        raise ClaimError(
            f"{claim.id}: its methods {', '.join(lacking)} are not among the samples of {claim.metric!r}, which are "
            f"{', '.join(samples)}; use the same keys in data/claims and in page.samples"
        )
    if not claim.keys:
        raise ClaimError(f"{claim.id}: got samples, but it names no methods; add methods to it in data/claims")
    grids = {key: samples[key] for key in claim.keys}
    seeds, prompts = grids[claim.keys[0]].shape
    needed = claim.tolerance.seeds
    if seeds < needed:
        return Finding(Verdict.CANNOT_CHECK, seeds=seeds, note=f"it needs {needed} seeds and {seeds} were run")
    if isinstance(claim, RatioClaim | BandClaim):
        if plant != claim.plant:
            why = f"the number was published for {claim.plant}, and {plant or 'another plant'} was run"
            return Finding(Verdict.CANNOT_CHECK, seeds=seeds, note=why)
        found = _ratio(claim, grids) if isinstance(claim, RatioClaim) else _band(claim, grids)
    elif isinstance(claim, MonotoneClaim):
        found = _monotone(claim, grids)
    elif isinstance(claim, SignClaim | RankClaim):
        found = _beats(claim, grids)
    else:
        raise ClaimError(f"{claim.id}: claims of kind {type(claim).__name__} are not judged from samples")
    return replace(found, n=seeds * prompts, seeds=seeds)


def _difference(treated: np.ndarray, control: np.ndarray, level: float) -> Difference:
    """The paired difference, with the wider of two intervals."""
    found = paired_grid_difference(treated, control, level=1 - level, resamples=RESAMPLES)
    half = _two_way(treated - control, level)
    return replace(found, low=min(found.low, found.value - half), high=max(found.high, found.value + half))


def _two_way(gaps: np.ndarray, level: float) -> float:
    """Half-width of the mean's interval in a two-way layout: random seeds, random prompts, and what is left.

    The variance of the mean is what the row means and the column means say, less the noise that both hold; its degrees
    of freedom are Satterthwaite's. One seed says nothing about seeds, and gets 0.
    """
    seeds, prompts = gaps.shape
    if seeds == 1:
        return 0.0
    rows, columns = gaps.mean(1), gaps.mean(0)
    by_seed, by_prompt = rows.var(ddof=1) / seeds, columns.var(ddof=1) / prompts
    rest = gaps - rows[:, None] - columns + gaps.mean()
    noise = (rest**2).sum() / ((seeds - 1) * (prompts - 1) * seeds * prompts)
    variance = max(by_seed + by_prompt - noise, by_seed, by_prompt)
    if variance == 0:
        return 0.0
    freedom = (by_seed + by_prompt) ** 2 / (by_seed**2 / (seeds - 1) + by_prompt**2 / (prompts - 1))
    return float(stats.t.ppf(1 - level / 2, freedom) * np.sqrt(variance))


def _side(difference: Difference, level: float, p: float | None = None) -> int:
    """1 or -1 where the difference is significant, otherwise 0."""
    if (difference.p if p is None else p) > level:
        return 0
    return 1 if difference.low > 0 else -1 if difference.high < 0 else 0


def _detectable(gaps: np.ndarray, low: float, high: float, level: float) -> float:
    """Smallest effect that would be found: the larger of what the spread over prompts and the interval say."""
    return max(detectable_effect(gaps.mean(0), level=level, power=POWER), reach(low, high, level=level))


def _beats(claim: SignClaim | RankClaim, grids: Mapping[str, np.ndarray]) -> Finding:
    """Sign and rank: our method against each rival."""
    ours, *rivals = claim.keys
    level = claim.tolerance.level
    turn = 1 if claim.expects == "positive" else -1  # from here on, larger is what the claim says
    gaps = [turn * (grids[ours] - grids[rival]) for rival in rivals]
    found = [_difference(gap, np.zeros_like(gap), level) for gap in gaps]
    # Against the claim, as one-sided tests at half the level would be: only what points the other way counts.
    against = holm([d.p if d.value < 0 else 1.0 for d in found])
    worse = [name for name, d, p in zip(rivals, found, against, strict=True) if _side(d, level, p) < 0]
    open_ = [i for i, d in enumerate(found) if _side(d, level) <= 0]
    hardest = min(range(len(rivals)), key=lambda i: found[i].value)
    nearest = found[hardest]
    low, high = sorted((turn * nearest.low, turn * nearest.high))
    base = Finding(Verdict.NOT_REPRODUCED, turn * nearest.value, low, high)
    name = f"{ours} against {rivals[hardest]}, the strongest rival" if len(rivals) > 1 else ""
    if worse:
        note = f"{name}; significantly the other way: {', '.join(worse)}" if name else ""
        return replace(base, verdict=Verdict.CONTRADICTED, p=float(against.min()), note=note)
    p = max(d.p if d.value > 0 else 1.0 for d in found)
    if not open_:
        return replace(base, verdict=Verdict.REPRODUCED, p=p, note=name)
    detectable = max(_detectable(gaps[i], found[i].low, found[i].high, level) for i in open_)
    note = f"{name}; not beaten: {', '.join(rivals[i] for i in open_)}" if name else ""
    return replace(base, p=p, detectable=detectable, note=note)


def _monotone(claim: MonotoneClaim, grids: Mapping[str, np.ndarray]) -> Finding:
    """The slope over the order of the doses, and every pair of doses that is the wrong way round."""
    level, doses = claim.tolerance.level, claim.keys
    turn = 1 if claim.expects == "increasing" else -1
    curve = turn * np.stack([grids[dose] for dose in doses])  # (doses, seeds, prompts)
    order = np.arange(len(doses)) - (len(doses) - 1) / 2
    slopes = np.tensordot(order / (order**2).sum(), curve, axes=1)  # change of score for one dose more, by cell
    trend = _difference(slopes, np.zeros_like(slopes), level)
    pairs = list(combinations(range(len(doses)), 2))
    turns = {
        (i, j): _difference(curve[j], curve[i], level) for i, j in pairs if curve[j].mean() < curve[i].mean()
    }  # the other pairs are in order and cannot speak against the claim
    corrected = dict(zip(pairs, holm([turns[pair].p if pair in turns else 1.0 for pair in pairs]), strict=True))
    firm = [pair for pair, d in turns.items() if _side(d, level, corrected[pair]) < 0]
    loose = [pair for pair, d in turns.items() if _side(d, level) < 0]
    low, high = sorted((turn * trend.low, turn * trend.high))
    base = Finding(Verdict.NOT_REPRODUCED, turn * trend.value, low, high)
    unit = "slope for each dose"
    if firm:
        named = ", ".join(f"{doses[i]} to {doses[j]}" for i, j in firm)
        p = min(float(corrected[pair]) for pair in firm)
        return replace(base, verdict=Verdict.CONTRADICTED, p=p, note=f"{unit}; it turns from {named}")
    if _side(trend, level) > 0 and not loose:
        return replace(base, verdict=Verdict.REPRODUCED, p=trend.p, note=unit)
    doubt = f"; it seems to turn from {', '.join(f'{doses[i]} to {doses[j]}' for i, j in loose)}" if loose else ""
    detectable = _detectable(slopes, trend.low, trend.high, level)
    p = trend.p if trend.value > 0 else 1.0
    return replace(base, p=p, detectable=detectable, note=unit + doubt)


def _band(claim: BandClaim, grids: Mapping[str, np.ndarray]) -> Finding:
    ours = grid_interval(grids[claim.methods.ours], level=1 - claim.tolerance.level, resamples=RESAMPLES)
    span = (claim.expected - claim.tolerance.within, claim.expected + claim.tolerance.within)
    return _inside(ours.value, ours.low, ours.high, span, claim)


def _ratio(claim: RatioClaim, grids: Mapping[str, np.ndarray]) -> Finding:
    """Ratio of means; prompts and seeds are drawn anew for both methods together, as `grid_interval` does for one."""
    above, below = (grids[key] for key in claim.keys)
    seeds, prompts = above.shape
    rng = np.random.default_rng(0)
    rows = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    columns = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=RESAMPLES)
    tops, bottoms = (((rows @ grid) * columns).sum(1) for grid in (above, below))
    if below.mean() <= 0 or bottoms.min() <= 0:
        why = f"the mean of {claim.keys[1]} is {below.mean():.3g}, so near zero that the ratio has no interval"
        return Finding(Verdict.CANNOT_CHECK, note=why)
    level = claim.tolerance.level
    value = float(above.mean() / below.mean())
    low, high = np.quantile(tops / bottoms, [level / 2, 1 - level / 2])
    span = (claim.expected / claim.tolerance.factor, claim.expected * claim.tolerance.factor)
    return _inside(value, min(float(low), value), max(float(high), value), span, claim)


def _inside(value: float, low: float, high: float, span: tuple[float, float], claim: RatioClaim | BandClaim) -> Finding:
    note = f"published {claim.expected:.4g}; agreement is between {span[0]:.4g} and {span[1]:.4g}"
    if span[0] <= low and high <= span[1]:
        return Finding(Verdict.REPRODUCED, value, low, high, note=note)
    if high < span[0] or low > span[1]:
        return Finding(Verdict.CONTRADICTED, value, low, high, note=note)
    detectable = reach(low, high, level=claim.tolerance.level)
    return Finding(Verdict.NOT_REPRODUCED, value, low, high, detectable=detectable, note=note)
