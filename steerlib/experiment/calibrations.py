"""Calibrations that are kept: a race that was killed does not search again for multipliers it had found.

Knows how a calibration is written and what decides it. Knows nothing about how it is searched.

They lie in a folder beside the cell records, written and set aside when damaged as those are.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal

from pydantic import ValidationError

from steerlib.experiment.calibrate import Calibration, Status
from steerlib.experiment.cell_records import inspect
from steerlib.experiment.cells import _ROOT, _Data, _sources, canonical
from steerlib.experiment.records import Finite, RecordError
from steerlib.experiment.store import Store, writing
from steerlib.experiment.written import sealed
from steerlib.files import write_atomic

FOLDER = "calibrations"


class _Written(_Data):
    """A calibration as JSON, which has no infinity: a cost that is not finite is null."""

    schema_version: Literal[1] = 1
    key: str
    settings: dict[str, Any]
    status: Status
    strength: Finite
    cost: Finite
    target: Finite
    tried: tuple[tuple[Finite, Finite | None], ...]
    message: str


def calibration_key(settings: dict[str, Any]) -> str:
    """Content key of a search: its settings, the cell's key among them, and the sources of searching and measuring."""
    code = _sources(frozenset({"steerlib.experiment.calibrate.calibrate"}), _ROOT)
    return hashlib.sha256(canonical({"code": code, **settings}).encode()).hexdigest()


class Calibrations:
    """Calibrations in a folder inside that of a store of cell records.

    Args:
        store: of the records that they stand beside.
    """

    def __init__(self, store: Store) -> None:
        self._files = Store(store.folder / FOLDER)

    @property
    def damaged(self) -> list[str]:
        """What was set aside, and why."""
        return self._files.damaged

    def get(self, settings: dict[str, Any]) -> Calibration | None:
        """A calibration, or None if there is none; a damaged one is set aside, and counts as absent."""
        return self._files._read(calibration_key(settings), _parse)

    def put(self, settings: dict[str, Any], found: Calibration) -> None:
        """Write a calibration.

        Raises:
            StoreError: if the folder cannot be written; says where and why.
            DiskFullError: if the disk is full.
        """
        key = calibration_key(settings)
        tried = tuple((size, cost if math.isfinite(cost) else None) for size, cost in found.tried)
        made = _Written(
            key=key, settings=settings, status=found.status, strength=found.strength, cost=found.cost,
            target=found.target, tried=tried, message=found.message,
        )  # fmt: skip
        with writing(self._files.folder):
            write_atomic(self._files.path(key), sealed(made))


def _parse(content: bytes, *, key: str, name: str) -> Calibration:
    try:
        raw = _Written.model_validate_json(inspect(content, key=key, name=name))
    except ValidationError as error:
        raise RecordError(f"{name} does not hold a calibration: {error}") from error
    tried = tuple((size, math.inf if cost is None else cost) for size, cost in raw.tried)
    return Calibration(raw.status, raw.strength, raw.cost, raw.target, tried, raw.message)
