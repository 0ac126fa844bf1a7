"""The verdict of one number, one interval or one figure.

Knows claims and figure records; knows nothing of where a number comes from. Rules:

- `identity`, `theorem`: the deviation is within what floating point may add.
- `sign`: the whole interval, of coverage 1 - level, is on the claimed side of zero.
- `structure`: the figure holds all that the claim names. What it lacks is listed; lacking something is "not
  reproduced", for a figure has no opposite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

from steerlib.experiment.claims.schema import Claim, ClaimError, ExactClaim, SignClaim, StructureClaim, Verdict
from steerlib.experiment.records import FigureRecord, Value

POWER = 0.8  # of a detectable effect: the chance to find it


@dataclass(frozen=True)
class Finding:
    """A verdict with the figures behind it; the fields are those of `records.Check`."""

    verdict: Verdict
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    seeds: int | None = None
    p: float | None = None
    detectable: float | None = None
    note: str = ""


def verdict(claim: Claim, *, estimate: float, low: float | None = None, high: float | None = None) -> Verdict:
    """Turn a measurement into a verdict.

    Args:
        claim: what the paper says; of kind identity, theorem or sign.
        estimate: largest absolute deviation (identity, theorem) or the effect (sign).
        low: lower end of the effect's interval of coverage 1 - level; only for `sign`.
        high: its upper end.

    Raises:
        ClaimError: the quantities do not fit the kind of claim.
    """
    if not all(math.isfinite(number) for number in (estimate, low or 0.0, high or 0.0)):
        raise ClaimError(f"{claim.id}: got estimate {estimate}, low {low}, high {high}; expected finite numbers")
    if isinstance(claim, ExactClaim):
        if low is not None or high is not None or estimate < 0:
            raise ClaimError(
                f"{claim.id} is a claim of kind {claim.kind}: got estimate {estimate}, low {low}, high {high}; "
                "expected the largest absolute deviation as estimate (not negative) and no interval"
            )
        return Verdict.REPRODUCED if estimate <= claim.tolerance.absolute else Verdict.CONTRADICTED
    if not isinstance(claim, SignClaim):
        name = "a figure" if isinstance(claim, StructureClaim) else "samples"
        raise ClaimError(
            f"{claim.id} is a claim of kind {claim.kind}: got one number, expected {name}; its check names what the "
            f"page must leave behind: {claim.check}"
        )
    if low is None or high is None or not low <= estimate <= high:
        raise ClaimError(
            f"{claim.id} is a claim of kind sign: got estimate {estimate}, low {low}, high {high}; "
            f"expected low <= estimate <= high, an interval of coverage {1 - claim.tolerance.level:g}"
        )
    if claim.expects == "negative":
        low, high = -high, -low
    if low > 0:
        return Verdict.REPRODUCED
    return Verdict.CONTRADICTED if high < 0 else Verdict.NOT_REPRODUCED


def reach(low: float, high: float, *, level: float) -> float:
    """The smallest true effect that an interval of this width, and of coverage 1 - level, would find with `POWER`."""
    edge = NormalDist().inv_cdf(1 - level / 2)
    return (high - low) / 2 * (edge + NormalDist().inv_cdf(POWER)) / edge


def judge_interval(claim: SignClaim, *, estimate: float, low: float | None, high: float | None) -> Finding:
    """`verdict` of an effect, with what could have been found where nothing was."""
    found = verdict(claim, estimate=estimate, low=low, high=high)
    detectable = None
    if found is Verdict.NOT_REPRODUCED and low is not None and high is not None:
        detectable = reach(low, high, level=claim.tolerance.level)
    return Finding(found, estimate, low, high, detectable=detectable)


def judge_value(claim: Claim, value: Value) -> Finding:
    """The verdict of a recorded number: its distance from `equals`, or the side its interval is on.

    Raises:
        ClaimError: a claim that needs samples, or a sign without an interval.
    """
    if isinstance(claim, ExactClaim):
        deviation = abs(value.value - claim.equals)
        return Finding(verdict(claim, estimate=deviation), deviation, n=value.n, note=value.note)
    if isinstance(claim, SignClaim) and claim.methods is None:
        found = judge_interval(claim, estimate=value.value, low=value.low, high=value.high)
        return replace(found, n=value.n, note=value.note)
    raise ClaimError(
        f"{claim.id} is a claim of kind {claim.kind}: got one number under {claim.metric!r}, expected samples by "
        f"method; use page.samples({claim.metric!r}, {{method: array of shape (seeds, prompts)}})"
    )


def judge_figure(claim: StructureClaim, figure: FigureRecord) -> Finding:
    """The verdict of a figure: the estimate is the number of parts it lacks, and the note names them."""
    wanted = claim.contains
    drawn = [artist for axes in figure.axes for artist in axes.artists]
    lines = [artist for artist in drawn if artist.kind == "line"]
    names = [*(artist.label for artist in drawn), *(entry for axes in figure.axes for entry in axes.legend)]
    longest = max((line.points for line in lines), default=0)
    lacking = [
        f"{found} {what}, expected at least {least}"
        for what, found, least in (
            ("panels", len(figure.axes), wanted.panels),
            ("lines", len(lines), wanted.lines),
            ("points on the longest line", longest, wanted.points),
        )
        if found < least
    ]
    lacking += [f"nothing labelled {label!r}" for label in wanted.labels if not _among(label, names)]
    for axis, label in (("x", wanted.xlabel), ("y", wanted.ylabel)):
        if label and not _among(label, [getattr(axes, f"{axis}label") for axes in figure.axes]):
            lacking.append(f"no {axis} axis labelled {label!r}")
    found = Verdict.NOT_REPRODUCED if lacking else Verdict.REPRODUCED
    return Finding(found, float(len(lacking)), note="; ".join(lacking) or "the figure holds all that is asked")


def _among(text: str, labels: list[str]) -> bool:
    return any(text.casefold() in label.casefold() for label in labels)
