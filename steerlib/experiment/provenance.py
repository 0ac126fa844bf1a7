"""Where numbers come from: commit, lock, versions, device.

Knows how to ask git, the lock file and the installed packages; knows nothing of notebooks.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from steerlib.experiment.records import Provenance
from steerlib.files import project_root, sha256

PACKAGES = ("torch", "transformers", "numpy", "scipy", "tokenizers", "matplotlib", "steerlib")
UNKNOWN = "unknown"


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit_of(root: Path | None) -> tuple[str, bool | None]:
    """Commit of a clone and whether it has uncommitted changes; ("unknown", None) outside git."""
    if root is None or (commit := _git(root, "rev-parse", "HEAD")) is None:
        return UNKNOWN, None
    status = _git(root, "status", "--porcelain")
    return commit, None if status is None else bool(status)


@cache
def _commit_here(root: Path | None) -> tuple[str, bool | None]:
    """`commit_of`, asked once in a process: what it has imported does not change with the clone."""
    return commit_of(root)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can move a number."""
    found = dict(_installed())
    if (torch := sys.modules.get("torch")) is not None:
        found["torch"] = str(torch.__version__)  # with its build, which the metadata of a CUDA wheel leaves out
    return found


@cache
def _installed() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def provenance(*, device: str = "cpu", dtype: str = UNKNOWN, weights: str = UNKNOWN) -> Provenance:
    """Describe this process. `device`, `dtype` and `weights` (a hash) are those of the plant in use.

    The commit is that of the first call: a process goes on with the code that it has imported.
    """
    root = project_root()
    commit, dirty = _commit_here(root)
    lock = root / "requirements.lock" if root else None
    return Provenance(
        commit=commit,
        dirty=dirty,
        lock=sha256(lock)[:16] if lock and lock.exists() else UNKNOWN,
        device=device,
        dtype=dtype,
        weights=weights,
        platform=f"{platform.system()} {platform.machine()}",
        versions=versions(),
    )
