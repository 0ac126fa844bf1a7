"""Shipped records in a build: a part of them is computed again before any page runs, or with FRESH=1 all of them.

Knows which grids a profile ships, when a build must look at them, and whom it tells. Knows nothing about what agreement
is (`steerlib.experiment.recompute`) or how a cell is computed. The work is done in processes of its own, so that the
build itself stays small:

    python -m steerlib.workflow.shipped --profile tiny

computes a part of every shipped grid again and writes what it found into the folder of the build.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from datetime import date, datetime
from pathlib import Path

from steerlib.errors import SteerlibError
from steerlib.experiment.recompute import FRESH, StaleError, reference
from steerlib.experiment.shipped import SUFFIX, Header, read_header
from steerlib.experiment.verification import SLICE_SEED, build_seed
from steerlib.experiment.verified import NAME, VERIFIED, Report, Verified
from steerlib.files import page_references, sha256, write_atomic
from steerlib.workflow.errors import WorkflowError, run_command
from steerlib.workflow.keys import device_class, digest, files_under
from steerlib.workflow.project import LOCK, Run

INTERRUPTED = 130


def shipped_files(run: Run) -> list[Path]:
    """The files of records that the profile ships."""
    return sorted((run.references / "records").glob(f"*{SUFFIX}"))


def shipped_grids(run: Run) -> list[tuple[Path, Header]]:
    """The grids whose records the profile ships, with what the records say of themselves.

    Raises:
        WorkflowError: a grid that is not there any more.
    """
    found = []
    for file in shipped_files(run):
        known = read_header(file)
        places = [run.root / "data" / kind / f"{known.grid}.yml" for kind in ("grids", "races")]
        if known.grid in run.profile.tables:
            found.append((places[0], known))
            continue
        grid = next((place for place in places if place.is_file()), None)
        if grid is None:
            raise WorkflowError(
                f"{file.relative_to(run.root)} holds the records of {known.grid!r}, but there is no "
                f"{places[0].relative_to(run.root)}, nor a race of that name. Fix: restore it, or remove its records"
            )
        found.append((grid, known))
    return found


def recompute_grids(run: Run, *, jobs: int, lock: int) -> Path:
    """Compute all cells of the grids whose records are shipped; says beforehand how long all will take.

    An interrupted one goes on where it was; a finished one is begun again.

    Returns:
        The store that holds them; pages read it instead of what is shipped.

    Raises:
        WorkflowError: a grid that is not there any more, or cells that cannot be computed.
    """
    store, finished = run.folder / "fresh", run.folder / "fresh.finished"
    if finished.exists():
        shutil.rmtree(store, ignore_errors=True)
        finished.unlink()
    plan = shipped_grids(run)
    for grid, known in plan:
        machines = ", ".join(sorted({f"{origin.device}, {origin.platform}" for origin in known.provenance}))
        print(
            f"[book] FRESH: the {known.cells} cells of {grid.stem} took {known.seconds / 60:.1f} minutes of one worker "
            f"({machines})",
            flush=True,
        )
    if plan:
        cells, minutes = sum(known.cells for _, known in plan), sum(known.seconds for _, known in plan) / 60
        print(
            f"[book] FRESH: {len(plan)} grid{'' if len(plan) == 1 else 's'}, {cells} cells, {minutes:.1f} minutes of "
            f"one worker in all; with {jobs} at a time about {minutes / jobs:.1f} minutes on such a machine if it has "
            "nothing else to do, then the notebooks",
            flush=True,
        )
    for grid, _ in plan:
        command = ["steerlib.cli", "run", str(grid), "--store", str(store), "--jobs", str(jobs)]
        if grid.parent.name == "races":  # its cells follow from its calibrations, and are those that are shipped
            command += ["--again", run.profile.name]
        elif grid.stem in run.profile.tables:  # the file in data/grids is that of the profile that readers have
            command[2] = grid.stem
            command += ["--profile", run.profile.name]
        if _child(run, command, lock=lock):
            raise WorkflowError(f"not built: cells of {grid.stem} cannot be computed (see above); the others are kept")
    finished.parent.mkdir(parents=True, exist_ok=True)
    finished.touch()
    return store


def check_records(run: Run, *, making: bool, lock: int, store: Path | None = None) -> dict[str, str]:
    """See that shipped records still hold: a part of each grid is computed again, another part each time.

    A build that makes nothing computes nothing either, if it was done today and nothing has changed since, and says so.
    Where a part did not agree, or was interrupted, the next build draws the same part again: a drift must not go away
    because other cells are looked at.

    Args:
        run: the build.
        making: whether this build executes a notebook or builds pages.
        lock: descriptor of the build's lock.
        store: where a build with FRESH=1 has computed all cells; all are then compared.

    Returns:
        What the environment tells the pages: what was computed, and the seed of the parts.

    Raises:
        WorkflowError: a recomputed cell disagrees, or records that cannot be read.
    """
    unfinished = run.folder / "slice.seed"
    if SLICE_SEED not in os.environ and unfinished.is_file() and unfinished.read_text(encoding="utf-8").isdigit():
        seed = unfinished.read_text(encoding="utf-8")
    else:
        seed = str(build_seed())
    told = {SLICE_SEED: seed} | ({FRESH: str(store)} if store is not None else {})
    found = run.folder / NAME
    if not shipped_files(run):
        found.unlink(missing_ok=True)
        return told
    before = Report.read(found)
    if not making and SLICE_SEED not in os.environ and before is not None and before.key == records_key(run):
        print(
            f"[book] shipped records: unchanged since a part was computed again and agreed ({before.when})", flush=True
        )
        return told
    found.unlink(missing_ok=True)
    write_atomic(unfinished, seed)
    command = ["steerlib.workflow.shipped", "--profile", run.profile.name, "--root", str(run.root)]
    if _child(run, [*command, "--out", str(run.folder)], lock=lock, more=told):
        raise WorkflowError("not built: what is shipped does not agree with what was computed now (see above)")
    unfinished.unlink()
    return told | {VERIFIED: str(found)}


def records_key(run: Run) -> str:
    """A hash of all that shipped records may depend on, and of the day: with another one a part is computed again."""
    accepted = set(page_references(run.root / "data"))
    inputs = [*files_under(run.root / "steerlib"), *files_under(run.root / "data"), run.root / LOCK]
    settings: dict[str, object] = {"day": date.today().isoformat(), "device": device_class()}
    return digest(run, sorted(path for path in inputs if path not in accepted), settings)


def _child(run: Run, command: list[str], *, lock: int, more: dict[str, str] | None = None) -> int:
    """Run a module to its end with this Python; returns its exit code, and passes an interrupt on."""
    environment = {name: value for name, value in os.environ.items() if name not in (FRESH, VERIFIED)}
    # Threads that wait by spinning slow down everything else on a busy machine.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **environment, "STEERLIB_ROOT": str(run.root), **(more or {})}
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=run.root, env=environment, pass_fds=(lock,))
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()  # the terminal has told it, too
        raise
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code


def verify_all(run: Run) -> Report:
    """Compute a part of every shipped grid again; says what it does and finds.

    Raises:
        WorkflowError: of any grid a cell disagrees, or records cannot be read; names them all.
    """
    key = records_key(run)  # before the work: an edit meanwhile must not pass for what was checked
    found: list[Verified] = []
    wrong: list[str] = []
    for file in shipped_files(run):
        grid = file.name.removesuffix(SUFFIX)
        what = "comparing all with what was computed now" if os.environ.get(FRESH) else "computing a part again"
        print(f"[records] {grid}: {what}", flush=True)
        start = time.monotonic()
        try:
            made = reference(grid, profile=run.profile.name, path=file)
        except StaleError as error:  # nothing of it is shown, so there is nothing to be wrong
            print(f"[records] {error}", flush=True)
            found.append(Verified(grid, sha256(file), str(error), None))
        except SteerlibError as error:
            wrong.append(f"{grid}: {error}")
        else:
            plain = made.line.replace("**", "").replace("`", "")
            print(f"[records] {plain} [{time.monotonic() - start:.0f} s]", flush=True)
            found.append(Verified(grid, made.source.digest, made.line, made.verification))
    if wrong:
        raise WorkflowError("\n".join(wrong))
    return Report(key=key, when=datetime.now().isoformat(" ", "minutes"), grids=tuple(found))


def main(arguments: list[str] | None = None) -> int:
    """Compute a part of the shipped records of the project in the current folder again."""
    parser = argparse.ArgumentParser(description="Compute a part of the shipped records again.")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--out", type=Path, help="folder of the build; by default build/PROFILE")
    parser.add_argument("--root", type=Path, default=Path.cwd())
    options = parser.parse_args(arguments)
    run = Run.open(options.root, profile=options.profile)
    verify_all(run).write(options.out or run.folder)
    return 0


if __name__ == "__main__":
    run_command(main)
