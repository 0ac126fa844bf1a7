"""The file of a race's calibrations, shipped beside its records.

Knows the format. Knows nothing about how a race is run or what becomes of it.

`data/reference/<profile>/races/<race>.json.gz` holds a checksum and, after it, one JSON object: what each course was
run with, and every calibration, each with the key of all that decided it.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from steerlib.experiment.calibrate import Calibration, Status
from steerlib.experiment.cells import Cell, _Data, canonical
from steerlib.experiment.race_plan import RacePlan
from steerlib.experiment.racing import Ready
from steerlib.experiment.records import Finite
from steerlib.experiment.shipped import ShippedError, how_to_restore, read_zipped, write_zipped
from steerlib.experiment.written import sealed, unsealed
from steerlib.files import data_folder

SCHEMA, SUFFIX = 1, ".json.gz"
#: Digits of the costs that a search saw on its way; those of what it found are kept whole.
DIGITS = 4


class Spent(_Data):
    """A calibration as it is shipped.

    Attributes:
        cell: what was searched, at the multiplier where the search began.
        key: see `calibrations.calibration_key`.
        status: how it ended.
        strength: the multiplier that was found.
        cost: what it costs.
        target: the budget.
        tried: what was looked at; a cost that is not finite is null.
        message: why the budget was missed, "" otherwise.
    """

    cell: Cell
    key: str
    status: Status
    strength: Finite
    cost: Finite
    target: Finite
    tried: tuple[tuple[Finite, Finite | None], ...]
    message: str = ""

    @classmethod
    def of(cls, cell: Cell, key: str, found: Calibration) -> Spent:
        """What is shipped of a calibration."""
        tried = tuple(
            (size, float(f"{cost:.{DIGITS}g}") if math.isfinite(cost) else None) for size, cost in found.tried
        )
        return cls(
            cell=cell, key=key, status=found.status, strength=found.strength, cost=found.cost, target=found.target,
            tried=tried, message=found.message,
        )  # fmt: skip

    @property
    def calibration(self) -> Calibration:
        """As it was found, but for the last digits of costs on the way."""
        tried = tuple((size, math.inf if cost is None else cost) for size, cost in self.tried)
        return Calibration(self.status, self.strength, self.cost, self.target, tried, self.message)


class ShippedRace(_Data):
    """What is shipped of a race besides its records.

    Attributes:
        race: stem of its file in `data/races`.
        plan: hash of the race's content; another plan asks for other cells.
        courses: what each course was run with, by title.
        spent: every calibration that the race looked at.
    """

    schema_version: Literal[1] = SCHEMA
    race: str
    plan: str
    courses: dict[str, Ready]
    spent: tuple[Spent, ...]


def plan_hash(plan: RacePlan) -> str:
    """Hash of a race's content; comments and order of keys in its file do not count."""
    return hashlib.sha256(canonical(plan).encode()).hexdigest()


def race_path(race: str, *, profile: str) -> Path:
    """Where the calibrations of a race are shipped."""
    return data_folder() / "reference" / profile / "races" / f"{race}{SUFFIX}"


def write_shipped_race(path: str | Path, race: ShippedRace) -> None:
    """Write it; equal races are equal files.

    Raises:
        StoreError: if the file cannot be written.
        DiskFullError: if the disk is full; a file that was there before is untouched.
    """
    write_zipped(Path(path), sealed(race))


def read_shipped_race(path: str | Path) -> ShippedRace:
    """Read what `ship_race` wrote beside the records.

    Raises:
        ShippedError: absent, damaged, or of another schema.
    """
    file = Path(path)
    run = f"steerlib run data/races/{file.name.removesuffix(SUFFIX)}.yml --ship {file.parent.parent.name}"
    body = unsealed(read_zipped(file, what="race", fix=f"`{run}` computes and writes it").encode())
    again = how_to_restore(file)
    if body is None:
        raise ShippedError(f"{file} was altered: its content does not have the checksum it names. {again}")
    version = json.loads(body).get("schema_version")
    if version != SCHEMA:
        raise ShippedError(f"{file}: got a race of schema {version!r}, expected {SCHEMA}. {again}")
    try:
        return ShippedRace.model_validate_json(body)
    except ValidationError as error:
        raise ShippedError(f"{file} does not hold a race: {error}. {again}") from error
