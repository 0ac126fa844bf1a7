"""Entries that were measured apart, in one table: methods of another race, and cells of a grid.

Knows entries, records and seeds. Knows nothing about what is printed (`race_tables`) or where records come from.

Rows may stand in one table, and be compared prompt by prompt, only if they were asked the same prompts under the same
noise. That the unsteered plant was measured by the very same cells in both races says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from steerlib.errors import unknown
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell
from steerlib.experiment.methods import UNSTEERED
from steerlib.experiment.race_tables import entry_of
from steerlib.experiment.races import Entry, Race
from steerlib.experiment.selecting import RaceError


def beside(race: Race, other: Race, names: Sequence[str]) -> Race:
    """A race with methods of another one behind its own, on the seeds of its own.

    Args:
        race: one course.
        other: the same plant and behaviour in another race, on these seeds and maybe more.
        names: methods and controls of the other race, at every setting that it ran them at.

    Raises:
        RaceError: a name that the other race has not, or that both have; another budget is not noticed; prompts,
            sampling or seeds that the other race has not.
    """
    known = list(dict.fromkeys(entry.name for entry in other.entries if entry.setting != "none"))
    if strange := [name for name in names if name not in known]:
        raise RaceError(unknown("method", strange[0], known))
    if twice := {entry.name for entry in race.entries} & set(names):
        raise RaceError(f"got the method {sorted(twice)[0]!r} in both races, expected each name once.")
    _same_prompts(race, other)
    seeds = _seeds(race)
    taken = [_on(entry, seeds) for name in names for entry in other.entries if entry.name == name]
    return replace(race, entries=(*race.entries, *taken))


def on_shared_seeds(race: Race, other: Race) -> Race:
    """A race on those of its seeds that another one has too, in its own order.

    Raises:
        RaceError: they share no seed.
    """
    ours, theirs = _seeds(race), _seeds(other)
    places = [place for place, seed in enumerate(ours) if seed in theirs]
    if not places:
        raise RaceError(f"races share no seed: got {ours} and {theirs}. Fix: run either under a seed of the other.")
    return replace(race, entries=tuple(_at(entry, places) for entry in race.entries))


def grouped(records: Sequence[CellRecord], name_of: Callable[[Cell], str]) -> dict[str, Entry]:
    """Cells of a grid as entries, one for each name, its records in the order of the seeds.

    Args:
        records: of one plant and behaviour, each setting under the same seeds.
        name_of: what a cell is called; cells that are left out have the name "".

    Raises:
        RaceError: a name has two records under one seed, or other seeds than another name has.
    """
    found: dict[str, dict[int, CellRecord]] = defaultdict(dict)
    for record in records:
        name, seed = name_of(record.cell), seed_of(record.cell)
        if name and seed in found[name]:
            raise RaceError(f"{name!r}: got two records under seed {seed}, such as {record.cell.title}")
        if name:
            found[name][seed] = record
    seeds = {name: sorted(own) for name, own in found.items() if own}
    if len({tuple(own) for own in seeds.values()}) > 1:
        raise RaceError(f"got other seeds for other names, expected the same: {seeds}")
    return {
        name: Entry(name, "none" if found[name][own[0]].cell.law is None else "own",
                    control=_shuffled(found[name][own[0]].cell), records=tuple(found[name][seed] for seed in own))
        for name, own in seeds.items()
    }  # fmt: skip


def seed_of(cell: Cell) -> int:
    """The seed of a cell: that of the texts which its law was fitted on, or else of the sampling."""
    return cell.seed if cell.law is None else cell.law.fit.seed


def _shuffled(cell: Cell) -> bool:
    return cell.law is not None and cell.law.fit.labels == "shuffled"


def _seeds(race: Race) -> list[int]:
    """Seeds of the laws of a race, which all share them."""
    for entry in race.entries:
        if entry.records and entry.records[0].cell.law is not None:
            return [seed_of(record.cell) for record in entry.records]
    raise RaceError("the race has no method that ran, so that its seeds are not known.")


def _same_prompts(race: Race, other: Race) -> None:
    bare = [entry_of(one, UNSTEERED, "none") for one in (race, other)]
    ours, theirs = ([record.cell for record in entry.records] if entry else [] for entry in bare)
    lacking = [cell for cell in ours if cell not in theirs]
    if lacking or not ours:
        raise RaceError(
            "races cannot stand in one table: the other one lacks the unsteered cell "
            f"{lacking[0].title if lacking else '(of this race there is none)'}. Fix: the same task, prompts and seeds."
        )


def _on(entry: Entry, seeds: Sequence[int]) -> Entry:
    """An entry on some of its seeds; one that did not run as it is."""
    if not entry.records:
        return entry
    own = [seed_of(record.cell) for record in entry.records]
    if lacking := [seed for seed in seeds if seed not in own]:
        raise RaceError(f"{entry.name}: was not run under seed {lacking[0]}; got the seeds {own}")
    return _at(entry, [own.index(seed) for seed in seeds])


def _at(entry: Entry, places: Sequence[int]) -> Entry:
    """An entry on some of its seeds, by their places; one that did not run as it is."""
    if not entry.records:
        return entry
    spent = entry.calibrations
    return replace(
        entry,
        records=tuple(entry.records[place] for place in places),
        calibrations=tuple(spent[place] for place in places) if len(spent) == len(entry.records) else spent,
    )
