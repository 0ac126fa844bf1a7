from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import REPOSITORY

MAKEFILE = (REPOSITORY / "Makefile").read_text()

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    root = tmp_path / "a clone"
    root.mkdir()
    shutil.copyfile(REPOSITORY / "Makefile", root / "Makefile")
    return root


def make(root: Path, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run(
        ["make", "-s", "-C", str(root), *arguments], capture_output=True, text=True, env=environment, timeout=60
    )


def test_help_has_a_line_for_every_target(clone: Path) -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.M)
    done = make(clone)
    assert done.returncode == 0
    described = dict(re.findall(r"^  make (\S+) +(\S.*)$", done.stdout, flags=re.M))
    assert set(described) == set(phony.split())


def test_every_target_is_declared(clone: Path) -> None:
    (phony,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.M)
    assert set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.M)) == set(phony.split())


def shim(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_python_that_fails_is_passed_over(clone: Path, tmp_path: Path) -> None:
    shims = tmp_path / "some shims"
    shim(shims, "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    shim(shims, "python3.12", f'exec "{sys.executable}" "$@"')
    done = make(clone, "--eval=which: ; @echo $(PYTHON)", "which", path=f"{shims}:/usr/bin:/bin")
    assert done.stdout.strip() == "python3.12"


def test_no_python_at_all_is_said_plainly(clone: Path) -> None:
    done = make(clone, "book", "PYTHON=")
    assert done.returncode != 0
    assert "found no Python 3.11, 3.12 or 3.13" in done.stdout
    assert "make book PYTHON=" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--profile", "tiny"]),
        (["PLANT=../my models/x", "JOBS=3"], ["--profile", "tiny", "--plant", "../my models/x", "--jobs", "3"]),
        (["PROFILE=gpu", "FRESH=1"], ["--profile", "gpu", "--fresh"]),
        (["FRESH=0"], ["--profile", "tiny"]),
    ],
)
def test_variables_reach_the_pipeline(clone: Path, tmp_path: Path, arguments: list[str], expected: list[str]) -> None:
    """With VENV=active, `python` of the path is used and nothing is installed."""
    shim(tmp_path / "shims", "python", 'for a in "$@"; do echo "$a"; done')
    done = make(clone, "book", "VENV=active", *arguments, path=f"{tmp_path / 'shims'}:/usr/bin:/bin")
    assert done.stdout.splitlines() == ["-m", "steerlib.workflow.book", *expected]


def test_a_failure_is_not_hidden(clone: Path, tmp_path: Path) -> None:
    shim(tmp_path / "shims", "python", "exit 7")
    for target in ("book", "test", "test-slow", "lint", "pair", "lock", "serve"):
        assert make(clone, target, "VENV=active", path=f"{tmp_path / 'shims'}:/usr/bin:/bin").returncode != 0


def test_clean_removes_what_was_generated_and_nothing_else(clone: Path) -> None:
    (clone / "build" / "tiny").mkdir(parents=True)
    (clone / "steerlib" / "__pycache__").mkdir(parents=True)
    (clone / ".venv" / "lib" / "__pycache__").mkdir(parents=True)
    (clone / "data").mkdir()
    assert make(clone, "clean").returncode == 0
    assert sorted(path.name for path in clone.iterdir()) == [".venv", "Makefile", "data", "steerlib"]
    assert (clone / ".venv" / "lib" / "__pycache__").exists()
    assert not (clone / "steerlib" / "__pycache__").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_check_script_hides_no_exit_code(tmp_path: Path) -> None:
    """`.ci/run` ends with the first failure, whichever command it is."""
    (tmp_path / "clone" / ".ci").mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci" / "run", tmp_path / "clone" / ".ci" / "run")
    for folder in ("data", "models"):
        (tmp_path / "shared" / folder).mkdir(parents=True)
    shim(tmp_path / "shims", "chromium", "exit 0")
    shim(tmp_path / "shims", "make", 'echo "make $* $STEERLIB_DATA"; [ "$*" != "$FAILS" ]')
    environment = {"PATH": f"{tmp_path / 'shims'}:/usr/bin:/bin"}

    def run(fails: str) -> tuple[int, list[str]]:
        done = subprocess.run(
            [str(tmp_path / "clone" / ".ci" / "run")],
            capture_output=True, text=True, env={**environment, "FAILS": fails}, cwd=tmp_path,
        )  # fmt: skip
        return done.returncode, [line for line in done.stdout.splitlines() if line.startswith("make ")]

    samples = tmp_path / "shared" / "data"
    everything = [
        "make book ",
        "make test absent",
        "make accept ",
        f"make test ARGS=--no-unlisted-skips {samples}",
        f"make test-slow {samples}",
    ]
    assert run("") == (0, everything)
    for count, fails in enumerate(("book", "test", "accept", "test ARGS=--no-unlisted-skips", "test-slow"), start=1):
        code, told = run(fails)
        assert code != 0
        assert told == everything[:count]
