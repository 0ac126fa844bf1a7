"""Reading `data/claims/*.yml`.

Knows files and what can be wrong with them; knows nothing of what a claim means.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from steerlib.experiment.claims.schema import Claim, ClaimError
from steerlib.files import data_folder

_FILE: TypeAdapter[list[Claim]] = TypeAdapter(list[Annotated[Claim, Field(discriminator="kind")]])


def read_claims(path: Path) -> list[Claim]:
    """Read one file of claims.

    Raises:
        ClaimError: not readable, not YAML, a field missing, misspelt or out of range; names file, claim and field.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
        ClaimError: a malformed file, an id used twice, or a counterpart that does not exist.
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
    for claim in claims.values():
        other = claims.get(claim.counterpart)
        if claim.counterpart and (other is None or other.source == claim.source or other.counterpart != claim.id):
            raise ClaimError(
                f"{claim.id}: got counterpart {claim.counterpart!r}, expected a claim with the other source that names "
                f"{claim.id} as its own counterpart"
            )
    return claims
