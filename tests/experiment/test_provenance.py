from __future__ import annotations

import subprocess
from pathlib import Path

from steerlib.experiment.provenance import UNKNOWN, commit_of, provenance


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


def test_the_lock_in_use_is_named() -> None:
    import hashlib

    lock = Path(__file__).resolve().parents[2] / "requirements.lock"
    assert provenance().lock == hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
