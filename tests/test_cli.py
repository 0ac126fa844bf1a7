"""The commands, in process, as a user would type them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from steerlib import cli, loading
from steerlib.cli import app


def run(command: typer.Typer, arguments: list[str]) -> Result:
    """Run a command in a terminal wide enough that no cell of a table is folded."""
    cli.console.width = cli.errors.width = 300
    return CliRunner().invoke(command, arguments)


def test_help_lists_the_commands() -> None:
    out = run(app, ["--help"])
    assert out.exit_code == 0
    for command in ("doctor", "grow", "accept", "claims"):
        assert command in out.output


def test_doctor_finds_this_environment_whole() -> None:
    out = run(app, ["doctor"])
    assert out.exit_code == 0, out.output
    assert "everything needed is here" in out.output
    assert "weights match the card" in out.output


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = cli._installed
    monkeypatch.setattr(cli, "_installed", lambda name: {"scipy": None, "jupyter-book": "2.1.7"}.get(name, real(name)))
    monkeypatch.setattr(loading, "data_folder", lambda: tmp_path)
    monkeypatch.setenv("STEERLIB_DATA", str(tmp_path / "gone"))
    out = run(app, ["doctor"])
    assert out.exit_code == 1
    assert "missing: scipy, jupyter-book 1.x, shipped plants" in " ".join(out.output.split())
    assert "no such folder" in " ".join(out.output.split())


def test_doctor_sees_a_broken_plant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "plants" / "broken"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(loading, "data_folder", lambda: tmp_path)
    out = run(app, ["doctor"])
    assert out.exit_code == 1
    assert "missing: plant broken" in " ".join(out.output.split())


def test_grow_refuses_an_unknown_plant() -> None:
    out = run(app, ["grow", "no-such-plant"])
    assert out.exit_code == 2
    assert "no-such-plant" in out.output
    assert "almanac-llama" in out.output


def test_grow_writes_a_plant_that_loads(tmp_path: Path) -> None:
    out = run(app, ["grow", "almanac-seedling", "--out", str(tmp_path / "p"), "--steps", "2", "--device", "cpu"])
    assert out.exit_code == 0, out.output
    card = json.loads((tmp_path / "p" / "card.json").read_text())
    assert card["world"] == "almanac"
    assert loading.check_loadable(str(tmp_path / "p")).card["weights_sha256"] == card["weights_sha256"]


def test_accept_refuses_what_is_no_plant(tmp_path: Path) -> None:
    out = run(app, ["accept", str(tmp_path)])
    assert out.exit_code == 2
    assert "no config.json" in out.output


def test_claims_are_listed_and_a_bad_record_is_named(tmp_path: Path) -> None:
    out = run(app, ["claims", "--records", str(tmp_path)])
    assert out.exit_code == 0
    assert "not run" in out.output
    (tmp_path / "01_x.json").write_text('{"page": ')
    out = run(app, ["claims", "--records", str(tmp_path)])
    assert out.exit_code == 2
    assert "01_x.json" in out.output


@pytest.mark.parametrize("code", [0, 1])
def test_accept_exits_as_the_measurement_says(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from steerlib.world import accept

    asked: list[tuple[str, bool, bool]] = []
    monkeypatch.setattr(accept, "main", lambda name, *, write, quick: asked.append((name, write, quick)) or code)
    assert run(app, ["accept", "almanac-llama", "--write"]).exit_code == code
    assert run(app, ["accept", "almanac-llama", "--quick"]).exit_code == code
    assert asked == [("almanac-llama", True, False), ("almanac-llama", False, True)]
