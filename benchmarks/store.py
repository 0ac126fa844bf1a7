"""What a store of cell records costs: a scan that finds nothing to do, a listing, and the machinery around one cell.

    python benchmarks/store.py

Prints a table; the last line is JSON. The records hold scores of 100 prompts; their plant is never loaded. The overhead
of a cell as run is all that `work_on` and `run_cell` do besides measuring; that of a task on public data is measured
where STEERLIB_DATA holds them.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from steerlib.data.reading import DataError
from steerlib.experiment.cell_records import CellRecord, Metric
from steerlib.experiment.cells import Cell, LawSpec
from steerlib.experiment.grid import missing
from steerlib.experiment.keys import key_of, keys_of
from steerlib.experiment.provenance import provenance
from steerlib.experiment.records import Provenance
from steerlib.experiment.store import Store
from steerlib.registry import task_class


def main(records: Annotated[int, typer.Option(min=10, help="records in the store")] = 10_000) -> None:
    """Measure and print."""
    found: dict[str, tuple[float, float, int]] = {}

    def timed(name: str, run: Callable[[], object], count: int = records) -> None:
        start, work = time.perf_counter(), time.process_time()
        run()
        found[name] = (time.perf_counter() - start, time.process_time() - work, count)

    law = LawSpec(name="difference-of-means", layer=2)
    cells = [
        Cell(plant="almanac-llama", task="truth", law=law.model_copy(update={"strength": k / records}))
        for k in range(records)
    ]
    with tempfile.TemporaryDirectory() as folder:
        store, here = Store(folder), provenance()
        keys_of(cells[:1])  # reads the plant's files and the sources once
        keys: list[str] = []
        apart = Store(Path(folder) / "apart")
        for name, some in as_run(law).items():
            timed(f"{name}: overhead of the first cell as run", lambda some=some: around(some[:1], apart), 1)
            timed(f"{name}: overhead of the next, as run", lambda some=some: around(some[1:], apart), len(some) - 1)
        timed("keys of all cells", lambda: keys.extend(keys_of(cells)))
        made = [record_of(cell, key, here) for key, cell in zip(keys, cells, strict=True)]

        def keep() -> None:
            for record in made:
                with store.claim(record.key):
                    store.put(record)

        timed("claiming and writing all records", keep)
        timed("scan with nothing to do: keys, and the bytes of all records", lambda: missing(cells, store))
        timed("reading all records", lambda: sum(1 for _ in store.records()))
        timed("table of all records", store.frame)
    table = Table(title=f"a store of {records:,} records", title_justify="left")
    # Where other processes share the cores, the second column is the one to look at.
    for column in ("what", "seconds", "of the processor", "milliseconds a record"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, (seconds, work, count) in found.items():
        table.add_row(name, f"{seconds:.2f}", f"{work:.2f}", f"{1000 * seconds / count:.2f}")
    Console().print(table)
    print(json.dumps({name: [round(seconds, 3), round(work, 3)] for name, (seconds, work, _) in found.items()}))


def record_of(cell: Cell, key: str, origin: Provenance) -> CellRecord:
    """A record with made-up scores of 100 prompts."""
    metric = Metric(value=0.5, low=0.4, high=0.6, n=100)
    return CellRecord(
        key=key, cell=cell, scores={"wanted": (0.5,) * 100, "intact": (1.0,) * 100},
        metrics={"wanted": metric, "intact": metric, "combined": metric}, seconds=1.0, fit_seconds=0.1,
        memory_mb=500.0, provenance=origin, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def as_run(law: LawSpec, n: int = 21) -> dict[str, list[Cell]]:
    """Neighbouring cells of one task each: one without files, and those on public data that are here."""
    tasks: dict[str, dict[str, JsonValue]] = {
        "truth": {}, "truthfulqa": {}, "real-toxicity": {}, "preference": {}, "harmful-requests": {}, "mmlu": {},
    }  # fmt: skip
    return {
        task: [
            Cell(plant="almanac-llama", task=task, task_options=options, law=law.model_copy(update={"strength": k / n}))
            for k in range(n)
        ]
        for task, options in tasks.items()
        if here(task, options)
    }


def here(task: str, options: dict[str, JsonValue]) -> bool:
    """Whether a task's data are on this machine; asked of the task, so that no key is known beforehand."""
    try:
        task_class(task).data_files(options)
    except DataError:
        return False
    return True


def around(cells: list[Cell], store: Store) -> None:
    """What `work_on` and `run_cell` do to each cell besides measuring."""
    for cell in cells:
        key = key_of(cell)
        with store.claim(key):
            if not store.holds(key):
                store.put(record_of(cell, key_of(cell), provenance()))


if __name__ == "__main__":
    typer.run(main)
