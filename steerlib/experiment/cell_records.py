"""What one cell left behind, and how it is written so that damage is noticed.

Knows the schema of a cell's record. Knows nothing about where records are kept.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import JsonValue, ValidationError

from steerlib.experiment.cells import Cell, _Data
from steerlib.experiment.records import Finite, Provenance, RecordError
from steerlib.experiment.written import sealed, unsealed

SCHEMA = 1
_SCHEMA_BYTES = f',"schema_version":{SCHEMA},"scores":{{'.encode()


class Metric(_Data):
    """One number of a cell, with its interval and the number of prompts behind it."""

    value: Finite
    low: Finite
    high: Finite
    n: int


class CellRecord(_Data):
    """Everything one cell left behind.

    Attributes:
        key: content key; see `cells.cell_key`.
        cell: what was measured.
        scores: the scores of each prompt, by name: "wanted" and "intact".
        metrics: their means and the combined score, with intervals; of a sampled cell also, by names of
            `steerlib.metrics.METRICS`, how varied the answers are, what else was judged, and, under a law, what they
            cost. Each states its `n`: the answers that it is over.
        answers: what was said, for a sampled cell; empty where only hashes are shipped.
        answers_sha256: hash of the answers; "" for an exact cell.
        seconds: wall time of measuring, without loading the plant.
        fit_seconds: wall time of fitting the law.
        memory_mb: largest memory of the GPU in this cell where there is one; else the largest resident memory that the
            process ever had, earlier cells included.
        provenance: where and with what it was computed.
        created: when, in UTC.
        parts: what decided the key besides the cell: hashes of weights, data and code, and versions; see
            `keys.present_parts`. None in records that are older, or whose file states the parts once for all.
        missing: prompt, counted from 0, -> why a judge gave no score for its answer. Its scores above are what the task
            counts such an answer as.
        more: what else was measured of each answer, such as its reward, by names of `steerlib.metrics.METRICS`; None
            where there is nothing.
        counted: what the answers of a decoder cost, by the fields of `steerlib.decoding.base.Cost` that are counts;
            empty without a decoder.
    """

    later = frozenset({"parts", "missing", "more", "counted"})

    schema_version: Literal[1] = SCHEMA
    key: str
    cell: Cell
    scores: dict[str, tuple[Finite, ...]]
    metrics: dict[str, Metric]
    answers: tuple[str, ...] = ()
    answers_sha256: str = ""
    seconds: Finite
    fit_seconds: Finite
    memory_mb: Finite
    provenance: Provenance
    created: str
    parts: dict[str, JsonValue] | None = None
    missing: dict[int, str] = {}
    more: dict[str, tuple[Finite | None, ...]] = {}
    counted: dict[str, int] = {}

    def without_answers(self) -> CellRecord:
        """The compact form that is shipped: scores of every prompt, and a hash of what was said."""
        return self.model_copy(update={"answers": ()})


def hash_of(texts: tuple[str, ...]) -> str:
    """Hash of answers, in order."""
    return hashlib.sha256(json.dumps(texts, ensure_ascii=False).encode()).hexdigest()


def dump(record: CellRecord) -> str:
    """A record as text: its checksum on the first line, the record on the second."""
    return sealed(record)


def inspect(content: bytes, *, key: str, name: str) -> bytes:
    """The body of a written record, once its bytes are known to be whole, of this key and of this schema.

    Nothing is parsed unless something is wrong.

    Raises:
        RecordError: truncated, altered, or the record of another key or another schema; names the file.
    """
    body = unsealed(content)
    if body is None:
        raise RecordError(f"{name} is truncated or was altered: its content does not have the checksum it names")
    # The text is canonical, and quotes within strings are escaped, so that this cannot be part of an answer.
    if f'"key":"{key}"'.encode() not in body:
        raise RecordError(f"{name} holds the record of another key")
    # Likewise; keys are sorted, so that the schema of the record itself stands before its scores.
    if _SCHEMA_BYTES not in body:
        version = _version(body, name)
        if version != SCHEMA:
            raise RecordError(f"{name}: got a record of schema {version!r}, expected {SCHEMA}")
    return body


def _version(body: bytes, name: str) -> object:
    try:
        return json.loads(body)["schema_version"]
    except (ValueError, TypeError, KeyError):
        raise RecordError(f"{name} does not hold the record of a cell: it names no schema") from None


def parse(content: bytes, *, key: str, name: str) -> CellRecord:
    """Read a written record.

    Raises:
        RecordError: truncated, altered, of another key, or of another schema; names the file.
    """
    try:
        return CellRecord.model_validate(json.loads(inspect(content, key=key, name=name)))
    except ValidationError as error:
        raise RecordError(f"{name} does not hold the record of a cell: {error}") from error
