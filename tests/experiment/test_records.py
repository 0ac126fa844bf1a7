from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from steerlib.experiment.records import PageRecord, RecordError, Value, read_record, write_record

RECORD = PageRecord(
    page="11_x",
    profile="tiny",
    plant="toy",
    seeds=(0, 1),
    values={"a": Value(value=0.5, low=0.4, high=0.6, n=3, shown="0.5 [0.4, 0.6]")},
    started="2026-01-01T00:00:00+00:00",
)


def test_round_trip(tmp_path: Path) -> None:
    write_record(tmp_path / "r.json", RECORD)
    assert read_record(tmp_path / "r.json") == RECORD


def test_equal_records_are_equal_files(tmp_path: Path) -> None:
    write_record(tmp_path / "a.json", RECORD)
    write_record(tmp_path / "b.json", PageRecord.model_validate(RECORD.model_dump()))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_every_truncation_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_record(path, RECORD)
    whole = path.read_bytes()
    for end in range(0, len(whole.rstrip()), 17):
        path.write_bytes(whole[:end])
        with pytest.raises(RecordError, match=r"r\.json is truncated.*delete"):
            read_record(path)


def test_absent_and_foreign(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no records at"):
        read_record(tmp_path / "absent.json")
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**RECORD.model_dump(mode="json"), "schema_version": 99}))
    with pytest.raises(RecordError, match="got records of schema 99, expected 1"):
        read_record(path)
    path.write_text(json.dumps({**RECORD.model_dump(mode="json"), "surprise": 1}))
    with pytest.raises(RecordError, match="surprise"):
        read_record(path)
    path.write_text("[]")
    with pytest.raises(RecordError, match="schema None"):
        read_record(path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_are_finite(number: float) -> None:
    with pytest.raises(ValidationError, match="expected a finite number"):
        Value(value=number, shown="")
