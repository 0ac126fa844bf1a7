"""Cells computed in worker processes, to be held against their records.

Knows that nothing computed before counts, and which cells one worker does in a row. Knows nothing about records that
are believed, or what agreement is (`verification`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell
from steerlib.experiment.grid import work_on
from steerlib.experiment.store import Store
from steerlib.experiment.verification import Compute, NotComputedError
from steerlib.experiment.workers import in_processes, said_of

#: What a worker does with (cell, store folder, device); see `grid.run_grid`.
Work = Callable[[Cell, str, str], str]
#: Cells that share a plant and what laws are fitted on.
Bundle = tuple[Cell, ...]


def redone(
    bundles: Sequence[Sequence[Cell]],
    folder: Path,
    *,
    jobs: int,
    progress: bool = False,
    work: Work = work_on,
) -> Compute:
    """Compute some cells, each once, and give them out.

    Args:
        bundles: what one worker does in a row, what takes longest first; a cell that comes again is left out.
        folder: for the records; what is in it is removed, before and after.
        jobs: worker processes; cores are divided among them.
        progress: show progress.
        work: what a worker does with a cell.

    Returns:
        What gives the record of one of these cells, and raises NotComputedError where there is none.

    Raises:
        KeyboardInterrupt: stopped by the user, with the workers.
        StoreError: if the folder cannot be written.
        DiskFullError: if the disk is full.
    """
    from steerlib.experiment.keys import keys_of

    todo = _each_once(bundles)
    shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed: what is found is never taken for computed
    failed: dict[Cell, str] = {}
    try:
        store = Store(folder)
        with tqdm(total=sum(map(len, todo)), unit="cell", disable=not progress) as bar:

            def note(bundle: Bundle, said: str | None, why: str = "") -> None:
                reasons = [why] * len(bundle) if said is None else json.loads(said)
                failed.update({cell: reason for cell, reason in zip(bundle, reasons, strict=True) if reason})
                bar.update(len(bundle))

            act = partial(_in_a_row, work=work)
            if jobs == 1:
                for bundle in todo:
                    note(bundle, act(bundle, str(store.folder), "cpu"))
            elif todo:
                in_processes(todo, store, act, min(jobs, len(todo)), ("cpu",), note)
        cells = [cell for bundle in todo for cell in bundle]
        # A cell that was done before its worker was killed has a record.
        found = {cell: store.get(key) for cell, key in zip(cells, keys_of(cells), strict=True)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    def one(cell: Cell) -> CellRecord:
        if (record := found.get(cell)) is None:
            raise NotComputedError(failed.get(cell, "another process was at it"))
        return record

    return one


def _each_once(bundles: Sequence[Sequence[Cell]]) -> list[Bundle]:
    """The bundles without cells that came before, and without empty ones."""
    seen: set[Cell] = set()
    kept: list[Bundle] = []
    for bundle in bundles:
        new = tuple(cell for cell in dict.fromkeys(bundle) if cell not in seen)
        seen.update(new)
        kept += [new] if new else []
    return kept


def _in_a_row(bundle: Bundle, folder: str, device: str, *, work: Work) -> str:
    """Do a bundle in a worker: JSON, for each cell why it failed, "" for one that did not."""
    return json.dumps([said_of(partial(work, cell, folder, device))[1] for cell in bundle])
