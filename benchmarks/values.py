"""How many trajectories a second a value network learns from, with states in memory and on disk.

    python benchmarks/values.py
    python benchmarks/values.py --rows 4000 --time 128 --width 4096 --hidden 4096 --batch 512 --updates 10 --device cuda

The same fit, batch for batch, takes turns between states in memory, states in shards whose pages the system holds, and
shards whose pages it was told to forget (where it can be told: not on macOS and Windows). "read" is the batches alone,
"fit" all of training. Prints a table; the last line is JSON. Owned memory counts what the process cannot give back:
mapped pages of shards are not among it.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from steerlib.control.networks import Training
from steerlib.control.rollouts import Batch, Shards, Trajectories
from steerlib.control.values import fit_value

SHARD_BYTES = 64 * 2**20


def main(
    rows: Annotated[int, typer.Option(min=10, help="trajectories")] = 2000,
    length: Annotated[int, typer.Option("--time", min=1, help="states of the longest")] = 64,
    width: Annotated[int, typer.Option(min=1, help="of a state")] = 256,
    hidden: Annotated[int, typer.Option(min=1, help="of the network")] = 256,
    layers: Annotated[int, typer.Option(min=2, max=3, help="of the network")] = 2,
    batch: Annotated[int, typer.Option(min=1, help="trajectories of an update")] = 128,
    updates: Annotated[int, typer.Option(min=1, help="of each fit")] = 15,
    rounds: Annotated[int, typer.Option(min=1, help="turns")] = 3,
    device: Annotated[str, typer.Option(help="where to train")] = "cpu",
) -> None:
    """Measure and print."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(max(1, length // 2), length + 1, (rows,), generator=draw)
    rewards = torch.randn(rows, generator=draw)
    how = Training(steps=updates, batch=batch, rate=1e-4, floor=1.0, held_out=0.0)
    with tempfile.TemporaryDirectory() as place:
        shards = write(Path(place), lengths, rewards, length, width, draw)
        size = sum(shards.path(number).stat().st_size for number in range(len(shards)))
        warm = Trajectories.open(place)
        whole = padded(warm, length)
        places: dict[str, Callable[[], Trajectories]] = {
            "memory": lambda: whole,
            "disk, held by the system": lambda: Trajectories.open(place),
        }
        if hasattr(os, "posix_fadvise"):
            places["disk, forgotten"] = lambda: (forget(shards), Trajectories.open(place))[1]
        del warm

        def read(data: Trajectories) -> None:
            order = torch.randperm(rows, generator=torch.Generator().manual_seed(1))
            for k in range(updates):
                data.take(order[(torch.arange(batch) + k * batch) % rows])

        def fit(data: Trajectories) -> None:
            fit_value(data, target="td0", hidden=hidden, layers=layers, how=how, seed=0, device=device)

        rates: dict[tuple[str, str], list[float]] = {(name, what): [] for name in places for what in ("read", "fit")}
        for turn in range(rounds + 1):
            for name, make in places.items():
                for what, run in (("read", read), ("fit", fit)):
                    data = make()
                    start = time.perf_counter()
                    run(data)
                    if turn:  # the first warms up
                        rates[name, what].append(batch * updates / (time.perf_counter() - start))
                    del data  # pages that are mapped cannot be forgotten
    table = Table(title=f"{rows} trajectories, {size / 2**20:.0f} MB; {layers} layers, hidden {hidden}, {device}")
    table.add_column("states in")
    table.add_column("read: trajectories / s", justify="right")
    table.add_column("fit: trajectories / s", justify="right")
    table.add_column("of memory's", justify="right")
    middle = {key: statistics.median(found) for key, found in rates.items()}
    for name in places:
        turns = zip(rates[name, "fit"], rates["memory", "fit"], strict=True)
        share = statistics.median(own / memory for own, memory in turns)
        table.add_row(name, f"{middle[name, 'read']:,.0f}", f"{middle[name, 'fit']:,.0f}", f"{share:.2f}")
    Console().print(table)
    shape = {"rows": rows, "time": length, "width": width, "hidden": hidden, "layers": layers, "batch": batch}
    found = [{"states": name, "what": what, "per_second": round(rate)} for (name, what), rate in middle.items()]
    print(json.dumps({**shape, "megabytes": round(size / 2**20), "owned_mb": owned_mb(), "rates": found}))


def write(
    folder: Path, lengths: torch.Tensor, rewards: torch.Tensor, length: int, width: int, draw: torch.Generator
) -> Shards:
    """Made-up trajectories in half precision."""
    size = max(1, SHARD_BYTES // (2 * length * width))
    shards = Shards.begin(folder, count=len(lengths), size=size, about={})
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


def owned_mb() -> int | None:
    """Memory of this process that no file backs; None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next((x for x in status.read_text().splitlines() if x.startswith("RssAnon")), "")
    return int(line.split()[1]) // 1024 if line else None


if __name__ == "__main__":
    typer.run(main)
