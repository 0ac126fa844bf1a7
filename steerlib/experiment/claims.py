"""Claims of the papers as data, and the rules that turn a measurement into a verdict.

Knows the schema of `data/claims/*.yml` and the kinds of claim that are checked today; knows nothing of how
the measurement was made. Kinds:

- `identity`, `theorem`: an exact statement. The estimate is the largest deviation from it, and the
  tolerance is what floating point may add.
- `sign`: a direction of an effect. The estimate has an interval of coverage 1 - level; the verdict
  needs the whole interval on one side of zero.
"""

from __future__ import annotations

import math
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from steerlib.files import data_folder


#: What the suite can be run on, cheapest first.
PROFILES = ("tiny", "gpu", "paper")


class ClaimError(ValueError):
    """A claim that is unknown, malformed, or checked with the wrong quantities."""


class Verdict(StrEnum):
    """What a check can say."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    CONTRADICTED = "contradicted"
    CANNOT_CHECK = "cannot be checked in this profile"
    NOT_RUN = "not run"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExactTolerance(_Strict):
    """Largest deviation that floating point may cause."""

    absolute: Annotated[float, Field(gt=0)]


class PairedTolerance(_Strict):
    """Level of the test; the interval handed to the check has coverage 1 - level."""

    level: Annotated[float, Field(gt=0, lt=0.5)]


class _Claim(_Strict):
    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(\.[a-z0-9-]+)+$")]
    paper: str
    where: str
    says: Annotated[str, Field(min_length=20)]
    published: dict[str, dict[str, float]] = {}
    check: Annotated[str, Field(pattern=r"^notebooks/\d\d_[a-z0-9_]+$")]
    profiles: Annotated[tuple[Literal["tiny", "gpu", "paper"], ...], Field(min_length=1)]
    origin: str = ""

    @property
    def page(self) -> str:
        """Stem of the notebook that checks the claim."""
        return self.check.removeprefix("notebooks/")

    def barred(self, profile: str) -> str:
        """Why the claim is not checked in a profile that is not among its own."""
        return f"it is checked in {', '.join(self.profiles)}, not in {profile}"

    @field_validator("says")
    @classmethod
    def _sentence(cls, text: str) -> str:
        return " ".join(text.split())


class ExactClaim(_Claim):
    """An identity or a theorem: holds exactly, on every profile."""

    kind: Literal["identity", "theorem"]
    tolerance: ExactTolerance


class SignClaim(_Claim):
    """An effect with a direction."""

    kind: Literal["sign"]
    expects: Literal["positive", "negative"]
    tolerance: PairedTolerance


Claim = ExactClaim | SignClaim
_FILE: TypeAdapter[list[Claim]] = TypeAdapter(list[Annotated[ExactClaim | SignClaim, Field(discriminator="kind")]])


def read_claims(path: Path) -> list[Claim]:
    """Read one file of claims.

    Raises:
        ClaimError: not YAML, a field missing, misspelt or out of range; names file, claim and field.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ClaimError(f"{path.name} is not YAML: {error}") from error
    if not isinstance(raw, list):
        raise ClaimError(f"{path.name}: got {type(raw).__name__}, expected a list of claims")
    try:
        return _FILE.validate_python(raw)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            index, *field = problem["loc"]
            item = raw[index] if isinstance(index, int) else {}
            name = item.get("id", f"claim {index}") if isinstance(item, dict) else f"claim {index}"
            lines.append(f"  {name}: {'.'.join(map(str, field)) or 'claim'}: {problem['msg']}")
        raise ClaimError("\n".join([f"{path.name} does not hold claims as the suite knows them:", *lines])) from error


def load_claims(folder: Path | None = None) -> dict[str, Claim]:
    """All claims by id, from `data/claims` unless another folder is named.

    Raises:
        ClaimError: a malformed file, or an id used twice.
    """
    return dict(_load(folder or data_folder() / "claims"))


@cache
def _load(folder: Path) -> dict[str, Claim]:
    claims: dict[str, Claim] = {}
    for path in sorted(folder.glob("*.yml")):
        for claim in read_claims(path):
            if claim.id in claims:
                raise ClaimError(f"{path.name}: the id {claim.id!r} is used twice; ids are unique over all files")
            claims[claim.id] = claim
    return claims


def verdict(claim: Claim, *, estimate: float, low: float | None = None, high: float | None = None) -> Verdict:
    """Turn a measurement into a verdict.

    Args:
        claim: what the paper says.
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
