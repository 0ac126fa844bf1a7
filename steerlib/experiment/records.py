"""What a notebook found, as data: values with intervals, figure structures, checks, provenance.

Knows the schema of a page's records file and how to read and write it; knows nothing of notebooks or plots.
A file holds one `PageRecord` as JSON. `SCHEMA` goes up by one when a field changes its meaning.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from steerlib.files import write_atomic

SCHEMA = 1

VerdictName = Literal["reproduced", "not reproduced", "contradicted", "cannot be checked in this profile", "not run"]


class RecordError(ValueError):
    """A records file that is absent, truncated, or of another schema."""


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"got {number}, expected a finite number; fix the computation, not the record")
    return number


Finite = Annotated[float, AfterValidator(_finite)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Value(_Model):
    """One number: `value`, its interval [`low`, `high`] if it has one, `n` observations behind it, its unit."""

    value: Finite
    low: Finite | None = None
    high: Finite | None = None
    n: int | None = None
    unit: str = ""
    note: str = ""
    shown: str


class Artist(_Model):
    """One drawn element: its kind, legend label, number of finite points, and a hash of its rounded data."""

    kind: Literal["line", "collection", "bars", "image"]
    label: str
    points: int
    data: str


class AxesRecord(_Model):
    """One panel: its labels, scales, legend entries and what is drawn in it."""

    title: str
    xlabel: str
    ylabel: str
    scales: tuple[str, str]
    legend: tuple[str, ...]
    artists: tuple[Artist, ...]


class FigureRecord(_Model):
    """The structure of a figure: enough to notice that a curve has vanished."""

    alt: str
    axes: tuple[AxesRecord, ...]


class Check(_Model):
    """A claim as checked here: verdict, our estimate with its interval, and why if it could not be checked.

    Attributes:
        claim: its id.
        verdict: what the check says.
        estimate: our measurement; what it measures depends on the kind of claim.
        low: lower end of its interval.
        high: upper end.
        n: observations behind it.
        seeds: how many seeds these came from.
        p: p-value, where a test was made; the false-discovery rate of the ledger is computed from these.
        detectable: beside "not reproduced", the smallest effect that the test would have found (power 0.8).
        records: ids of the cell records behind it.
        note: what a reader should know, or why there is no verdict.
    """

    claim: str
    verdict: VerdictName
    estimate: Finite | None = None
    low: Finite | None = None
    high: Finite | None = None
    n: int | None = None
    seeds: int | None = None
    p: Annotated[float, Field(ge=0, le=1)] | None = None
    detectable: Finite | None = None
    records: tuple[str, ...] = ()
    note: str = ""


class Samples(_Model):
    """Scores of several methods on the same seeds and prompts, compactly; see `samples.pack` and `samples.unpack`.

    Attributes:
        methods: for each method one text for each seed: the scores of all prompts, apart by spaces.
        seeds: how many.
        prompts: how many.
        records: ids of the cell records that the scores come from.
        note: what the scores are, if the name does not say.
    """

    methods: dict[str, tuple[str, ...]]
    seeds: int
    prompts: int
    records: tuple[str, ...] = ()
    note: str = ""


class Provenance(_Model):
    """Where the numbers come from. `dirty` is None when git cannot tell."""

    commit: str
    dirty: bool | None
    lock: str
    device: str
    dtype: str
    weights: str
    platform: str
    versions: dict[str, str]


class PageRecord(_Model):
    """Everything one execution of one notebook left behind. `finished` is False until its footer is drawn."""

    schema_version: Literal[1] = SCHEMA
    page: str
    profile: str
    plant: str
    seeds: tuple[int, ...]
    values: dict[str, Value] = {}
    texts: dict[str, str] = {}
    figures: dict[str, FigureRecord] = {}
    samples: dict[str, Samples] = {}
    checks: dict[str, Check] = {}
    provenance: Provenance | None = None
    started: str
    wall_s: float | None = None
    finished: bool = False


def write_record(path: Path, record: PageRecord) -> None:
    """Write a page's records atomically, with sorted keys, so that equal records are equal files."""
    write_atomic(path, json.dumps(record.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")


def read_record(path: Path) -> PageRecord:
    """Read a page's records.

    Raises:
        RecordError: absent, truncated, or of another schema; says which and how to fix it.
    """
    fix = f"Fix: delete {path} and run `make book` again, which executes the notebook anew"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"no records at {path}. {fix}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} is truncated or not JSON ({error}). {fix}") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != SCHEMA:
        raise RecordError(f"{path}: got records of schema {version!r}, expected {SCHEMA}. {fix}")
    try:
        return PageRecord.model_validate(raw)
    except ValidationError as error:
        raise RecordError(f"{path} does not hold a page's records: {error}. {fix}") from error
