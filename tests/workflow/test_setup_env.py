from __future__ import annotations

import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from steerlib.workflow import setup_env
from steerlib.workflow.setup_env import SetupError

from .conftest import REPOSITORY

Info = namedtuple("Info", "major minor micro")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two files that decide what is installed; installing is recorded, not done."""
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copyfile(REPOSITORY / name, tmp_path / name)
    monkeypatch.setattr(setup_env, "ROOT", tmp_path)
    monkeypatch.setattr(setup_env, "LOCK", tmp_path / "requirements.lock")
    return tmp_path


@pytest.mark.parametrize(
    ("version", "good"), [((3, 10, 9), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14, 0), False)]
)
def test_python_versions(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], good: bool) -> None:
    monkeypatch.setattr(sys, "version_info", Info(*version))
    if good:
        setup_env.check_python()
    else:
        with pytest.raises(SetupError, match=r"expected 3\.11, 3\.12 or 3\.13\. Fix: make book PYTHON="):
            setup_env.check_python()


def test_a_full_disk_is_seen_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(1e9))
    with pytest.raises(SetupError, match=r"1\.0 GB free.*at least 4 GB"):
        setup_env.check_disk()


def test_what_makes_the_environment_stale(clone: Path) -> None:
    before = setup_env.fingerprint()
    project = clone / "pyproject.toml"
    project.write_text(project.read_text().replace("line-length = 120", "line-length = 121"))
    assert setup_env.fingerprint() == before
    project.write_text(project.read_text().replace('"tqdm>=4.66"', '"tqdm>=4.67"'))
    after = setup_env.fingerprint()
    assert after != before
    (clone / "requirements.lock").write_text("")
    assert setup_env.fingerprint() != after


def test_twice_in_a_row_installs_once(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Path] = []

    def install(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        calls.append(folder)

    monkeypatch.setattr(setup_env, "install", install)
    monkeypatch.setattr(setup_env, "check_disk", lambda: None)
    monkeypatch.setattr(sys, "argv", ["setup_env.py", str(clone / "my env")])
    setup_env.main()
    setup_env.main()
    assert calls == [clone / "my env"]


def test_a_failed_installation_is_not_taken_for_done(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(folder: Path) -> None:
        folder.mkdir()
        raise SetupError("no network")

    monkeypatch.setattr(setup_env, "install", install)
    monkeypatch.setattr(setup_env, "check_disk", lambda: None)
    monkeypatch.setattr(sys, "argv", ["setup_env.py", str(clone / "env")])
    with pytest.raises(SetupError):
        setup_env.main()
    assert not (clone / "env" / setup_env.STAMP).exists()


def test_pip_that_fails_says_what_to_do(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(SetupError, match="connect to the internet or point pip at a mirror"):
        setup_env.pip(python, "nothing")


def test_a_folder_that_is_not_an_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SetupError, match=r"is not a virtual environment\. Fix"):
        setup_env.create(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_an_environment_of_another_python_does_not_fit(tmp_path: Path) -> None:
    assert setup_env.runs_here(Path(sys.executable))
    assert not setup_env.runs_here(tmp_path / "absent")
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho '(3, 9)'\n")
    other.chmod(0o755)
    assert not setup_env.runs_here(other)


def test_the_script_needs_nothing_installed() -> None:
    """It runs before anything is: standard library only, and no import of the package."""
    import ast

    tree = ast.parse(Path(setup_env.__file__).read_text())
    names = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)
