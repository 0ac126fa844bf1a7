"""Both stages of a rerun, computed into a store.

Knows grids and stores. Knows nothing about how a table looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell, canonical
from steerlib.experiment.grid import missing, part_of, run_grid
from steerlib.experiment.keys import keys_of
from steerlib.experiment.rerun import Find, Rerun
from steerlib.experiment.rerun_tables import Tested, tested
from steerlib.experiment.store import Store


@dataclass(frozen=True)
class Done:
    """What became of a rerun.

    Attributes:
        stages: what is tested, setting by setting.
        present: cells whose record was there.
        computed: cells computed now.
        failed: cells that could not be computed.
        lacking: cells that are left, to another process or to the next call.
    """

    stages: tuple[Tested, ...]
    present: int
    computed: int
    failed: int
    lacking: int

    @property
    def whole(self) -> bool:
        """Whether every cell has been tried, so that the table can be printed; what failed is a gap in it."""
        return self.lacking == 0

    @property
    def told(self) -> str:
        """In words."""
        return (
            f"{self.present} cells were there, {self.computed} computed, {self.failed} failed, {self.lacking} are left"
        )


def both_stages(
    rerun: Rerun,
    place: Store,
    *,
    jobs: int = 1,
    devices: Sequence[str] = ("cpu",),
    shard: str = "1/1",
    say: Callable[[str], None] = print,
) -> Done:
    """Validate, choose, and test what is due.

    With a shard of several, a process computes its part of the cells that are due; a setting is tested once all of its
    validation has a record, so that the command is run again when the first stage is done, whoever did it.

    Args:
        rerun: which table.
        place: where records are kept.
        jobs: see `run_grid`.
        devices: likewise.
        shard: such as "2/8"; see `part_of`.
        say: what is told along the way goes here.

    Raises:
        GridError, StoreError, GridInterrupted: see `run_grid`.
    """
    first = rerun.validation()
    say(f"validation: {len(first)} cells")
    tried = run_grid(part_of(first, shard), place, jobs=jobs, devices=devices) if first else None
    failed = dict(tried.failed) if tried is not None else {}
    # Elsewhere, or in another shard: what is still to come, failures of our own aside.
    waiting = [cell for cell in missing(first, place) if cell not in failed]
    ready = [s for s in rerun.settings if not any(cell in waiting for _, _, cell in rerun.trials(s))]
    stages = [one for one in tested(rerun, look(first, place)) if one.setting in ready]
    for one in stages:
        for row, choice in one.choices.items():
            say(f"{one.setting}, {row}: {choice.said}")
    second = list(dict.fromkeys(cell for one in stages for _, cell in one.cells))
    # Neighbours share a plant, then a task, then what was measured on its texts of one seed.
    plants = list(dict.fromkeys(cell.plant for cell in second))
    tasks = {cell: canonical({"tasks": cell.tasks}) for cell in second}
    names = list(dict.fromkeys(tasks.values()))
    second.sort(key=lambda cell: (plants.index(cell.plant), names.index(tasks[cell]), cell.seed))
    say(f"test: {len(second)} cells")
    ran = run_grid(part_of(second, shard), place, jobs=jobs, devices=devices) if second else None
    outcomes = [outcome for outcome in (tried, ran) if outcome is not None]
    failed |= ran.failed if ran is not None else {}
    left = [cell for cell in missing(second, place) if cell not in failed]
    return Done(
        tuple(stages),
        sum(len(o.present) for o in outcomes),
        sum(len(o.computed) for o in outcomes),
        len(failed),
        len(waiting) + len(left) + (len(rerun.settings) - len(ready) if not waiting else 0),
    )


def look(cells: Sequence[Cell], place: Store) -> Find:
    """A function that gives the record of each of these cells, None where there is none."""
    found = dict(zip(cells, (place.get(key) for key in keys_of(cells)), strict=True))
    return found.get


def finder(rerun: Rerun, place: Store, stages: Sequence[Tested]) -> dict[Cell, CellRecord]:
    """The records of both stages, by cell."""
    cells = list(dict.fromkeys([*rerun.validation(), *(cell for one in stages for _, cell in one.cells)]))
    kept = zip(cells, (place.get(key) for key in keys_of(cells)), strict=True)
    return {cell: record for cell, record in kept if record is not None}
