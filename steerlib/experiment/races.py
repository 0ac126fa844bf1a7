"""Horse races: every method at its own paper's setting and at equal budget, beside its negative controls.

Knows methods as data, what is measured where, and how the outcome becomes a table. Knows nothing about how a cell is
computed or a budget spent: both are handed in, so that a store can keep every measurement.

The rules are the same for all that run. Whatever may be chosen (layer, strength) is chosen on validation prompts, and
controls choose as freely as methods do. Test prompts are measured once, after the choice. Differences are paired over
prompts and seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue

from steerlib.experiment.calibrate import Calibration
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell, LawSpec
from steerlib.experiment.judge_spec import JudgeSpec
from steerlib.experiment.methods import TOLD, UNSTEERED, Method, seeded
from steerlib.experiment.runners import Runner, Spender, Spending, stored
from steerlib.experiment.selecting import RaceError, ScoreName, Selection, score_of, select_on_validation

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Entry", "Race", "Setting", "Spending", "horse_race", "stored"]

Kind = Literal["exact", "sampled"]
Setting = Literal["own", "budget", "none"]


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
    kinds: dict[str, Kind]
    seeds: tuple[int, ...]
    choose_on: tuple[int, ...]
    limits: dict[str, int | None]
    run: Runner
    judges: dict[str, JudgeSpec]
    measured: dict[Cell, CellRecord] = field(default_factory=dict)

    def cell(self, law: LawSpec | None, split: Literal["validation", "test"], seed: int, *, told: bool = False) -> Cell:
        """The cell of one seed; without sampling, the seed moves the law alone."""
        sampled = self.kinds[split] == "sampled"
        return Cell(
            plant=self.plant, task=self.task, task_options=self.task_options, kind=self.kinds[split], split=split,
            law=None if law is None else seeded(law, seed), told=told, limit=self.limits[split],
            seed=seed if sampled else 0, judges=self.judges if sampled else {},
        )  # fmt: skip

    def cells(self, law: LawSpec | None, split: Literal["validation", "test"], *, told: bool = False) -> list[Cell]:
        """One cell for each seed: of validation, for those on which is chosen."""
        seeds = self.choose_on if split == "validation" else self.seeds
        return [self.cell(law, split, seed, told=told) for seed in seeds]

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
    kind: Kind = "exact",
    validation_kind: Kind | None = None,
    seeds: Sequence[int] = (0,),
    choose_on: Sequence[int] | None = None,
    limit: int | None = None,
    validation_limit: int | None = None,
    score: ScoreName = "combined",
    keep: float = 0.9,
    against: Sequence[str] = (UNSTEERED,),
    told: bool = False,
    level: float = 0.05,
    judges: dict[str, JudgeSpec] | None = None,
    own: bool = True,
) -> Race:
    """Run every method at its own setting and, if a spender is given, at equal budget.

    Args:
        methods: negative controls among them; see `controls_of`.
        plant: name, folder or hub id.
        task: see `steerlib.registry.TASKS`.
        run: computes cells, such as `stored(store)`.
        spend: finds the multiplier that spends the budget, such as `Spending(0.1)`; None for the own settings alone.
        task_options: arguments of the task's constructor.
        kind: of the test, "exact", or "sampled".
        validation_kind: of what is chosen by; None for that of the test. Exact scores cost less and vary less.
        seeds: what laws are fitted on, and what is sampled.
        choose_on: those of the seeds under which is chosen among candidates; None for all. What is chosen runs the test
            under all.
        limit: test prompts, spread evenly; None for all.
        validation_limit: validation prompts.
        score: what is maximised on validation prompts.
        keep: share of the unsteered plant's intact score that a candidate must keep there at its own setting. At equal
            budget all have done the same to the plant, so that what is left intact is a result, not a condition.
        against: whom each method is compared with: "unsteered", "told", or a method at the same setting.
        told: also measure the unsteered plant told by name what is wanted.
        level: of tests and intervals.
        judges: who judges sampled answers; see `Cell`.
        own: whether the own settings run; False for the equal budget alone.

    Raises:
        RaceError: if there is no method or no negative control, a name or a seed comes twice, or an opponent is
            unknown.
    """
    chosen_on = tuple(seeds if choose_on is None else choose_on)
    _check(methods, seeds, chosen_on, against, told=told, keep=keep, level=level)
    course = _Course(
        plant,
        task,
        task_options or {},
        {"test": kind, "validation": validation_kind or kind},
        tuple(seeds),
        chosen_on,
        {"test": limit, "validation": validation_limit},
        run,
        judges or {},
    )
    (bare,) = course.measure([course.cells(None, "validation")])
    floor = keep * score_of(bare, "intact")
    if not own and spend is None:
        raise RaceError("horse_race: got own=False and nothing to spend, so no setting. Fix: give a spender.")
    plans = [_at_own(method, course) for method in methods] if own else []
    if spend is not None:
        plans += [_at_budget(method, course, spend) for method in methods]
    # All of validation in one batch, then all of the test: a runner with many workers is kept busy.
    course.measure([candidate.cells for plan in plans for candidate in plan.candidates])
    floors = {"own": floor, "budget": 0.0}
    chosen = [_choose(plan, course, score, floors[plan.entry.setting], spend) for plan in plans]
    baselines = [(UNSTEERED, course.cells(None, "test"))]
    if told:
        baselines.append((TOLD, course.cells(None, "test", told=True)))
    tests = course.measure([cells for _, cells in baselines] + [cells for _, cells in chosen if cells])
    entries = [Entry(name, "none", records=tests.pop(0)) for name, _ in baselines]
    entries += [replace(entry, records=tests.pop(0)) if cells else entry for entry, cells in chosen]
    return Race(tuple(entries), tuple(against), level)


def _check(
    methods: Sequence[Method],
    seeds: Sequence[int],
    choose_on: Sequence[int],
    against: Sequence[str],
    *,
    told: bool,
    keep: float,
    level: float,
) -> None:
    names = [method.name for method in methods]
    if not methods or all(method.control for method in methods):
        raise RaceError("horse_race: got no method.")
    if not any(method.control for method in methods):
        raise RaceError("horse_race: got no negative control. Fix: add those of controls_of(method).")
    if len(set(names)) < len(names) or len(set(seeds)) < len(seeds) or not seeds:
        raise RaceError(f"horse_race: got the methods {names} and seeds {list(seeds)}, expected each once.")
    if not choose_on or len(set(choose_on)) < len(choose_on) or not set(choose_on) <= set(seeds):
        raise RaceError(f"horse_race: got choose_on={list(choose_on)}, expected some of the seeds {list(seeds)}.")
    known = [UNSTEERED, *([TOLD] if told else []), *names]
    if strange := [name for name in against if name not in known]:
        raise RaceError(f"horse_race: cannot compare with {strange[0]!r}; known are {', '.join(known)}.")
    if not 0 <= keep <= 1 or not 0 < level < 1:
        raise RaceError(f"horse_race: got keep={keep}, level={level}; expected shares.")


@dataclass(frozen=True)
class _Candidate:
    """One choice of a method: its law, the validation cells that speak for it, and what it was calibrated to.

    The calibrations are those of the seeds on which is chosen; None at the method's own setting.
    """

    law: LawSpec
    cells: list[Cell]
    calibrations: tuple[Calibration, ...] | None = None


@dataclass(frozen=True)
class _Plan:
    """Candidates of one method at one setting."""

    entry: Entry
    candidates: list[_Candidate]


def _at_own(method: Method, course: _Course) -> _Plan:
    laws = dict.fromkeys(method.laws)
    candidates = [_Candidate(law, course.cells(law, "validation")) for law in laws]
    return _Plan(Entry(method.name, "own", method.control), candidates)


def places_of(method: Method) -> list[LawSpec]:
    """Where a method may spend a budget: each place that its own setting names, at the gentlest multiplier there.

    That is where a search begins; a place against the law's direction is one of its own.
    """
    places: dict[LawSpec, LawSpec] = {}
    for law in method.laws:
        if law.strength != 0:
            place = law.model_copy(update={"strength": 1.0 if law.strength > 0 else -1.0})
            places[place] = min(places.get(place, law), law, key=lambda one: abs(one.strength))
    return list(places.values())


def _at_budget(method: Method, course: _Course, spend: Spender) -> _Plan:
    """One candidate for each place that the paper's setting names; under each seed it spends the budget by itself."""
    candidates: list[_Candidate] = []
    failed: list[Calibration] = []
    for law in places_of(method):
        found = _spent(law, course, course.choose_on, spend)
        if not found[-1].reached:
            failed.append(found[-1])
            continue
        cells = [
            _with_strength(cell, calibration.strength)
            for cell, calibration in zip(course.cells(law, "validation"), found, strict=True)
        ]
        candidates.append(_Candidate(law, cells, found))
    entry = Entry(method.name, "budget", method.control)
    if not candidates:
        note = failed[0].message if failed else "its own setting has no multiplier but 0, so no direction"
        entry = replace(entry, calibrations=tuple(failed), note=note)
    return _Plan(entry, candidates)


def _spent(
    law: LawSpec, course: _Course, seeds: Sequence[int], spend: Spender, first: Calibration | None = None
) -> tuple[Calibration, ...]:
    """Calibrations under some seeds, up to the first that misses the budget: none after it would be used.

    The search under one seed ends near that under another, so each begins where the first one ended.
    """
    found: list[Calibration] = []
    for seed in seeds:
        cell = course.cell(law, "validation", seed)
        found.append(spend(cell if first is None else _with_strength(cell, first.strength)))
        if not found[-1].reached:
            break
        first = first or found[-1]
    return tuple(found)


def _with_strength(cell: Cell, strength: float) -> Cell:
    """The cell at the multiplier that a spender found."""
    if cell.law is None:
        raise RaceError(f"{cell.title}: has no law")
    return cell.model_copy(update={"law": cell.law.model_copy(update={"strength": strength})})


def _choose(
    plan: _Plan, course: _Course, score: ScoreName, floor: float, spend: Spender | None
) -> tuple[Entry, list[Cell]]:
    """The entry without its test records, and the cells that they come from; no cell where nothing could be chosen.

    At equal budget a choice must spend the budget under the seeds, too, on which was not chosen; where it does not, it
    is no candidate, and the next best is.
    """
    left = list(plan.candidates)
    missed: tuple[Calibration, ...] = ()
    while left:
        selection = select_on_validation(course.measure([c.cells for c in left]), score=score, floor=floor)
        if selection.chosen is None:
            return replace(plan.entry, selection=selection, note=selection.message), []
        candidate = left[selection.chosen]
        tests = course.cells(candidate.law, "test")
        entry = replace(plan.entry, selection=selection)
        if candidate.calibrations is None or spend is None:
            return entry, tests
        rest = [seed for seed in course.seeds if seed not in course.choose_on]
        more = _spent(candidate.law, course, rest, spend, candidate.calibrations[0])
        if all(calibration.reached for calibration in more):
            by_seed = dict(zip([*course.choose_on, *rest], [*candidate.calibrations, *more], strict=True))
            found = tuple(by_seed[seed] for seed in course.seeds)
            cells = [_with_strength(cell, spent.strength) for cell, spent in zip(tests, found, strict=True)]
            return replace(entry, calibrations=found), cells
        missed = missed or more[-1:]
        left.remove(candidate)
    return (replace(plan.entry, calibrations=missed, note=missed[0].message) if missed else plan.entry), []
