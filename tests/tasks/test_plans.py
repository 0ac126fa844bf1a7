"""Splits of public data that are written down: made again, they are the same; with other data, code or seed, not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerlib.data.reading import DataError
from steerlib.errors import SteerlibError
from steerlib.files import data_folder, sha256
from steerlib.tasks.real import Concepts, plans
from steerlib.tasks.real.plans import PLANS, Plan, check_plan, write_plan
from tests.data import sets

SHIPPED = data_folder() / "splits"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(PLANS, "onesec", Plan("onesec", {"concept": "w90"}))  # the nouns of the small set
    return sets.everything(tmp_path / "data")


@pytest.mark.parametrize("name", sorted(PLANS))
def test_the_shipped_splits_are_those_of_the_samples(sample_data: Path, name: str) -> None:
    check_plan(name, data=sample_data)


def test_every_plan_is_shipped_and_nothing_else() -> None:
    assert {file.name for file in SHIPPED.iterdir()} == {f"{name}.json" for name in PLANS}
    for name, plan in PLANS.items():
        file = SHIPPED / f"{name}.json"
        known = json.loads(file.read_text(encoding="utf-8"))
        assert (known["task"], known["options"]) == (plan.task, dict(plan.options))
        assert {"fit", "validation", "test"} == set(known["rows"]) == set(known["sha256"])
        digests = [*known["sha256"].values(), *known["files"].values()]
        assert all(len(digest) == 64 and set(digest) <= set("0123456789abcdef") for digest in digests)
        assert file.stat().st_size < 2_000  # digests, no text


def test_the_two_folds_share_the_tested_questions_between_them() -> None:
    first, second = (json.loads((SHIPPED / f"truthfulqa{end}.json").read_text()) for end in ("", "-second"))
    assert first["files"] == second["files"] and first["seed"] == second["seed"]
    assert first["rows"]["test"] + second["rows"]["test"] == sum(first["rows"].values())
    assert first["sha256"]["test"] != second["sha256"]["test"]


@pytest.mark.parametrize("name", sorted(PLANS))
def test_a_split_is_made_again(name: str, folder: Path, tmp_path: Path) -> None:
    file = write_plan(name, data=folder, folder=tmp_path / "splits")
    check_plan(name, data=folder, folder=tmp_path / "splits")
    known = json.loads(file.read_text())
    assert known["files"] == {path: sha256(folder / path) for path in known["files"]} != {}
    assert "w90" not in json.dumps({key: value for key, value in known.items() if key != "options"})


def test_other_bytes_another_seed_and_other_code_are_noticed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = tmp_path / "splits"
    write_plan("truthfulqa", data=folder, folder=splits)
    table = folder / "truthfulqa" / "TruthfulQA.csv"
    whole = table.read_text(encoding="utf-8")
    table.write_text(whole + "\n", encoding="utf-8")  # the same rows from another file
    with pytest.raises(DataError, match="another split was written down: files differ"):
        check_plan("truthfulqa", data=folder, folder=splits)
    table.write_text(whole, encoding="utf-8")
    monkeypatch.setitem(PLANS, "truthfulqa", Plan("truthfulqa", {"fold": 0, "seed": 7}))
    with pytest.raises(DataError, match="options, seed, sha256 differ"):
        check_plan("truthfulqa", data=folder, folder=splits)
    monkeypatch.undo()
    monkeypatch.setattr("steerlib.tasks.real.truth.VALIDATION", 0.4)
    with pytest.raises(DataError, match="shares, rows, sha256 differ"):
        check_plan("truthfulqa", data=folder, folder=splits)


def test_the_sentences_are_split_alike_for_every_concept(folder: Path) -> None:
    ours, others = (Concepts(None, concept=lemma, data=folder).partition for lemma in ("w90", "w92"))  # type: ignore[arg-type]
    assert ours.written() == others.written()


def test_unknown_plan_and_absent_split(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SteerlibError, match="got split 'truthful', which does not exist. Did you mean truthfulqa"):
        check_plan("truthful", data=folder)
    with pytest.raises(DataError, match=r"preference\.json: not a written split"):
        check_plan("preference", data=folder, folder=tmp_path / "none")


def test_the_command_writes_and_compares(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plans, "data_folder", lambda: tmp_path / "shipped")
    plans.main(["--data", str(folder), "--write"])
    assert {file.stem for file in (tmp_path / "shipped" / "splits").iterdir()} == set(PLANS)
    capsys.readouterr()
    plans.main(["--data", str(folder)])
    assert capsys.readouterr().out.splitlines() == [f"{name}: as it was written down" for name in PLANS]
    sets.hh(folder, 50)
    with pytest.raises(DataError, match="files, rows, sha256 differ"):
        plans.main(["--data", str(folder)])
