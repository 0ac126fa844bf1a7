"""Claims of the papers as data, and the rules that turn a measurement into a verdict.

`schema` says what a claim is and `reading` reads `data/claims`; `rules` gives the verdict of an interval, a deviation
or a figure; `paired` that of scores by seed and prompt (imported where it is needed: it loads the metrics).
"""

from steerlib.experiment.claims.reading import load_claims, read_claims
from steerlib.experiment.claims.rules import Finding, judge_figure, judge_value, verdict
from steerlib.experiment.claims.schema import (
    PROFILES,
    BandClaim,
    Claim,
    ClaimError,
    ExactClaim,
    MonotoneClaim,
    PairedTolerance,
    RankClaim,
    RatioClaim,
    SampledClaim,
    SignClaim,
    StructureClaim,
    Verdict,
)

__all__ = [
    "PROFILES",
    "BandClaim",
    "Claim",
    "ClaimError",
    "ExactClaim",
    "Finding",
    "MonotoneClaim",
    "PairedTolerance",
    "RankClaim",
    "RatioClaim",
    "SampledClaim",
    "SignClaim",
    "StructureClaim",
    "Verdict",
    "judge_figure",
    "judge_value",
    "load_claims",
    "read_claims",
    "verdict",
]
