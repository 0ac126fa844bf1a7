"""Grids: many cells, as products of lists or as the rows of races, of which only the missing ones are computed.

Knows grid files and progress. Knows nothing about what a cell computes, how it is kept, or worker processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError, field_validator
from tqdm import tqdm

from steerlib.errors import SteerlibError
from steerlib.experiment.cells import Cell
from steerlib.experiment.store import Store
from steerlib.experiment.workers import Item, in_processes, said_of
from steerlib.experiment.yaml_files import problems, read_yaml
from steerlib.registry import TASKS, place_of


class GridError(SteerlibError, ValueError):
    """A grid file that cannot be read."""


class GridInterrupted(KeyboardInterrupt):
    """A grid was stopped by the user; says what is kept."""


class Block(BaseModel):
    """A product of lists. Keys are fields of `Cell`; "law.layer" and the like are fields of its law.

    Attributes:
        over: field -> values; every combination is a cell.
        skip: combinations to leave out: all cells that agree with one of these.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    over: dict[str, list[JsonValue]]
    skip: list[dict[str, JsonValue]] = []

    def cells(self) -> Iterator[Cell]:
        """Every cell of the block, in the order of the lists."""
        for values in itertools.product(*self.over.values()):
            flat = dict(zip(self.over, values, strict=True))
            if any(all(flat.get(name) == value for name, value in rule.items()) for rule in self.skip):
                continue
            yield Cell.model_validate(_nested(flat))


class Rows(BaseModel):
    """Rows of shipped races, scored on another task; see `steerlib.experiment.read_out`.

    Attributes:
        rows_of: names of races, whose rows stand in one table.
        raced: the task that they were scored on there.
        task: the one that they are scored on here.
        profile: whose races.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows_of: list[str]
    raced: str
    task: str
    profile: str = "tiny"

    @field_validator("raced", "task")
    @classmethod
    def _known(cls, name: str) -> str:
        place_of(name, TASKS, "task")
        return name

    def cells(self) -> Iterator[Cell]:
        """A cell for each of the races, in their order."""
        from steerlib.experiment.read_out import raced_cells, scored_on

        for cell in raced_cells(self.rows_of, self.raced, profile=self.profile):
            yield scored_on(cell, self.task)


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """{"law.fit.n": 5} -> {"law": {"fit": {"n": 5}}}; a whole law may be given, too, and is then refined."""
    out: dict[str, Any] = {}
    for name in sorted(flat, key=lambda key: key.count(".")):
        *path, last = name.split(".")
        place = out
        for part in path:
            held = place.get(part)
            place[part] = dict(held) if isinstance(held, dict) else {}
            place = place[part]
        place[last] = flat[name]
    return out


def read_grid(path: str | Path) -> list[Cell]:
    """Cells of a grid file, each once, in order.

    Raises:
        GridError: absent, not YAML, no cells, or a field misspelt or out of range; names file, block and field.
    """
    file = Path(path)
    raw = read_yaml(file, wrong=GridError, expected="a grid such as data/grids/push.yml")
    if not isinstance(raw, dict) or not isinstance(raw.get("blocks"), list) or not raw["blocks"]:
        raise GridError(f"{file}: expected `blocks:`, a list of products such as `- over: {{task: [truth]}}`")
    cells: dict[Cell, None] = {}
    for number, entry in enumerate(raw["blocks"]):
        try:
            block = (Rows if isinstance(entry, dict) and "rows_of" in entry else Block).model_validate(entry)
            if isinstance(block, Block) and (
                unused := {name for rule in block.skip for name in rule} - set(block.over)
            ):
                raise GridError(f"{file}, block {number}: skip names {sorted(unused)}, which `over` does not list")
            for cell in block.cells():
                cells[cell] = None
        except ValidationError as error:
            raise GridError(f"{file}, block {number}:\n{problems(error, whole='block')}") from error
    if not cells:
        raise GridError(f"{file}: every combination is skipped; expected at least one cell")
    return list(cells)


def part_of(cells: Sequence[Item], shard: str) -> list[Item]:
    """One part of a grid or race for one of many machines: "2/8" is every eighth cell, from the second on.

    Raises:
        GridError: if the text does not name a part.
    """
    number, _, parts = shard.partition("/")
    if not (number.isdigit() and parts.isdigit() and 1 <= int(number) <= int(parts)):
        raise GridError(f"got the part {shard!r}, expected one such as 2/8: the second of eight")
    return list(cells[int(number) - 1 :: int(parts)])


@dataclass
class Outcome:
    """What became of a grid.

    Attributes:
        present: cells whose record was there.
        computed: cells computed now.
        elsewhere: cells that another process was computing.
        failed: cells that could not be computed, with the reason.
    """

    present: list[Cell] = field(default_factory=list)
    computed: list[Cell] = field(default_factory=list)
    elsewhere: list[Cell] = field(default_factory=list)
    failed: dict[Cell, str] = field(default_factory=dict)


def missing(cells: Sequence[Cell], store: Store) -> list[Cell]:
    """Cells without a sound record; damaged records are set aside on the way.

    Only the bytes of records are checked, so a grid of ten thousand cells with nothing to do takes about a second.
    """
    from steerlib.experiment.keys import keys_of

    present = store.keys()
    found = zip(cells, keys_of(cells), strict=True)
    return [cell for cell, key in found if key not in present or not store.holds(key)]


def run_grid(
    cells: Sequence[Cell],
    store: Store,
    *,
    jobs: int = 1,
    devices: Sequence[str] = ("cpu",),
    progress: bool = True,
    work: Callable[[Cell, str, str], str] | None = None,
) -> Outcome:
    """Compute the cells whose record is missing; finished cells are kept whatever happens.

    Args:
        cells: the grid.
        store: where records are kept.
        jobs: worker processes; cores are divided among them.
        devices: workers take these in turn, such as ("cuda:0", "cuda:1").
        progress: show progress and the time left.
        work: what a worker does with (cell, store folder, device); returns "computed" or "elsewhere".

    Raises:
        GridInterrupted: stopped by the user, with the workers; says how much is kept.
        StoreError: if the store cannot be written: no cell could be kept, so none is begun any more.
        DiskFullError: if the disk is full; likewise.
    """
    todo = missing(cells, store)
    lacking = set(todo)
    outcome = Outcome(present=[cell for cell in cells if cell not in lacking])
    act = work or work_on
    with tqdm(total=len(cells), initial=len(outcome.present), unit="cell", disable=not progress) as bar:

        def note(cell: Cell, said: str | None, why: str = "") -> None:
            if said is None:
                outcome.failed[cell] = why
                bar.write(f"failed: {cell.title}: {why}")
            else:
                (outcome.computed if said == "computed" else outcome.elsewhere).append(cell)
            bar.update()

        try:
            if jobs == 1 and len(devices) == 1:
                for cell in todo:
                    said, why = said_of(lambda cell=cell: act(cell, str(store.folder), devices[0]))
                    note(cell, said, why)
            elif todo:
                in_processes(todo, store, act, jobs, devices, note)
        except KeyboardInterrupt as stopped:
            bar.close()  # leave its line before anything else is said
            kept = len(outcome.present) + len(outcome.computed)
            raise GridInterrupted(
                f"stopped: {kept} of {len(cells)} cells are in {store.folder} and are kept; the same command goes on"
            ) from stopped
    return outcome


def work_on(cell: Cell, folder: str, device: str) -> str:
    """Compute one cell unless its record has appeared meanwhile or another process is at it."""
    from steerlib.experiment.keys import key_of
    from steerlib.experiment.running import run_cell

    store = Store(folder)
    key = key_of(cell, device=device)
    with store.claim(key) as ours:
        if not ours:
            return "elsewhere"
        if not store.holds(key):
            store.put(run_cell(cell, device=device))
    return "computed"
