"""Reading `data/claims/*.yml`.

Knows files and what can be wrong with them; knows nothing of what a claim means.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from steerlib.experiment.claims.schema import Claim, ClaimError
from steerlib.experiment.yaml_files import problems, read_yaml
from steerlib.files import data_folder

_FILE: TypeAdapter[list[Claim]] = TypeAdapter(list[Annotated[Claim, Field(discriminator="kind")]])


def read_claims(path: Path) -> list[Claim]:
    """Read one file of claims.

    Raises:
        ClaimError: not readable, not YAML, a field missing, misspelt or out of range; names file, claim and field.
    """
    raw = read_yaml(path, wrong=ClaimError, expected="claims such as data/claims/odesteer.yml", name=path.name)
    if not isinstance(raw, list):
        raise ClaimError(f"{path.name}: got {type(raw).__name__}, expected a list of claims")

    def named(index: int | str) -> str:
        item = raw[index] if isinstance(index, int) else {}
        return item.get("id", f"claim {index}") if isinstance(item, dict) else f"claim {index}"

    try:
        return _FILE.validate_python(raw)
    except ValidationError as error:
        told = problems(error, whole="claim", entry=named)
        raise ClaimError(f"{path.name} does not hold claims as the suite knows them:\n{told}") from error


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
