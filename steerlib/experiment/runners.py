"""Where a race gets its measurements from: cells and calibrations, kept in a store or computed.

Knows stores, plants and budgets. Knows nothing about methods, choices or tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydantic import JsonValue

from steerlib.experiment.calibrate import Budget, Calibration, calibrate, cost_of
from steerlib.experiment.calibrations import Calibrations
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell
from steerlib.experiment.selecting import RaceError
from steerlib.experiment.store import Store
from steerlib.plant import Plant

#: How a cost grows with a small multiplier, near enough to guess by: as its square, since it is least at zero.
POWER: dict[str, float] = {"kl": 2.0, "energy": 2.0}
#: Significant digits of a multiplier that spends a budget: processors that differ in the last ones then name one cell.
DIGITS = 3
#: Computes cells, in order.
Runner = Callable[[Sequence[Cell]], Sequence[CellRecord]]
#: Finds the multiplier of a cell's law that spends the budget, beginning at that of the cell; it is used as it is, so
#: that its cost is what is spent.
Spender = Callable[[Cell], Calibration]


def stored(store: Store, *, jobs: int = 1, devices: Sequence[str] = ("cpu",), progress: bool = False) -> Runner:
    """A runner that keeps every cell in a store and computes only what is missing.

    Its calls raise RaceError if a cell cannot be computed, or another process is at it.
    """

    def run(cells: Sequence[Cell]) -> list[CellRecord]:
        from steerlib.experiment.grid import run_grid
        from steerlib.experiment.keys import key_of

        todo = list(dict.fromkeys(cells))
        outcome = run_grid(todo, store, jobs=jobs, devices=devices, progress=progress)
        if outcome.failed:
            lines = [f"  {cell.title}: {why}" for cell, why in outcome.failed.items()]
            raise RaceError("\n".join([f"{len(lines)} of {len(todo)} cells cannot be computed:", *lines]))
        found = {cell: store.get(key_of(cell)) for cell in todo}
        if lacking := [cell.title for cell, record in found.items() if record is None]:
            raise RaceError(f"{lacking[0]}: is being computed by another process. Fix: run again when it is done.")
        return [record for cell in cells if (record := found[cell]) is not None]

    return run


@dataclass(frozen=True)
class Spending:
    """Spends one budget on validation prompts; see `cost_of` and `calibrate` for what these are.

    Called with a cell, it gives the calibration of the cell's law, searched from the cell's multiplier.

    Attributes:
        budget: how much every law spends.
        measure: of what; "perplexity" needs a reader.
        reader: name, folder or hub id of the plant that reads the answers, another than the steered one.
        limit: validation prompts, spread evenly.
        max_new_tokens: length of the answers.
        tolerance: how close the cost must come, as a share of the budget.
        most: evaluations of the cost.
        seed: of the answers.
        device: where the plants run.
        store: where calibrations are kept, beside the records, so that a race that was killed goes on; None for none.

    Raises:
        RaceError: if perplexity is to be measured without a reader, or there is one for another measure.
    """

    budget: float
    measure: Budget = "kl"
    reader: str | None = None
    limit: int = 20
    max_new_tokens: int = 32
    tolerance: float = 0.02
    most: int = 16
    seed: int = 0
    device: str = "cpu"
    store: Store | None = None

    def __post_init__(self) -> None:
        """Refuse a reader where none is needed, and a measure that lacks one."""
        if (self.reader is None) == (self.measure == "perplexity"):
            raise RaceError(
                f"Spending: got measure={self.measure!r} and reader={self.reader!r}; expected the name of another "
                "plant than the steered one as the reader for 'perplexity', and none for others."
            )

    def settings(self, cell: Cell) -> dict[str, JsonValue]:
        """All that decides what is found for a cell, in this installation; see `calibrations.calibration_key`."""
        from steerlib.experiment.keys import key_of, plant_identity

        return {
            "cell": key_of(cell, device=self.device), "budget": self.budget, "measure": self.measure,
            "limit": self.limit, "max_new_tokens": self.max_new_tokens, "tolerance": self.tolerance, "most": self.most,
            "seed": self.seed, "power": POWER.get(self.measure), "digits": DIGITS,
            "reader": "" if self.reader is None else plant_identity(self.reader, device=self.device)[0],
        }  # fmt: skip

    def __call__(self, cell: Cell) -> Calibration:
        """The multiplier at which the cell's law spends the budget: the one that is kept, or searched now.

        Raises:
            RaceError: if the cell has no law.
        """
        if self.store is None or cell.law is None:
            return self._search(cell)
        kept, settings = Calibrations(self.store), self.settings(cell)
        found = kept.get(settings)
        if found is None:
            found = self._search(cell)
            kept.put(settings, found)
        return found

    def cost(self, cell: Cell) -> Callable[[float], float]:
        """The cost of a multiplier of the cell's law, as it is searched.

        Raises:
            RaceError: if the cell has no law.
        """
        from steerlib.experiment.running import task_and_law
        from steerlib.tasks.base import spread

        if cell.law is None:
            raise RaceError(f"{cell.title}: nothing to spend a budget on")
        task, law = task_and_law(cell, device=self.device)
        return cost_of(
            task.plant, law, spread(task.prompts("validation"), self.limit), budget=self.measure,
            reader=None if self.reader is None else _reader(self.reader, self.device), scope=cell.law.scope,
            max_new_tokens=self.max_new_tokens, seed=self.seed,
        )  # fmt: skip

    def _search(self, cell: Cell) -> Calibration:
        start = 1.0 if cell.law is None else cell.law.strength
        return calibrate(
            self.cost(cell), self.budget, start=start, tolerance=self.tolerance, most=self.most,
            power=POWER.get(self.measure), digits=DIGITS,
        )  # fmt: skip


@lru_cache(maxsize=1)
def _reader(name: str, device: str) -> Plant:
    """The plant that reads, loaded when it is first needed, and once."""
    return Plant.load(name, device=device)


def replayed(records: Iterable[CellRecord]) -> Runner:
    """A runner that computes nothing: it finds every cell among records.

    Its calls raise RaceError for a cell that is not among them.
    """
    known = {record.cell: record for record in records}

    def run(cells: Sequence[Cell]) -> list[CellRecord]:
        if lacking := [cell for cell in cells if cell not in known]:
            raise RaceError(
                f"{len(lacking)} of {len(cells)} cells have no record among the {len(known)} given, such as "
                f"{lacking[0].title}. Fix: compute the race anew, `steerlib run data/races/NAME.yml`"
            )
        return [known[cell] for cell in cells]

    return run
