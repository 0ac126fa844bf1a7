"""How many trajectories a second a value network learns from, against reading the same ones from disk.

    python benchmarks/values.py
    python benchmarks/values.py --rows 4000 --batch 512 --device cuda

As in the paper the network is as wide as the states, 4096, with two layers, and a trajectory has up to 128 states. They
lie in shards on disk, and only the pages of a batch are in use: what the process owns does not grow with their number.
The same batches are read alone ("read") and learned from ("fit"), in turn, from shards whose pages the system holds,
and from shards whose pages it was told to forget (where it can be told: not on macOS and Windows); with `--memory` also
from padded states in memory, which then have to fit there.

Prints a table; the last line is JSON. Ratios are medians over the turns, with their 95 % intervals: fit over read says
which share of the speed of the disk is used, and so whether reading could ever be what training waits for. Owned memory
is the most that no file backs: mapped pages of shards are not among it, the network's weights, gradients and moments
are.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from common.timing import Clock, Spent, ratio, spent
from rich.console import Console
from rich.table import Table

from steerlib.control.networks import Training
from steerlib.control.rollouts import Batch, Shards, Trajectories
from steerlib.control.values import fit_value

SHARD_BYTES = 64 * 2**20
WARM, COLD, HELD = "disk, held by the system", "disk, forgotten", "memory"


def main(
    rows: Annotated[int, typer.Option(min=10, help="trajectories")] = 500,
    length: Annotated[int, typer.Option("--time", min=2, help="states of the longest")] = 128,
    width: Annotated[int, typer.Option(min=1, help="of a state")] = 4096,
    hidden: Annotated[int | None, typer.Option(min=1, help="of the network; as wide as the states by default")] = None,
    layers: Annotated[int, typer.Option(min=2, max=3, help="of the network")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="trajectories of an update")] = 32,
    updates: Annotated[int, typer.Option(min=1, help="of each fit")] = 5,
    rounds: Annotated[int, typer.Option(min=1, help="turns")] = 5,
    memory: Annotated[bool, typer.Option(help="also with all states in memory")] = False,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = min(2, os.cpu_count() or 1),
    device: Annotated[str, typer.Option(help="where to train")] = "cpu",
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    shape = {
        "rows": rows, "time": length, "width": width, "hidden": hidden or width, "layers": layers, "batch": batch,
        "updates": updates, "rounds": rounds, "threads": threads, "device": device,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        shards = write(Path(place), rows, length, width)
        size = sum(shards.path(number).stat().st_size for number in range(len(shards)))
        found, owned = measured(
            places_of(shards, length, memory=memory), batch=batch, updates=updates, hidden=hidden or width,
            layers=layers, rounds=rounds, device=device,
        )  # fmt: skip
    out = [row_of(name, times, batch * updates, found) for name, times in found.items()]
    title = (
        f"{rows:,} trajectories, {size / 2**20:,.0f} MB on disk; {layers} layers, hidden {hidden or width}, {device}"
    )
    Console(width=130).print(table_of(out, f"{title}, {threads} thread(s); {owned or 0:,} MB owned"))
    print(json.dumps({**shape, "megabytes": round(size / 2**20, 3), "owned_mb": owned, "rates": out}))


def measured(
    places: dict[str, Callable[[], Trajectories]],
    *,
    batch: int,
    updates: int,
    hidden: int,
    layers: int,
    rounds: int,
    device: str,
    clock: Clock | None = None,
) -> tuple[dict[str, dict[str, list[Spent]]], int | None]:
    """What reading and training took from each place, in turn; and the most memory that was owned, in MB.

    Args:
        places: name -> opens the trajectories anew.
        batch: trajectories of an update.
        updates: of each fit.
        hidden: of the network.
        layers: of the network.
        rounds: turns; one more warms up.
        device: where to train.
        clock: where seconds are read; the machine's own by default.

    Returns:
        Name -> "read" or "fit" -> one a turn; and the memory, None where the system does not say.
    """
    how = Training(steps=updates, batch=batch, rate=1e-4, floor=1.0, held_out=0.0)
    found: dict[str, dict[str, list[Spent]]] = {name: {"read": [], "fit": []} for name in places}
    most = 0
    for turn in range(rounds + 1):
        for name, opened in places.items():
            for what in ("read", "fit"):
                data = opened()

                def work(data: Trajectories = data, what: str = what) -> object:
                    if what == "read":
                        return read(data, batch, updates)
                    return fit_value(data, target="td0", hidden=hidden, layers=layers, how=how, seed=0, device=device)

                with Owned() as owned:
                    took = spent(work, clock)
                del data, work  # pages that are mapped cannot be forgotten
                most = max(most, owned.most)
                if turn:
                    found[name][what].append(took)
    return found, most or None


class Owned:
    """The most memory of this process that no file backs while a block runs, in MB; 0 where the system does not say."""

    def __enter__(self) -> Owned:
        """Begin to look, some times a second."""
        self.most, self._over = owned_mb(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.most = max(self.most, owned_mb())


def read(data: Trajectories, batch: int, updates: int) -> float:
    """As many batches as a fit takes, of rows in random order; every number is looked at, as it is in training."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    seen = 0.0
    for k in range(updates):
        rows = order[(torch.arange(batch) + k * batch) % len(order)]
        seen += float(data.take(rows).states.sum(dtype=torch.float32))
    return seen


def places_of(shards: Shards, length: int, *, memory: bool) -> dict[str, Callable[[], Trajectories]]:
    """Where states are read from, by name."""
    found: dict[str, Callable[[], Trajectories]] = {WARM: lambda: Trajectories.open(shards.folder)}
    if hasattr(os, "posix_fadvise"):
        found[COLD] = lambda: (forget(shards), Trajectories.open(shards.folder))[1]
    if memory:
        whole = padded(Trajectories.open(shards.folder), length)
        found[HELD] = lambda: whole
    return found


def row_of(
    name: str, times: dict[str, list[Spent]], count: int, found: dict[str, dict[str, list[Spent]]]
) -> dict[str, Any]:
    """Rates of one place, and how they stand to each other and to those of memory."""
    walls = {what: [one.wall for one in own] for what, own in times.items()}
    rates = {f"{what}_per_second": round(count / statistics.median(own), 1) for what, own in walls.items()}
    processor = round(statistics.median(one.processor for one in times["fit"]), 3)
    row: dict[str, Any] = {"states": name, **rates, "fit_over_read": ratio(walls["read"], walls["fit"])}
    row["fit_processor_s"] = processor
    if HELD in found:
        row["fit_over_memory"] = ratio([one.wall for one in found[HELD]["fit"]], walls["fit"])
    return row


def table_of(rows: list[dict[str, Any]], title: str) -> Table:
    """Rows as they are printed."""
    table = Table(title=title, title_justify="left")
    columns = ("read: trajectories / s", "fit: trajectories / s", "fit over read", "95 %", "over memory's")
    table.add_column("states in")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        share, held = row["fit_over_read"], row.get("fit_over_memory")
        ends = f"{share['low']:.4f} to {share['high']:.4f}"
        table.add_row(
            row["states"], f"{row['read_per_second']:,.0f}", f"{row['fit_per_second']:,.1f}", f"{share['ratio']:.4f}",
            ends, f"{held['ratio']:.2f}" if held else "",
        )  # fmt: skip
    return table


def write(folder: Path, rows: int, length: int, width: int) -> Shards:
    """Made-up trajectories in half precision, shard by shard."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(max(1, length // 2), length + 1, (rows,), generator=draw)
    rewards = torch.randn(rows, generator=draw)
    size = max(1, SHARD_BYTES // (2 * length * width))
    shards = Shards.begin(folder, count=rows, size=size, about={})
    for number in shards.missing:
        own = slice(shards.rows(number).start, shards.rows(number).stop)
        states = torch.randn(int(lengths[own].sum()), width, generator=draw).bfloat16()
        shards.write(number, Batch(states, lengths[own], rewards[own]))
    return shards


def padded(data: Trajectories, length: int) -> Trajectories:
    """The same, in memory, padded to the longest."""
    states = torch.zeros(len(data), length, data.width, dtype=torch.bfloat16)
    for row in range(len(data)):
        one = data.take(torch.tensor([row])).states
        states[row, : len(one)] = one
    return Trajectories(states, data.lengths, data.rewards)


def forget(shards: Shards) -> None:
    """Ask the system to drop the pages of the shards, so that they are read from the disk again."""
    for number in range(len(shards)):
        with shards.path(number).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def owned_mb() -> int:
    """Memory of this process that no file backs; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next((x for x in status.read_text().splitlines() if x.startswith("RssAnon")), "")
    return int(line.split()[1]) // 1024 if line else 0


if __name__ == "__main__":
    typer.run(main)
