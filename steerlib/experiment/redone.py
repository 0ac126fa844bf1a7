"""Cells computed in worker processes, to be held against their records.

Knows that nothing computed before counts. Knows nothing about records that are believed, or what agreement is
(`verification`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell
from steerlib.experiment.grid import run_grid
from steerlib.experiment.store import Store
from steerlib.experiment.verification import Compute, NotComputedError


def redone(
    cells: Sequence[Cell],
    folder: Path,
    *,
    jobs: int,
    progress: bool = False,
    work: Callable[[Cell, str, str], str] | None = None,
) -> Compute:
    """Compute some cells, each once, and give them out.

    Args:
        cells: in an order in which neighbours share a plant and what laws are fitted on.
        folder: for the records; what is in it is removed, before and after.
        jobs: worker processes; cores are divided among them.
        progress: show progress.
        work: what a worker does; see `grid.run_grid`.

    Returns:
        What gives the record of one of these cells, and raises NotComputedError where there is none.

    Raises:
        GridInterrupted: stopped by the user, with the workers.
        StoreError: if the folder cannot be written.
        DiskFullError: if the disk is full.
    """
    from steerlib.experiment.keys import keys_of

    todo = list(dict.fromkeys(cells))
    shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed: what is found is never taken for computed
    try:
        store = Store(folder)
        outcome = run_grid(todo, store, jobs=min(jobs, max(1, len(todo))), progress=progress, work=work)
        found = dict(zip(outcome.computed, map(store.get, keys_of(outcome.computed)), strict=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)

    def one(cell: Cell) -> CellRecord:
        if (record := found.get(cell)) is None:
            raise NotComputedError(outcome.failed.get(cell, "another process was at it"))
        return record

    return one
