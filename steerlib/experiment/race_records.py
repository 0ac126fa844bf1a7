"""Races that come with the project: what `steerlib run RACE --ship` writes beside the records, and a page replays.

Knows the file of calibrations and how a race is run from records alone. Knows nothing about how a record counts
(`shipped`) or is computed again (`recompute`).

The records of a race are shipped as those of a grid are, `records/<race>.jsonl.gz`. Beside them lies
`races/<race>.json.gz`: what each course was run with, and every calibration, each with the key of all that decided it.
A page writes

    race = replay("open_loop", profile=profile, page=page)
    race.courses["almanac-llama/truth"].table()

and choices, intervals and tests are made anew from what is shipped. Of the records one cell of each law is computed
again (`verification.slice_of_race`); of the calibrations, so many as a page asks for are measured again at the
multiplier that was found.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import ValidationError

from steerlib.experiment.calibrate import Calibration, Status
from steerlib.experiment.calibrations import Calibrations, calibration_key
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell, _Data, canonical
from steerlib.experiment.race_plan import Course, RacePlan, read_race
from steerlib.experiment.races import Race
from steerlib.experiment.racing import Ready, kept_ready, race_on, spending
from steerlib.experiment.recompute import Reference, reference
from steerlib.experiment.records import Finite
from steerlib.experiment.runners import Spending, replayed
from steerlib.experiment.selecting import RaceError
from steerlib.experiment.shipped import ShippedError, ship, shipped_path
from steerlib.experiment.store import Store, writing
from steerlib.experiment.verification import SLICE_SEED, DriftError, build_seed
from steerlib.files import data_folder, write_atomic

if TYPE_CHECKING:
    from steerlib.experiment.page import Page

SCHEMA, SUFFIX = 1, ".json.gz"
#: Digits of the costs that a search saw on its way; those of what it found are kept whole.
DIGITS = 4


class Spent(_Data):
    """A calibration as it is shipped.

    Attributes:
        cell: what was searched, at the multiplier where the search began.
        key: see `calibrations.calibration_key`.
        status: how it ended.
        strength: the multiplier that was found.
        cost: what it costs.
        target: the budget.
        tried: what was looked at; a cost that is not finite is null.
        message: why the budget was missed, "" otherwise.
    """

    cell: Cell
    key: str
    status: Status
    strength: Finite
    cost: Finite
    target: Finite
    tried: tuple[tuple[Finite, Finite | None], ...]
    message: str = ""

    @classmethod
    def of(cls, cell: Cell, key: str, found: Calibration) -> Spent:
        """What is shipped of a calibration."""
        tried = tuple(
            (size, float(f"{cost:.{DIGITS}g}") if math.isfinite(cost) else None) for size, cost in found.tried
        )
        return cls(
            cell=cell, key=key, status=found.status, strength=found.strength, cost=found.cost, target=found.target,
            tried=tried, message=found.message,
        )  # fmt: skip

    @property
    def calibration(self) -> Calibration:
        """As it was found, but for the last digits of costs on the way."""
        tried = tuple((size, math.inf if cost is None else cost) for size, cost in self.tried)
        return Calibration(self.status, self.strength, self.cost, self.target, tried, self.message)


class ShippedRace(_Data):
    """What is shipped of a race besides its records.

    Attributes:
        race: stem of its file in `data/races`.
        plan: hash of the race's content; another plan asks for other cells.
        courses: what each course was run with, by title.
        spent: every calibration that the race looked at.
    """

    schema_version: Literal[1] = SCHEMA
    race: str
    plan: str
    courses: dict[str, Ready]
    spent: tuple[Spent, ...]


@dataclass(frozen=True)
class Replayed:
    """A race that was run from shipped records.

    Attributes:
        courses: outcomes by title, such as "almanac-llama/truth".
        absent: titles of courses that the race file names and nothing is shipped of.
        ready: what each course was run with, by title.
        reference: the records, and what was computed again of them.
        measured: calibrations whose cost was measured again, and by what share of the budget it moved at most.
    """

    courses: dict[str, Race]
    absent: tuple[str, ...]
    ready: dict[str, Ready]
    reference: Reference = field(repr=False)
    measured: tuple[int, float] = (0, 0.0)


def plan_hash(plan: RacePlan) -> str:
    """Hash of a race's content; comments and order of keys in its file do not count."""
    return hashlib.sha256(canonical(plan).encode()).hexdigest()


def race_path(race: str, *, profile: str) -> Path:
    """Where the calibrations of a race are shipped."""
    return data_folder() / "reference" / profile / "races" / f"{race}{SUFFIX}"


def ship_race(
    plan: RacePlan, courses: Sequence[Course], store: Store, *, records: str | Path, races: str | Path
) -> tuple[Path, Path]:
    """Write the records and the calibrations of courses that have been run; nothing is computed.

    Args:
        plan: the race.
        courses: those to ship; all must be whole in the store.
        store: where they are.
        records: file of the records; see `shipped_path`.
        races: file of the calibrations; see `race_path`. Its stem names the race.

    Raises:
        ShippedError: a course is not whole, or none is given.
        StoreError: if a file cannot be written.
        DiskFullError: if the disk is full; a file that was there before is untouched.
    """
    cells: dict[Cell, None] = {}
    spent: dict[str, Spent] = {}
    known: dict[str, Ready] = {}
    kept, search = Calibrations(store), spending(plan)

    def run(wanted: Sequence[Cell]) -> list[CellRecord]:
        from steerlib.experiment.keys import keys_of

        found = [store.get(key) for key in keys_of(wanted)]
        if lacking := [cell for cell, record in zip(wanted, found, strict=True) if record is None]:
            raise RaceError(f"{len(lacking)} cells have no record, such as {lacking[0].title}")
        cells.update(dict.fromkeys(wanted))
        return [record for record in found if record is not None]

    def spend(cell: Cell) -> Calibration:
        settings = search.settings(cell)
        if (found := kept.get(settings)) is None:
            raise RaceError(f"{cell.title} has no calibration")
        key = calibration_key(settings)
        spent[key] = Spent.of(cell, key, found)
        return found

    for course in courses:
        try:
            if (given := kept_ready(plan, course, store)) is None:
                raise RaceError("it has not been begun")
            known[course.title] = given
            race_on(plan, course, given, run=run, spend=spend)
        except RaceError as error:
            raise ShippedError(
                f"{course.title} is not whole in {store.folder}: {error}. Fix: `steerlib run` on the race goes on with "
                "it; --only COURSE ships others without it"
            ) from error
    if not known:
        raise ShippedError("got no course to ship")
    first, target = ship(store, list(cells), records, race=True), Path(races)
    body = canonical(
        ShippedRace(
            race=target.name.removesuffix(SUFFIX), plan=plan_hash(plan), courses=known, spent=tuple(spent.values())
        )
    )
    told = f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    with writing(target):
        write_atomic(target, gzip.compress(told.encode(), 9, mtime=0))
    return first, target


def read_shipped_race(path: str | Path) -> ShippedRace:
    """Read what `ship_race` wrote beside the records.

    Raises:
        ShippedError: absent, damaged, or of another schema.
    """
    file = Path(path)
    again = f"Fix: restore it (`git checkout {file}`), or compute it anew with `steerlib run ... --ship`"
    try:
        head, _, body = gzip.decompress(file.read_bytes()).decode().partition("\n")
    except FileNotFoundError:
        raise ShippedError(
            f"no shipped race at {file}. Fix: `steerlib run data/races/{file.name.removesuffix(SUFFIX)}.yml --ship "
            f"{file.parent.parent.name}` computes and writes it"
        ) from None
    except (EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise ShippedError(f"{file} is truncated or damaged ({error}). {again}") from error
    body = body.removesuffix("\n")
    if hashlib.sha256(body.encode()).hexdigest() != head:
        raise ShippedError(f"{file} was altered: its content does not have the checksum it names. {again}")
    version = json.loads(body).get("schema_version")
    if version != SCHEMA:
        raise ShippedError(f"{file}: got a race of schema {version!r}, expected {SCHEMA}. {again}")
    try:
        return ShippedRace.model_validate_json(body)
    except ValidationError as error:
        raise ShippedError(f"{file} does not hold a race: {error}. {again}") from error


def replay(
    race: str,
    *,
    profile: str,
    page: Page | None = None,
    plan: RacePlan | None = None,
    records: Reference | None = None,
    path: str | Path | None = None,
    measure: int = 1,
    seed: int | None = None,
) -> Replayed:
    """Run a race from what is shipped, after a part of its records has been computed again and agreed.

    Args:
        race: stem of its file in `data/races`.
        profile: whose records.
        page: where to write down what was computed again; see `recompute.reference`.
        plan: the race; by default what its file says.
        records: by default those shipped under the race's name.
        path: another file of calibrations than the shipped one.
        measure: so many calibrations, of those that reached the budget, are measured again.
        seed: which; by default that of the build, see `verification.build_seed`.

    Raises:
        RacePlanError: the race file cannot be read.
        ShippedError: nothing shipped, damaged, or shipped for another plan.
        StaleError: no record belongs to what is in the tree now.
        DriftError: a record or a calibration that was computed again disagrees.
        RaceError: a course lacks a record or a calibration that counts.
    """
    found = read_shipped_race(path if path is not None else race_path(race, profile=profile))
    plan = read_race(data_folder() / "races" / f"{race}.yml") if plan is None else plan
    again = f"Fix: `steerlib run data/races/{race}.yml --jobs 2 --ship {profile}` computes and ships it anew"
    if found.plan != plan_hash(plan):
        raise ShippedError(f"{race!r} was shipped for another plan than that of its file. {again}")
    records = reference(race, profile=profile, page=page) if records is None else records
    run = replayed(records.records)
    known, search = {spent.cell: spent for spent in found.spent}, spending(plan)

    def spend(cell: Cell) -> Calibration:
        if (spent := known.get(cell)) is None:
            raise RaceError(f"{cell.title}: no calibration is shipped. {again}")
        if calibration_key(search.settings(cell)) != spent.key:
            raise RaceError(
                f"{cell.title}: the shipped calibration is stale: plant, data or code have changed. {again}"
            )
        return spent.calibration

    courses = {course.title: course for course in plan.courses()}
    outcome = {
        title: race_on(plan, courses[title], given, run=run, spend=spend) for title, given in found.courses.items()
    }
    absent = tuple(title for title in courses if title not in outcome)
    drawn = build_seed() if seed is None else seed
    return Replayed(outcome, absent, found.courses, records, _measured(found.spent, search, count=measure, seed=drawn))


def _measured(spent: Sequence[Spent], search: Spending, *, count: int, seed: int) -> tuple[int, float]:
    """Measure the cost of some calibrations again; how many, and by what share of the budget the worst has moved."""
    reached = [one for one in spent if one.status is Status.REACHED and one.target > 0]
    chosen = np.random.default_rng(seed).permutation(len(reached))[:count].tolist()
    worst = 0.0
    for place in chosen:
        one = reached[place]
        cost = search.cost(one.cell)(one.strength)
        moved = abs(cost - one.cost) / one.target
        if not moved <= search.tolerance:
            raise DriftError(
                f"{one.cell.title}: at the multiplier {one.strength:g} the cost was {one.cost:.4g} and is {cost:.4g}, "
                f"which is more than {search.tolerance:g} of the budget away. Fix: find what moved it and shows in no "
                f"key; then run the race anew. The same draw again: {SLICE_SEED}={seed}"
            )
        worst = max(worst, moved)
    return len(chosen), worst


def default_paths(race: str, *, profile: str) -> dict[str, Path]:
    """Where a race is shipped: arguments of `ship_race`."""
    return {"records": shipped_path(race, profile=profile), "races": race_path(race, profile=profile)}
