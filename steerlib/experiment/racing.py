"""Running races: what a course needs beforehand, and its cells and calibrations in a store.

Knows race files, stores and workers. Knows nothing about how a race is decided (`races`), shipped (`race_records`) or
how long it takes (`race_effort`).

Every record and every calibration is kept when it is made, so that a race that was killed goes on where it was. Workers
take whole courses (one plant, one task), since the laws that are fitted there are shared by its cells.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from steerlib.errors import SteerlibError
from steerlib.experiment.calibrate import Calibration
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell, Fit, LawSpec, _Data, canonical
from steerlib.experiment.methods import seeded
from steerlib.experiment.race_plan import Course, RacePlan
from steerlib.experiment.races import Entry, Race, horse_race, places_of
from steerlib.experiment.runners import Runner, Spender, Spending, stored
from steerlib.experiment.store import Store, writing
from steerlib.experiment.workers import in_processes, said_of
from steerlib.experiment.written import sealed, unsealed
from steerlib.files import write_atomic

#: Digits of a norm in which strengths count: machines that differ in the last ones then name the same cells.
DIGITS = 2


class Ready(_Data):
    """What a course is run with, besides the race file.

    Attributes:
        depth: blocks of the plant.
        norms: mean norm of the states at each place; see `RacePlan.lengths`.
        barred: methods that cannot be fitted on this task, and why.
    """

    depth: int
    norms: dict[str, float]
    barred: dict[str, str] = {}


def ready(plan: RacePlan, course: Course, *, device: str = "cpu") -> Ready:
    """Look at the plant: norms of its states, and which methods can be fitted on this task at all.

    A task may lack what a method needs, such as pairs, or questions apart from answers.
    """
    from steerlib.actuator import Site
    from steerlib.experiment.running import plant_of, task_and_law

    depth = plant_of(course.plant, device).depth
    norms: dict[str, float] = {}
    if places := plan.lengths(depth):
        task, _ = task_and_law(with_law(course.cell, a_law(plan, course, depth, places)), device=device)
        for at in dict.fromkeys(place[2] for place in places.values()):
            names = [name for name in places if places[name][2] == at]
            sites = [Site(places[name][1], places[name][0]) for name in names]
            found = task.contrasts(sites, n=plan.fit, seed=course.seeds[0], at=at)
            for name, contrast in zip(names, found, strict=True):
                lengths = [states.float().norm(dim=1).mean().item() for states in contrast]
                norms[name] = float(f"{sum(lengths) / 2:.{DIGITS}g}")
    barred: dict[str, str] = {}
    for method in plan.methods_of(course, depth=depth, norms=norms):
        for law in places_of(method):
            try:
                task_and_law(with_law(course.cell, seeded(law, course.seeds[0])), device=device)
            except SteerlibError as error:
                barred.setdefault(method.name, str(error))
    return Ready(depth=depth, norms=norms, barred=barred)


def a_law(plan: RacePlan, course: Course, depth: int, places: Mapping[str, object]) -> LawSpec:
    """A law that every task can be asked for, to have the task made."""
    methods = plan.methods_of(course, depth=depth, norms=dict.fromkeys(places, 1.0))
    return next((method for method in methods if method.name == plan.control), methods[0]).laws[0]


def with_law(cell: Cell, law: LawSpec) -> Cell:
    """The cell under a law."""
    return cell.model_copy(update={"law": law})


def race_on(plan: RacePlan, course: Course, known: Ready, *, run: Runner, spend: Spender) -> Race:
    """The race on one course, from measurements that are given or made.

    Args:
        plan: the race.
        course: one plant and one task.
        known: see `ready`.
        run: gives the records of cells.
        spend: gives the calibrations.

    Raises:
        RaceError: a cell cannot be computed or found, or no method, or no control, can be fitted.
    """
    methods = plan.methods_of(course, depth=known.depth, norms=known.norms)
    race = horse_race(
        [method for method in methods if method.name not in known.barred],
        plant=course.plant, task=course.plan.task, task_options=course.plan.task_options, kind=course.plan.kind,
        validation_kind="exact", seeds=course.seeds, choose_on=course.seeds[: plan.choose_on], limit=plan.test,
        validation_limit=plan.validation, score=plan.score, keep=plan.keep, told=True, run=run, spend=spend,
        own=plan.own,
    )  # fmt: skip
    lost = [
        Entry(method.name, setting, method.control, note=known.barred[method.name])
        for setting in (("own", "budget") if plan.own else ("budget",))
        for method in methods
        if method.name in known.barred
    ]
    return replace(race, entries=(*race.entries, *lost))


def spending(plan: RacePlan, *, store: Store | None = None, device: str = "cpu") -> Spending:
    """The spender of a race's budget."""
    budget = plan.budget
    return Spending(
        budget.amount, measure=budget.measure, reader=budget.reader, limit=budget.prompts,
        max_new_tokens=budget.max_new_tokens, tolerance=budget.tolerance, most=budget.most, store=store, device=device,
    )  # fmt: skip


def kept_ready(plan: RacePlan, course: Course, store: Store) -> Ready | None:
    """What the store holds of `ready`; None where it was not looked at, or something has changed that decides it."""
    try:
        body = unsealed(_ready_file(plan, course, store).read_bytes())
    except FileNotFoundError:
        return None
    return None if body is None else Ready.model_validate_json(body)  # damaged: looked at anew, and written over


def _keep(plan: RacePlan, course: Course, store: Store, known: Ready) -> Ready:
    file = _ready_file(plan, course, store)
    with writing(file.parent):
        write_atomic(file, sealed(known))
    return known


def _ready_file(plan: RacePlan, course: Course, store: Store) -> Path:
    """A file whose name is a hash of all that decides its content: methods, plant, data and sources."""
    from steerlib.experiment.keys import keys_of

    fits = [
        with_law(course.cell, LawSpec(name=name, layer=0, fit=Fit(seed=course.seeds[0])))
        for name in dict.fromkeys([method.law for method in plan.methods] + ["random-direction"])
    ]
    parts = {"plan": plan.model_dump(mode="json"), "course": course.model_dump(mode="json"), "keys": keys_of(fits)}
    return store.folder / "ready" / f"{hashlib.sha256(canonical(parts).encode()).hexdigest()}.json"


def run_course(
    plan: RacePlan, course: Course, store: Store, *, device: str = "cpu", progress: bool = False
) -> tuple[Ready, Race]:
    """Run one course; what the store holds is not computed again.

    Raises:
        RaceError: a cell cannot be computed, or another process is at it.
    """
    known = kept_ready(plan, course, store) or _keep(plan, course, store, ready(plan, course, device=device))
    spend = spending(plan, store=store, device=device)
    run = by_seed(stored(store, devices=(device,), progress=progress))
    with tqdm(desc=f"{course.title}: calibrations", unit="", disable=not progress) as bar:

        def counted(cell: Cell) -> Calibration:
            found = spend(cell)
            bar.update()
            return found

        return known, race_on(plan, course, known, run=run, spend=counted)


def by_seed(run: Runner) -> Runner:
    """A runner that is given cells in order of the texts that laws are fitted on, so that these are measured once."""

    def ordered(cells: Sequence[Cell]) -> list[CellRecord]:
        order = sorted(range(len(cells)), key=lambda i: -1 if (law := cells[i].law) is None else law.fit.seed)
        found = dict(zip(order, run([cells[i] for i in order]), strict=True))
        return [found[i] for i in range(len(cells))]

    return ordered


@dataclass
class Ran:
    """What became of a race: courses that are done, and those that could not be, with the reason."""

    done: list[Course]
    failed: dict[Course, str]


def run_race(
    plan: RacePlan,
    courses: Sequence[Course],
    store: Store,
    *,
    jobs: int = 1,
    devices: Sequence[str] = ("cpu",),
    progress: bool = True,
) -> Ran:
    """Run courses, so many at a time; one that fails costs the others nothing.

    Args:
        plan: the race.
        courses: some of its courses.
        store: where records and calibrations are kept.
        jobs: worker processes; cores are divided among them.
        devices: workers take these in turn.
        progress: say what is done.

    Raises:
        KeyboardInterrupt: stopped; what is in the store is kept.
        StoreError: if the store cannot be written.
        DiskFullError: if the disk is full.
    """
    ran = Ran([], {})

    def note(course: Course, said: str | None, why: str = "") -> None:
        if said is None:
            ran.failed[course] = why
        else:
            ran.done.append(course)
        if progress:
            print(f"[race] {course.title}: {said or why}", file=sys.stderr, flush=True)

    alone = jobs == 1 and len(devices) == 1
    work = partial(_work, plan, alone and progress)
    if alone:
        for course in courses:
            note(course, *said_of(partial(work, course, str(store.folder), devices[0])))
    else:
        in_processes(list(courses), store, work, jobs, devices, note)
    return ran


def _work(plan: RacePlan, progress: bool, course: Course, folder: str, device: str) -> str:
    start = time.monotonic()
    run_course(plan, course, Store(folder), device=device, progress=progress)
    return f"done, {(time.monotonic() - start) / 60:.1f} minutes"
