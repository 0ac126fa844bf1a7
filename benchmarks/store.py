"""What a store of cell records costs: a scan that finds nothing to do, a listing, and the machinery around one cell.

    python benchmarks/store.py

Prints a table; the last line is JSON. The records hold scores of 100 prompts; their plant is never loaded.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from steerlib.experiment.cell_records import CellRecord, Metric
from steerlib.experiment.cells import Cell, LawSpec
from steerlib.experiment.grid import missing
from steerlib.experiment.keys import keys_of
from steerlib.experiment.provenance import provenance
from steerlib.experiment.store import Store


def main(records: Annotated[int, typer.Option(min=10, help="records in the store")] = 10_000) -> None:
    """Measure and print."""
    found: dict[str, tuple[float, float]] = {}

    def timed(name: str, run: Callable[[], object]) -> None:
        start, work = time.perf_counter(), time.process_time()
        run()
        found[name] = (time.perf_counter() - start, time.process_time() - work)

    law = LawSpec(name="difference-of-means", layer=2)
    cells = [
        Cell(plant="almanac-llama", task="truth", law=law.model_copy(update={"strength": k / records}))
        for k in range(records)
    ]
    with tempfile.TemporaryDirectory() as folder:
        store, here = Store(folder), provenance()
        keys_of(cells[:1])  # reads the plant's files and the sources once
        keys: list[str] = []
        timed("keys of all cells", lambda: keys.extend(keys_of(cells)))
        metric = Metric(value=0.5, low=0.4, high=0.6, n=100)
        made = [
            CellRecord(
                key=key, cell=cell, scores={"wanted": (0.5,) * 100, "intact": (1.0,) * 100},
                metrics={"wanted": metric, "intact": metric, "combined": metric}, seconds=1.0, fit_seconds=0.1,
                memory_mb=500.0, provenance=here, created="2026-01-01T00:00:00+00:00",
            )
            for key, cell in zip(keys, cells, strict=True)
        ]  # fmt: skip

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
    for name, (seconds, work) in found.items():
        table.add_row(name, f"{seconds:.2f}", f"{work:.2f}", f"{1000 * seconds / records:.2f}")
    Console().print(table)
    print(json.dumps({name: [round(part, 3) for part in both] for name, both in found.items()}))


if __name__ == "__main__":
    typer.run(main)
