"""Create the virtual environment from `requirements.lock`. Standard library only: it runs before any install.

Knows how to install the four sections of the lock (see `lock.py`) and how to tell that nothing has changed;
knows nothing about what the packages are for.

    python steerlib/workflow/setup_env.py .venv
    python steerlib/workflow/setup_env.py .venv --extras    # and what is installed only when asked for
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
STAMP = "steerlib-env.sha256"
EXTRAS_STAMP = "steerlib-env-extras.sha256"
MINIMUM_FREE_GB = 4.0
HEARTBEAT_S = 30


class SetupError(SystemExit):
    """A failed set-up, with what to do about it."""


def fingerprint() -> str:
    """Hash of everything that decides what the environment holds."""
    import tomllib  # since 3.11; `check_python` comes first

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packaging = [project["build-system"], project["project"], project["tool"]["hatch"]]  # not the linters' settings
    digest = hashlib.sha256(LOCK.read_bytes() + json.dumps(packaging, sort_keys=True).encode())
    digest.update(f"{sys.version_info[:2]} {platform.system()} {platform.machine()} {ROOT}".encode())
    return digest.hexdigest()


def check_python() -> None:
    """Refuse a Python that the lock does not know."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise SetupError(
            f"steerlib: got Python {platform.python_version()}, expected 3.11, 3.12 or 3.13. "
            "Fix: make book PYTHON=python3.12"
        )


def check_disk() -> None:
    """Refuse a disk that is too full, before anything is downloaded."""
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < MINIMUM_FREE_GB:
        raise SetupError(
            f"steerlib: {free:.1f} GB free on the disk of {ROOT}, expected at least {MINIMUM_FREE_GB:.0f} GB. "
            "Fix: free some space, or clone to another disk."
        )


def section(name: str) -> str:
    """The lines of one section of the lock."""
    parts = re.split(r"^# === (\w+) ===.*$", LOCK.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name].strip() + "\n"


def pip(python: Path, *arguments: str) -> None:
    """Run pip in the environment; stop with its output on failure."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    process = subprocess.Popen([str(python), "-m", "pip", "install", "--no-deps", "-qq", *arguments], env=environment)
    start = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(timeout=HEARTBEAT_S)
            break
        print(f"[env] still at it, {time.monotonic() - start:.0f} s", flush=True)
    if code:
        raise SetupError(
            "steerlib: pip could not install the locked packages (its message is above). If it could not reach "
            "the package index, connect to the internet or point pip at a mirror (PIP_INDEX_URL) and run "
            "`make env` again; what is installed already is kept."
        )


def torch_is_cuda(python: Path) -> bool:
    """Whether the installed torch wheel asks for CUDA packages."""
    code = (
        "from importlib.metadata import requires; "
        "print(any(r.startswith(('nvidia-', 'cuda-')) and 'extra ==' not in r for r in requires('torch') or []))"
    )
    return (
        subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "True"
    )


def runs_here(python: Path) -> bool:
    """Whether the environment's interpreter works and is of the version that runs this script."""
    code = "import sys, pip; print(sys.version_info[:2])"
    try:
        done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    except OSError:
        return False
    return done.returncode == 0 and done.stdout.strip() == str(sys.version_info[:2])


def create(folder: Path) -> None:
    """Make an empty environment in `folder`, in the place of one that does not fit."""
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise SetupError(
            f"steerlib: {folder} is not a virtual environment. Fix: remove it, or name another: VENV=folder"
        )
    print(f"[env] creating {folder} with Python {platform.python_version()}", flush=True)
    try:
        venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt", clear=folder.exists()).create(folder)
    except subprocess.CalledProcessError as error:
        raise SetupError(
            "steerlib: this Python cannot create a virtual environment with pip. "
            "Fix: on Debian or Ubuntu, `apt install python3-venv`."
        ) from error


def install(folder: Path) -> None:
    """Create the environment in `folder` if need be and install the lock into it."""
    python = python_of(folder)
    if not runs_here(python):
        create(folder)
    print("[env] installing torch (200 MB; the CUDA wheel and its libraries are about 3 GB)", flush=True)
    pip(python, *section("torch").split())
    for part in ["packages"] + (["cuda"] if torch_is_cuda(python) else []):
        install_section(python, part, " (about 300 MB)" if part == "packages" else "")
    pip(python, "--no-build-isolation", "-e", str(ROOT))


def install_section(python: Path, part: str, note: str = "") -> None:
    """Install a section that has hashes."""
    print(f"[env] installing locked packages: {part}{note}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, f"{part}.txt")
        requirements.write_text(section(part))
        pip(python, "--require-hashes", "-r", str(requirements))


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def main() -> None:
    """Install what has changed since the last time."""
    asked = "--extras" in sys.argv[1:]
    names = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    folder = Path(names[0] if names else ".venv").resolve()
    check_python()
    wanted = fingerprint()
    stamps = [folder / STAMP] + ([folder / EXTRAS_STAMP] if asked else [])
    todo = [stamp for stamp in stamps if not (stamp.exists() and stamp.read_text() == wanted)]
    if not todo:
        return
    check_disk()
    start = time.monotonic()
    for stamp in todo:
        if stamp.name == STAMP:
            install(folder)
        else:
            install_section(python_of(folder), "extras")
        stamp.write_text(wanted)
    print(f"[env] ready in {time.monotonic() - start:.0f} s: {folder}", flush=True)


if __name__ == "__main__":
    main()
