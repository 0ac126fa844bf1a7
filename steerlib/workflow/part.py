"""One job of a grid that many machines share: computes its part, and ends well only when the part is whole.

Knows what the workflow `cells.smk` may be told, and what a part must wait for. Knows nothing about schedulers.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steerlib.experiment.cells import Cell
from steerlib.experiment.grid import Outcome, part_of, read_grid, run_grid
from steerlib.experiment.store import Store
from steerlib.workflow.errors import WorkflowError, run_command

#: Seconds between two looks at cells that another process is computing.
PAUSE = 10.0
_NAMES = ("grid", "store", "shards", "device")


@dataclass(frozen=True)
class Settings:
    """What `snakemake --config` may say.

    Attributes:
        grid: file of the cells.
        store: folder of the records; on a cluster, one that all nodes see.
        shards: how many jobs the grid is cut into.
        device: where a job computes, "cpu" or "cuda".
    """

    grid: Path
    store: Path
    shards: int
    device: str

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Settings:
        """Settings from Snakemake's `config`.

        Raises:
            WorkflowError: without a grid, with a name that is not listed here, or with no whole number of shards.
        """
        unknown = sorted(set(config) - set(_NAMES))
        if unknown:
            raise WorkflowError(f"got --config {unknown[0]}=..., expected one of {', '.join(_NAMES)}")
        if "grid" not in config:
            raise WorkflowError("got no grid, expected one. Fix: --config grid=data/grids/push.yml")
        shards = str(config.get("shards", 8))
        if not shards.isdigit() or int(shards) < 1:
            raise WorkflowError(f"got shards={shards}, expected a whole number from 1: how many jobs share the grid")
        return cls(
            grid=Path(str(config["grid"])).resolve(),
            store=Path(str(config.get("store", "build/store"))).resolve(),
            shards=int(shards),
            device=str(config.get("device", "cpu")),
        )

    def parts(self, cells: Sequence[Cell]) -> list[str]:
        """Names of the parts that hold cells, such as "2-of-8"; with more shards than cells, some hold none."""
        return [f"{k}-of-{self.shards}" for k in range(1, min(self.shards, len(cells)) + 1)]

    def done(self, part: str = "{part}") -> str:
        """The empty file that says that a part is whole; by default with Snakemake's wildcard in its name."""
        return f"{self.store}/parts/{self.grid.stem}/{part}.done"


def shard_of(part: str) -> str:
    """A part's name as `part_of` and the command line say it: "2-of-8" -> "2/8"; a file name cannot hold the slash."""
    return part.replace("-of-", "/")


def fill(
    cells: Sequence[Cell],
    store: Store,
    *,
    device: str = "cpu",
    pause: float = PAUSE,
    work: Callable[[Cell, str, str], str] | None = None,
) -> Outcome:
    """Compute what is missing of some cells, and wait for those that another process is computing.

    A cell whose process dies while we wait is computed here: its lock comes back to whoever asks. A scheduler that
    was told that the part is done must find it whole, also where a node that was given up for lost goes on for a while.

    Args:
        cells: the part.
        store: where records are kept.
        device: where to compute.
        pause: seconds between two looks.
        work: see `run_grid`.

    Returns:
        Each cell once: there already, computed here, computed elsewhere meanwhile, or failed.
    """
    first = outcome = run_grid(cells, store, devices=(device,), work=work)
    computed = list(first.computed)
    while outcome.elsewhere and not outcome.failed:
        print(f"waiting for {len(outcome.elsewhere)} cells that another process is computing", flush=True)
        time.sleep(pause)
        outcome = run_grid(cells, store, devices=(device,), progress=False, work=work)
        computed += outcome.computed
    accounted = set(computed) | set(outcome.failed)
    return Outcome(
        present=first.present,
        computed=computed,
        elsewhere=[cell for cell in first.elsewhere if cell not in accounted],
        failed=outcome.failed,
    )


def main(arguments: list[str] | None = None) -> int:
    """Fill one part of a grid; 1 if a cell failed."""
    parser = argparse.ArgumentParser(description="Fill one part of a grid of cells.")
    parser.add_argument("grid", type=Path)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--part", required=True, help="such as 2-of-8")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    # Threads that wait by spinning slow down every other job of the node.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    store = Store(options.store)
    outcome = fill(part_of(read_grid(options.grid), shard_of(options.part)), store, device=options.device)
    for why in store.damaged:
        print(f"set aside and computed anew: {why}")
    print(
        f"part {options.part}: {len(outcome.present)} cells were there, {len(outcome.computed)} computed, "
        f"{len(outcome.elsewhere)} awaited from another process, {len(outcome.failed)} failed",
        flush=True,
    )
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    run_command(main)
