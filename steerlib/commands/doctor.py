"""`steerlib doctor`: what is installed, what is missing, and how to get it.

Knows what the library and the book need. Imports neither torch nor anything heavy before it knows that it is there.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import typer
from rich.table import Table

from steerlib.commands.screen import console
from steerlib.errors import SteerlibError

# What the doctor looks for: package, what it is for, how to get it.
_CORE = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "matplotlib", "seaborn", "pydantic")
_EXTRAS = {
    "jupyter-book": ("building the book", "make env, or pip install 'steerlib[book]'"),
    "papermill": ("executing notebooks", "make env, or pip install 'steerlib[book]'"),
    "snakemake": ("running notebooks in parallel", "make env, or pip install 'steerlib[book]'"),
    "lm-eval": ("benchmarks of lm-evaluation-harness", "pip install 'steerlib[harness]'"),
    "trl": ("tuning by DPO and PPO", "make env EXTRAS=1, or pip install 'steerlib[tuning]'"),
    "pytest": ("running the tests", "make env, or pip install 'steerlib[dev]'"),
    "playwright": ("browser tests", "make env, or pip install 'steerlib[dev]'"),
}


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def doctor() -> None:
    """Say what is installed, which device is used, what is missing and how to get it; exits 1 if anything is."""
    table = Table(title="steerlib doctor", title_justify="left", show_header=True)
    for column in ("what", "found", "fix"):
        table.add_column(column, overflow="fold")
    missing = [*_packages(table), *_device(table), *_plants(table)]
    _tools(table)
    _samples(table)
    console.print(table)
    if missing:
        console.print(f"[red]missing: {', '.join(missing)}[/]")
        raise typer.Exit(1)
    console.print("[green]everything needed is here[/]")


def _packages(table: Table) -> list[str]:
    """Rows of Python and its packages; returns what is needed and missing."""
    here = sys.version_info[:2]
    good = (3, 11) <= here <= (3, 13)
    table.add_row("Python", platform.python_version(), "" if good else "use Python 3.11, 3.12 or 3.13")
    missing = [] if good else ["a supported Python"]
    table.add_row(
        "steerlib", _installed("steerlib") or "not installed", "" if _installed("steerlib") else "pip install -e ."
    )
    for package in _CORE:
        found = _installed(package)
        table.add_row(package, found or "missing", "" if found else "make env")
        missing += [] if found else [package]
    for package, (purpose, fix) in _EXTRAS.items():
        found = _installed(package)
        table.add_row(package, found or f"missing ({purpose})", "" if found else fix)
    book = _installed("jupyter-book")
    if book is not None and int(book.split(".")[0]) >= 2:
        table.add_row("jupyter-book", book, "version 2 cannot read _config.yml: pip install 'jupyter-book<2'")
        missing.append("jupyter-book 1.x")
    return missing


def _device(table: Table) -> list[str]:
    """Rows of the device that plants will use."""
    if find_spec("torch") is None:
        return []
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        table.add_row(
            "device", f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free", ""
        )
    else:
        built = torch.version.cuda
        hint = "" if built is None else "torch is a CUDA build but sees no GPU: look at nvidia-smi and the driver"
        table.add_row("device", f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()} cores", hint)
    return []


def _plants(table: Table) -> list[str]:
    """Rows of the shipped plants."""
    from steerlib.loading import check_loadable, shipped_plants

    names = shipped_plants()
    for name in names:
        try:
            check_loadable(name)
        except SteerlibError as error:
            table.add_row(f"plant {name}", "broken", str(error))
            return [f"plant {name}"]
        table.add_row(f"plant {name}", "weights match the card", "")
    if not names:
        table.add_row("plants", "none found", "run from a checkout, or reinstall steerlib")
        return ["shipped plants"]
    return []


def _tools(table: Table) -> None:
    """Rows of programs outside Python."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    table.add_row(
        "Chromium", chromium or "missing (browser tests are skipped)", "" if chromium else "apt install chromium"
    )
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    table.add_row("C++ compiler", compiler or "missing (no Inductor code)", "" if compiler else "apt install g++")
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    table.add_row("disk", f"{free:.1f} GB free", "" if free > 2 else "the book needs about 2 GB")


def _samples(table: Table) -> None:
    """Rows of the optional sample folders."""
    for name in ("STEERLIB_DATA", "STEERLIB_MODELS"):
        value = os.environ.get(name)
        if not value:
            table.add_row(name, "not set (optional: samples for some tests)", "")
        else:
            fine = Path(value).is_dir()
            table.add_row(
                name, value if fine else f"{value}: no such folder", "" if fine else f"unset {name}, or mend it"
            )
