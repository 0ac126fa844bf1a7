"""Horse races: every method at its own paper's setting and at equal budget, beside its negative controls.

Knows methods as data, what is measured where, and how the outcome becomes a table. Knows nothing about how a cell is
computed or a budget spent: both are handed in, so that a store can keep every measurement.

The rules are the same for all that run. Whatever may be chosen (layer, strength) is chosen on validation prompts, and
controls choose as freely as methods do. Test prompts are measured once, after the choice. Differences are paired over
prompts and seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from steerlib.experiment.calibrate import Budget, Calibration, calibrate, cost_of, rounded
from steerlib.experiment.calibrations import Calibrations
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell, LawSpec
from steerlib.experiment.judge_spec import JudgeSpec
from steerlib.experiment.methods import TOLD, UNSTEERED, Method, seeded
from steerlib.experiment.selecting import RaceError, ScoreName, Selection, score_of, select_on_validation
from steerlib.experiment.store import Store
from steerlib.plant import Plant

if TYPE_CHECKING:
    import pandas as pd

Setting = Literal["own", "budget", "none"]
#: Computes cells, in order.
Runner = Callable[[Sequence[Cell]], Sequence[CellRecord]]
#: Finds the multiplier of a cell's law that spends the budget; it is used as it is, so that its cost is what is spent.
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


def spender(
    budget: float,
    *,
    measure: Budget = "kl",
    reader: str | None = None,
    limit: int = 20,
    max_new_tokens: int = 32,
    tolerance: float = 0.02,
    most: int = 16,
    seed: int = 0,
    device: str = "cpu",
    store: Store | None = None,
) -> Spender:
    """A spender of one budget on validation prompts; see `cost_of` and `calibrate` for its arguments.

    Args:
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
    if (reader is None) == (measure == "perplexity"):
        raise RaceError(
            f"spender: got measure={measure!r} and reader={reader!r}; expected the name of another plant than the "
            "steered one as the reader for 'perplexity', and none for others."
        )
    kept = None if store is None else Calibrations(store)
    reading = cache(lambda name: Plant.load(name, device=device))  # loaded when first needed, and once

    def spend(cell: Cell) -> Calibration:
        from steerlib.experiment.keys import key_of, plant_identity
        from steerlib.experiment.running import task_and_law
        from steerlib.tasks.base import spread

        if cell.law is None:
            raise RaceError(f"{cell.title}: nothing to spend a budget on")
        settings: dict[str, JsonValue] = {}
        if kept is not None:
            settings = {
                "cell": key_of(cell, device=device), "budget": budget, "measure": measure, "limit": limit,
                "max_new_tokens": max_new_tokens, "tolerance": tolerance, "most": most, "seed": seed,
                "reader": "" if reader is None else plant_identity(reader, device=device)[0],
            }  # fmt: skip
            if (found := kept.get(settings)) is not None:
                return found
        task, law = task_and_law(cell, device=device)
        prompts = spread(task.prompts("validation"), limit)
        cost = cost_of(
            task.plant, law, prompts, budget=measure, reader=None if reader is None else reading(reader),
            scope=cell.law.scope, max_new_tokens=max_new_tokens, seed=seed,
        )  # fmt: skip
        found = rounded(calibrate(cost, budget, start=cell.law.strength, tolerance=tolerance, most=most), cost)
        if kept is not None:
            kept.put(settings, found)
        return found

    return spend


@dataclass(frozen=True)
class Entry:
    """What one method did at one setting.

    Attributes:
        name: of the method or baseline.
        setting: "own", "budget", or "none" for a baseline.
        control: it is there to fail.
        records: test records, one for each seed; empty where it could not run.
        selection: what was chosen from; None for a baseline, or where nothing could be.
        calibrations: of the chosen candidate, one for each seed, or of all that failed.
        note: why it could not run, "" otherwise.
    """

    name: str
    setting: Setting
    control: bool = False
    records: tuple[CellRecord, ...] = ()
    selection: Selection | None = None
    calibrations: tuple[Calibration, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Race:
    """Outcome of a race.

    Attributes:
        entries: baselines, then every method at every setting.
        against: whom each is compared with.
        level: of the intervals is one minus this; of the tests this.
    """

    entries: tuple[Entry, ...]
    against: tuple[str, ...]
    level: float = 0.05

    def table(self, *, seed: int = 0, resamples: int = 2000) -> pd.DataFrame:
        """One row for each entry, metric and opponent; see `steerlib.experiment.standings`."""
        from steerlib.experiment.standings import standings

        return standings(self, seed=seed, resamples=resamples)


@dataclass
class _Course:
    """What all entries share."""

    plant: str
    task: str
    task_options: dict[str, JsonValue]
    kind: Literal["exact", "sampled"]
    seeds: tuple[int, ...]
    limits: dict[str, int | None]
    run: Runner
    judges: dict[str, JudgeSpec]
    measured: dict[Cell, CellRecord] = field(default_factory=dict)

    def cells(self, law: LawSpec | None, split: Literal["validation", "test"], *, told: bool = False) -> list[Cell]:
        """One cell for each seed; without sampling, the seed moves the law alone."""
        return [
            Cell(
                plant=self.plant, task=self.task, task_options=self.task_options, kind=self.kind, split=split,
                law=None if law is None else seeded(law, seed), told=told, limit=self.limits[split],
                seed=seed if self.kind == "sampled" else 0, judges=self.judges,
            )
            for seed in self.seeds
        ]  # fmt: skip

    def measure(self, groups: Sequence[Sequence[Cell]]) -> list[tuple[CellRecord, ...]]:
        """Records of groups of cells, those that are missing computed together."""
        todo = [cell for cell in dict.fromkeys(c for group in groups for c in group) if cell not in self.measured]
        if todo:
            records = self.run(todo)
            if len(records) != len(todo):
                raise RaceError(f"the runner gave {len(records)} records for {len(todo)} cells.")
            self.measured.update(zip(todo, records, strict=True))
        return [tuple(self.measured[cell] for cell in group) for group in groups]


def horse_race(
    methods: Sequence[Method],
    *,
    plant: str,
    task: str,
    run: Runner,
    spend: Spender | None = None,
    task_options: dict[str, JsonValue] | None = None,
    kind: Literal["exact", "sampled"] = "exact",
    seeds: Sequence[int] = (0,),
    limit: int | None = None,
    validation_limit: int | None = None,
    score: ScoreName = "combined",
    keep: float = 0.9,
    against: Sequence[str] = (UNSTEERED,),
    told: bool = False,
    level: float = 0.05,
    judges: dict[str, JudgeSpec] | None = None,
) -> Race:
    """Run every method at its own setting and, if a spender is given, at equal budget.

    Args:
        methods: negative controls among them; see `controls_of`.
        plant: name, folder or hub id.
        task: see `steerlib.registry.TASKS`.
        run: computes cells, such as `stored(store)`.
        spend: finds the multiplier that spends the budget, such as `spender(0.1)`; None for the own settings alone.
        task_options: arguments of the task's constructor.
        kind: "exact", or "sampled".
        seeds: what laws are fitted on, and what is sampled.
        limit: test prompts, spread evenly; None for all.
        validation_limit: validation prompts.
        score: what is maximised on validation prompts.
        keep: share of the unsteered plant's intact score that a candidate must keep there.
        against: whom each method is compared with: "unsteered", "told", or a method at the same setting.
        told: also measure the unsteered plant told by name what is wanted.
        level: of tests and intervals.
        judges: who judges sampled answers; see `Cell`.

    Raises:
        RaceError: if there is no method or no negative control, a name or a seed comes twice, or an opponent is
            unknown.
    """
    _check(methods, seeds, against, told=told, keep=keep, level=level)
    course = _Course(
        plant,
        task,
        task_options or {},
        kind,
        tuple(seeds),
        {"test": limit, "validation": validation_limit},
        run,
        judges or {},
    )
    (bare,) = course.measure([course.cells(None, "validation")])
    floor = keep * score_of(bare, "intact")
    plans = [_at_own(method, course) for method in methods]
    if spend is not None:
        plans += [_at_budget(method, course, spend) for method in methods]
    # All of validation in one batch, then all of the test: a runner with many workers is kept busy.
    course.measure([cells for plan in plans for cells in plan.cells])
    chosen = [_choose(plan, course, score, floor) for plan in plans]
    baselines = [(UNSTEERED, course.cells(None, "test"))]
    if told:
        baselines.append((TOLD, course.cells(None, "test", told=True)))
    tests = course.measure([cells for _, cells in baselines] + [cells for _, cells in chosen if cells])
    entries = [Entry(name, "none", records=tests.pop(0)) for name, _ in baselines]
    entries += [replace(entry, records=tests.pop(0)) if cells else entry for entry, cells in chosen]
    return Race(tuple(entries), tuple(against), level)


def _check(
    methods: Sequence[Method], seeds: Sequence[int], against: Sequence[str], *, told: bool, keep: float, level: float
) -> None:
    names = [method.name for method in methods]
    if not methods or all(method.control for method in methods):
        raise RaceError("horse_race: got no method.")
    if not any(method.control for method in methods):
        raise RaceError("horse_race: got no negative control. Fix: add those of controls_of(method).")
    if len(set(names)) < len(names) or len(set(seeds)) < len(seeds) or not seeds:
        raise RaceError(f"horse_race: got the methods {names} and seeds {list(seeds)}, expected each once.")
    known = [UNSTEERED, *([TOLD] if told else []), *names]
    if strange := [name for name in against if name not in known]:
        raise RaceError(f"horse_race: cannot compare with {strange[0]!r}; known are {', '.join(known)}.")
    if not 0 <= keep <= 1 or not 0 < level < 1:
        raise RaceError(f"horse_race: got keep={keep}, level={level}; expected shares.")


@dataclass(frozen=True)
class _Plan:
    """Candidates of one method at one setting: validation and test cells of each, one for each seed."""

    entry: Entry
    cells: list[list[Cell]]
    tests: list[list[Cell]]
    calibrations: list[tuple[Calibration, ...]]


def _at_own(method: Method, course: _Course) -> _Plan:
    laws = list(dict.fromkeys(method.laws))
    return _Plan(
        Entry(method.name, "own", method.control),
        [course.cells(law, "validation") for law in laws],
        [course.cells(law, "test") for law in laws],
        [() for _ in laws],
    )


def _at_budget(method: Method, course: _Course, spend: Spender) -> _Plan:
    """One candidate for each place that the paper's setting names; under each seed it spends the budget by itself."""
    places: dict[LawSpec, LawSpec] = {}
    for law in method.laws:
        if law.strength != 0:
            sign = 1.0 if law.strength > 0 else -1.0
            places.setdefault(law.model_copy(update={"strength": sign}), law)
    plan = _Plan(Entry(method.name, "budget", method.control), [], [], [])
    failed: list[Calibration] = []
    for law in places.values():
        cells = course.cells(law, "validation")
        found = [spend(cell) for cell in cells]
        if not all(calibration.reached for calibration in found):
            failed += [calibration for calibration in found if not calibration.reached]
            continue
        plan.calibrations.append(tuple(found))
        for into, group in ((plan.cells, cells), (plan.tests, course.cells(law, "test"))):
            pairs = zip(group, found, strict=True)
            into.append([_with_strength(cell, calibration.strength) for cell, calibration in pairs])
    if not plan.cells:
        note = failed[0].message if failed else "its own setting has no multiplier but 0, so no direction"
        return replace(plan, entry=replace(plan.entry, calibrations=tuple(failed), note=note))
    return plan


def _with_strength(cell: Cell, strength: float) -> Cell:
    """The cell at the multiplier that a spender found."""
    if cell.law is None:
        raise RaceError(f"{cell.title}: has no law")
    return cell.model_copy(update={"law": cell.law.model_copy(update={"strength": strength})})


def _choose(plan: _Plan, course: _Course, score: ScoreName, floor: float) -> tuple[Entry, list[Cell]]:
    """The entry without its test records, and the cells that they come from; no cell where nothing could be chosen."""
    if not plan.cells:
        return plan.entry, []
    selection = select_on_validation(course.measure(plan.cells), score=score, floor=floor)
    if selection.chosen is None:
        return replace(plan.entry, selection=selection, note=selection.message), []
    entry = replace(plan.entry, selection=selection, calibrations=plan.calibrations[selection.chosen])
    return entry, plan.tests[selection.chosen]
