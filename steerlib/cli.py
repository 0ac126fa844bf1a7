"""The command line: `steerlib doctor | grow | accept | run | claims | fetch`.

Knows how to print; every command is a few calls into the library, which is imported only when a command needs it.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steerlib.errors import SteerlibError

if TYPE_CHECKING:
    from steerlib.experiment.cells import Cell
    from steerlib.experiment.records import PageRecord
    from steerlib.experiment.store import Store

app = typer.Typer(
    help="Language-model alignment as control.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

# What the doctor looks for: package, what it is for, how to get it.
_CORE = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "matplotlib", "seaborn", "pydantic")
_EXTRAS = {
    "jupyter-book": ("building the book", "make env, or pip install 'steerlib[book]'"),
    "papermill": ("executing notebooks", "make env, or pip install 'steerlib[book]'"),
    "snakemake": ("running notebooks in parallel", "make env, or pip install 'steerlib[book]'"),
    "pytest": ("running the tests", "make env, or pip install 'steerlib[dev]'"),
    "playwright": ("browser tests", "make env, or pip install 'steerlib[dev]'"),
}


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _fail(error: Exception) -> typer.Exit:
    errors.print("[bold red]error[/]", escape(str(error)), highlight=False, soft_wrap=True)
    return typer.Exit(2)


@app.command()
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


@app.command()
def grow(
    name: Annotated[str, typer.Argument(help="name of a plant")],
    out: Annotated[Path | None, typer.Option(help="folder to write; by default build/plants/NAME")] = None,
    steps: Annotated[int | None, typer.Option(help="optimiser steps, instead of the recipe's")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda; by default a GPU if there is one")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="start again instead of resuming")] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="compile the training step")] = False,
) -> None:
    """Grow a plant of the Almanac again from its recipe; interrupted runs resume."""
    # Before torch is loaded: where another process shares the cores, threads that wait by spinning make a step five
    # times as long (measured: 4.0 s against 0.8 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from steerlib.world.grow import GrowthError, GrowthInterrupted
    from steerlib.world.grow import grow as grow_plant

    target = out if out is not None else Path("build") / "plants" / name
    try:
        folder = grow_plant(name, target, steps=steps, device=device, resume=not fresh, compiled=compiled)
    except GrowthInterrupted as stopped:
        errors.print(f"stopped: {stopped}", soft_wrap=True)
        raise typer.Exit(130) from stopped
    except (GrowthError, ValueError) as error:
        raise _fail(error) from error
    console.print(f"grown: {folder}", soft_wrap=True)


@app.command()
def accept(
    name: Annotated[str, typer.Argument(help="a shipped plant, or the folder of a grown one")],
    write: Annotated[bool, typer.Option("--write", help="write the figures into the plant's card")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="only the pushes that the card names, with one seed")] = False,
) -> None:
    """Measure whether a plant behaves and can be steered as the book needs; exits 1 if it does not."""
    from steerlib.world.accept import main

    try:
        code = main(name, write=write, quick=quick)
    except (SteerlibError, ValueError) as error:
        raise _fail(error) from error
    raise typer.Exit(code)


@app.command()
def run(
    grid: Annotated[Path, typer.Argument(help="a grid of cells, such as data/grids/push.yml")],
    store: Annotated[Path, typer.Option(help="folder of the records")] = Path("build/store"),
    jobs: Annotated[int, typer.Option(min=1, help="cells at a time; cores are divided among them")] = 1,
    device: Annotated[list[str] | None, typer.Option(help="where to run; repeat it for several GPUs")] = None,
    listing: Annotated[bool, typer.Option("--list", help="show what the store holds of the grid, run nothing")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="count what is missing and how long it may take")] = False,
    shard: Annotated[str, typer.Option(help="only a part of the cells, such as 2/8: for many machines")] = "1/1",
    export: Annotated[Path | None, typer.Option(help="write the records to a .csv or .parquet file")] = None,
    profile: Annotated[
        str | None, typer.Option("--ship", help="then write the whole grid's records to data/reference/PROFILE/records")
    ] = None,
) -> None:
    """Compute the cells of a grid that have no record yet; exits 1 if one failed.

    Finished cells are kept whatever happens: interrupt it, kill it, run it again.
    """
    # Threads that wait by spinning slow down every other worker; see `grow`.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        from steerlib.experiment.grid import missing, part_of, read_grid, run_grid
        from steerlib.experiment.store import Store

        cells, place = part_of(read_grid(grid), shard), Store(store)
        if listing or dry_run:
            lacking = missing(cells, place)
            if listing:
                _show_cells(cells, place)
            console.print(
                f"{len(cells) - len(lacking)} of {len(cells)} cells are in {store}{_estimate(lacking, place)}"
            )
            return
        outcome = run_grid(cells, place, jobs=jobs, devices=tuple(device or ["cpu"]))
        if export is not None:
            console.print(f"written: {place.export(export)}", soft_wrap=True)
        if profile is not None and not outcome.failed:
            _ship(read_grid(grid), place, grid.stem, profile)
    except KeyboardInterrupt as stopped:
        told = str(stopped) or "stopped; finished cells are kept, the same command goes on"
        errors.print(escape(told), soft_wrap=True, highlight=False)
        raise typer.Exit(130) from stopped
    except (SteerlibError, ValueError, OSError) as error:
        raise _fail(error) from error
    for why in place.damaged:
        errors.print(f"set aside and computed anew: {why}", soft_wrap=True)
    console.print(
        f"{len(outcome.present)} cells were there, {len(outcome.computed)} computed, {len(outcome.elsewhere)} left to "
        f"another process, {len(outcome.failed)} failed"
    )
    if outcome.failed:
        raise typer.Exit(1)


def _ship(cells: list[Cell], place: Store, name: str, profile: str) -> None:
    from steerlib.experiment.shipped import ship, shipped_path

    file = ship(place, cells, shipped_path(name, profile=profile))
    size = file.stat().st_size
    each = f"{1000 * size / len(cells) / 1e6:.2f} MB per 1,000 cells"
    console.print(f"shipped: {file}, {size / 1e3:.0f} kB, {each}", soft_wrap=True, highlight=False)


def _show_cells(cells: list[Cell], place: Store) -> None:
    from steerlib.experiment.keys import keys_of

    table = Table(title=f"{len(cells)} cells", title_justify="left")
    for column in ("cell", "wanted", "intact", "combined", "seconds"):
        table.add_column(column, overflow="fold")
    for cell, key in zip(cells, keys_of(cells), strict=True):
        record = place.get(key)
        found = [record.metrics[name] for name in ("wanted", "intact", "combined")] if record else []
        shown = [f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" for m in found] or ["-"] * 3
        table.add_row(cell.title, *shown, f"{record.seconds:.1f}" if record else "-")
    console.print(table)


def _estimate(lacking: list[Cell], place: Store) -> str:
    """How long the missing cells may take, from records of the same kind of scoring; "" where there are none."""
    if not lacking:
        return ""
    times: dict[str, list[float]] = {}
    for record in place.records():
        times.setdefault(record.cell.kind, []).append(record.seconds + record.fit_seconds)
    if any(cell.kind not in times for cell in lacking):
        return f"; {len(lacking)} are missing"
    mean = {kind: sum(found) / len(found) for kind, found in times.items()}
    left = sum(mean[cell.kind] for cell in lacking) / 60
    return f"; {len(lacking)} are missing, about {left:.1f} minutes on one core at the pace of the others"


@app.command()
def claims(
    profile: Annotated[str, typer.Option(help="a profile of data/profiles")] = "tiny",
    records: Annotated[Path | None, typer.Option(help="folder of records; by default build/PROFILE/records")] = None,
    accept_reference: Annotated[
        bool, typer.Option("--accept-reference", help="make the present figures the accepted ones")
    ] = False,
) -> None:
    """List the papers' claims with the verdicts of the last build, and how its figures differ from the accepted ones.

    Exits 1 if they drifted. A contradicted claim is a result, not a failure.
    """
    from steerlib.experiment import reference
    from steerlib.experiment.claims import load_claims
    from steerlib.experiment.ledger import ledger
    from steerlib.experiment.scoreboard import false_finds, terminal_table
    from steerlib.files import data_folder

    folder = records if records is not None else Path("build") / profile / "records"
    accepted = data_folder() / "reference" / profile
    try:
        pages = reference.read_records(folder, profile=profile)
        if accept_reference:
            _accept(pages, accepted, profile)
            return
        entries = [entry for entry in ledger(pages, load_claims()) if entry.profile == profile]
        found = reference.survey(pages, accepted)
    except (SteerlibError, ValueError, OSError) as error:
        raise _fail(error) from error
    console.print(terminal_table(entries, where=f"profile {profile}, records in {folder}"))
    if told := false_finds(entries):
        console.print(told, highlight=False)
    console.print(reference.summary(found), markup=False, highlight=False, soft_wrap=True)
    if any(page.drifted for page in found):
        errors.print(
            f"[bold red]drift[/]: mend what moved the figures, or accept them with `{reference.ACCEPT}` in a commit "
            "that says why",
            soft_wrap=True,
        )
        raise typer.Exit(1)


def _accept(pages: Sequence[PageRecord], folder: Path, profile: str) -> None:
    """Write the reference of a profile, in a clone."""
    from steerlib.experiment.reference import accept
    from steerlib.files import project_root
    from steerlib.workflow.profiles import load_profile

    root = project_root()
    if root is None:
        raise SteerlibError("references are accepted in a clone of the project, where they can be committed")
    for path in accept(pages, folder, plant=load_profile(root, profile).plant):
        console.print(f"accepted: {path}", soft_wrap=True)
    console.print("look at the difference, then commit it with a message that says why the figures moved")


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="data sets; see --list")] = None,
    profile: Annotated[str | None, typer.Option(help="fetch what a profile names")] = None,
    to: Annotated[Path | None, typer.Option(help="data folder; by default the user's cache")] = None,
    lock: Annotated[Path | None, typer.Option(help="fetch lock; by default fetch.lock.json of the clone")] = None,
    listing: Annotated[bool, typer.Option("--list", help="show the data sets and where they live")] = False,
) -> None:
    """Download public data sets and check them against the fetch lock; interrupted downloads go on."""
    from steerlib.data.fetching import fetch as fetch_source
    from steerlib.data.sources import SOURCES

    if listing:
        table = Table(title=f"{len(SOURCES)} data sets", title_justify="left")
        for column in ("name", "what", "licence", "home"):
            table.add_column(column, overflow="fold")
        for known in SOURCES.values():
            table.add_row(known.name, known.title, known.licence, ", ".join(home.place for home in known.homes))
        console.print(table)
        return
    try:
        wanted = [*(names or []), *(_profile_data(profile) if profile else [])]
        if not wanted:
            raise ValueError("got no data set; expected names (see steerlib fetch --list) or --profile")
        for name in dict.fromkeys(wanted):
            for found in fetch_source(name, folder=to, lock=lock, say=lambda text: console.print(text, soft_wrap=True)):
                state = "downloaded, first seen" if found.first else "downloaded" if found.downloaded else "was there"
                console.print(f"{found.path}: {state}, revision {found.revision[:12]}", soft_wrap=True)
    except KeyboardInterrupt as stopped:
        errors.print("stopped; what has arrived is kept, the same command goes on", soft_wrap=True)
        raise typer.Exit(130) from stopped
    except (SteerlibError, ValueError, OSError) as error:
        raise _fail(error) from error


def _profile_data(name: str) -> list[str]:
    """Data sets that a profile of this clone names."""
    from steerlib.files import project_root
    from steerlib.workflow.errors import ProfileError
    from steerlib.workflow.profiles import load_profile

    root = project_root()
    if root is None:
        raise ValueError("--profile needs a clone, where data/profiles is; name the data sets instead")
    try:
        found = load_profile(root, name).datasets
    except ProfileError as error:
        raise ValueError(str(error)) from error
    if not found:
        raise ValueError(f"profile {name!r} names no data set: there is nothing to fetch")
    return found


if __name__ == "__main__":
    app()
