from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from steerlib.experiment.provenance import UNKNOWN, commit_of, provenance, versions


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", str(root), *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_commit_and_uncommitted_changes(tmp_path: Path) -> None:
    assert commit_of(None) == (UNKNOWN, None)
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path) == (head, False)
    (tmp_path / "file").write_text("two")
    assert commit_of(tmp_path) == (head, True)


def test_a_process_asks_git_once_for_each_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr("steerlib.experiment.provenance._git", lambda root, *_: asked.append(root) or "a1b2")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("STEERLIB_ROOT", str(tmp_path / name))
        first = provenance()
        assert asked, "each clone is asked"
        asked.clear()
        assert provenance(device="cuda:0").commit == first.commit == "a1b2" and not asked


def test_the_build_of_torch_is_named_once_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    before = versions()["torch"]
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__="9.9+cu1"))
    assert versions()["torch"] == "9.9+cu1"
    monkeypatch.delitem(sys.modules, "torch")
    assert versions()["torch"] == before != "9.9+cu1"


def test_the_lock_in_use_is_named() -> None:
    import hashlib

    lock = Path(__file__).resolve().parents[2] / "requirements.lock"
    assert provenance().lock == hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
