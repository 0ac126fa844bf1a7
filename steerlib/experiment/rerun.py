"""A table of a paper run again: what is tried on validation prompts, what is chosen there, and what is tested.

Two stages. First the cells of validation; then, setting by setting, each row is tested at what validation chose for it.
A value that the profile gives to a row *of a setting* is one that the paper states for it: it is tested as stated, and
validation says only what it would have chosen. What validation cannot decide, since its cells failed, is not tested.

Rules of choice are those of the chapters: RE-Control's table takes coherence + diversity + reward
(`value_tables.best`); a layout with a rule of its own (`chosen` of its module) takes that; the others take the product
of both scores (`selecting.select_on_validation`).

Knows tables of profiles and their cells. Knows nothing about how cells are computed or kept, nor how a table looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import JsonValue, ValidationError

from steerlib.errors import unknown
from steerlib.experiment import value_tables
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell
from steerlib.experiment.grid import _nested
from steerlib.experiment.paper_tables import PaperTable, PaperTableError, paper_named, paper_table, slug
from steerlib.experiment.profile_tables import Given, TableError, TableSpec, _seeded, profile_file, read_table
from steerlib.experiment.selecting import select_on_validation
from steerlib.experiment.yaml_files import problems, read_yaml

UNSTEERED = "unsteered"
#: A cell's record, or None where there is none.
Find = Callable[[Cell], CellRecord | None]


@dataclass(frozen=True)
class Choice:
    """What a row of a setting is tested at.

    Attributes:
        values: fields that were swept -> the value that is tested.
        stated: whether the paper states them.
        best: what validation chose, or would have chosen; empty where nothing was tried.
        tried: how many combinations have a record.
        missing: how many have none.
    """

    values: dict[str, JsonValue]
    stated: bool
    best: dict[str, JsonValue]
    tried: int
    missing: int = 0

    @property
    def said(self) -> str:
        """In words."""
        values = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in self.values.items())
        if not self.stated:
            return f"{values} (chosen on validation prompts among {self.tried})"
        other = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in self.best.items())
        return f"{values} (stated" + (
            f"; validation would choose {other})" if self.best not in ({}, self.values) else ")"
        )


def _same(cell: Cell) -> Cell:
    return cell


@dataclass(frozen=True)
class Rerun:
    """One table of a paper under one profile.

    Attributes:
        paper: as in the registry.
        name: of the table there.
        entry: what the registry says.
        profile: its name or file.
        spec: the profile's table, cut to the rows of the entry.
        seeds: of its runs.
        settings: those that are run.
        whole: those that belong to it.
        made: what becomes of each cell of the table: itself, or a small one; see `steerlib.dry.scale`.
    """

    paper: str
    name: str
    entry: PaperTable
    profile: str
    spec: TableSpec
    seeds: tuple[int, ...]
    settings: tuple[str, ...]
    whole: tuple[str, ...] = ()
    made: Callable[[Cell], Cell] = field(default=_same)

    @classmethod
    def of(cls, paper: str, table: str, *, profile: str, settings: Sequence[str] = ()) -> Rerun:
        """Find it, and check it.

        Args:
            paper: see `paper_tables.paper_table`.
            table: likewise.
            profile: its name, or a file of one's own.
            settings: only these.

        Raises:
            PaperTableError: no such paper or table; nothing here makes it, or something else; or the profile lacks it.
            TableError: no such profile or setting, or a table that cannot be read.
        """
        entry, name = paper_table(paper, table), slug(table)
        paper = paper_named(paper)
        if entry.nothing:
            raise PaperTableError(f"{paper}, {entry.printed}: nothing here makes it: {entry.nothing}.")
        if entry.elsewhere is not None:
            raise PaperTableError(
                f"{paper}, {entry.printed}: is not made of records. Fix: `{entry.elsewhere.command}`: "
                f"{entry.elsewhere.does}."
            )
        if not in_profile(entry, profile):
            raise PaperTableError(
                f"{paper}, {entry.printed}: not in this profile: {profile_file(profile)} has no table {entry.table!r}. "
                f"Fix: another profile; `steerlib table --list` says which have it."
            )
        spec, seeds = table_in(entry.table, profile)
        whole = tuple(setting for setting in spec.settings if entry.takes(setting))
        if not whole:
            raise PaperTableError(
                f"{paper}, {entry.printed}: not in this profile: of its settings {', '.join(spec.settings)} none is "
                f"{' or '.join(entry.only)}."
            )
        for setting in settings:
            if setting not in whole:
                raise TableError(f"{paper}, {entry.printed}: {unknown('setting', setting, whole)}")
        wanted = entry.vary.rows if entry.vary else entry.rows
        if odd := [row for row in wanted if row not in spec.rows]:
            raise PaperTableError(
                f"{paper}, {entry.printed}: not in this profile: its table {entry.table!r} has no row {odd[0]!r}."
            )
        made = cls(paper, name, entry, str(profile), _cut(spec, wanted), tuple(seeds), tuple(settings) or whole, whole)
        made.validation()  # fields that make no cell are found before anything is computed
        return made

    # ---- first stage ------------------------------------------------------------------------------

    def trials(self, setting: str) -> list[tuple[str, dict[str, JsonValue], Cell]]:
        """What is tried in a setting: row, swept values, cell; nothing for a field that the figure varies itself."""
        found = self.spec.trials(setting, self.seeds[0])
        varied = set(self.entry.vary.fields) if self.entry.vary else set()
        return [(row, values, self.made(cell)) for row, values, cell in found if not varied & set(values)]

    def validation(self) -> list[Cell]:
        """All cells of the first stage."""
        return _each(cell for setting in self.settings for _, _, cell in self.trials(setting))

    def choices(self, setting: str, find: Find) -> dict[str, Choice]:
        """What each swept row of a setting is tested at; rows that nothing was found for are absent."""
        rows: dict[str, list[tuple[dict[str, JsonValue], CellRecord | None]]] = {}
        for row, values, cell in self.trials(setting):
            rows.setdefault(row, []).append((values, find(cell)))
        stated = {row: self._stated(setting, row, tried[0][0]) for row, tried in rows.items()}
        ran = {row: [(v, r) for v, r in tried if r is not None] for row, tried in rows.items()}
        free = self._best({row: tried for row, tried in ran.items() if tried})
        # The random push spends what RE-Control spends where it is tested, stated or not.
        bound = {
            row: [(v, r) for v, r in tried if v == stated[row]] if stated[row] is not None else tried
            for row, tried in ran.items()
        }
        tested = self._best({row: bound[row] or tried for row, tried in ran.items() if tried})
        out = {}
        for row, tried in rows.items():
            lacking = sum(record is None for _, record in tried)
            there = stated[row]
            if there is not None:
                out[row] = Choice(there, True, free.get(row, {}), len(tried) - lacking, lacking)
            elif row in tested:
                out[row] = Choice(tested[row], False, free[row], len(tried) - lacking, lacking)
        return out

    def _best(
        self, ran: Mapping[str, Sequence[tuple[dict[str, JsonValue], CellRecord]]]
    ) -> dict[str, dict[str, JsonValue]]:
        values = {record.key: tried for rows in ran.values() for tried, record in rows}
        if self.spec.layout == "values":
            kept = value_tables.best({row: [record for _, record in tried] for row, tried in ran.items()})
            return {row: values[record.key] for row, record in kept.items()}
        rule = getattr(layout_of(self.spec), "chosen", None)
        if rule is not None and ran:
            kept = rule([record for tried in ran.values() for _, record in tried])
            return {row: values[record.key] for row, record in kept.items()}
        found = {}
        for row, tried in ran.items():
            place = select_on_validation([[record] for _, record in tried]).chosen
            found[row] = tried[place or 0][0]
        return found

    def _stated(self, setting: str, row: str, swept: Mapping[str, JsonValue]) -> dict[str, JsonValue] | None:
        """The values of swept fields that a setting itself gives to a row; None where it lacks one."""
        own = self.spec.settings[setting].rows.get(row, {})
        return {name: own[name].value for name in swept} if all(name in own for name in swept) else None

    # ---- second stage -----------------------------------------------------------------------------

    def tests(self, setting: str, choices: Mapping[str, Choice]) -> list[tuple[str, Cell]]:
        """Test cells of a setting, each with its row, or with what is varied; undecided rows are left out."""
        swept = {row for row, _, _ in self.trials(setting)}
        follows = value_tables.FOLLOWS if self.spec.layout == "values" else {}
        spec, out = self._decided(setting, choices, follows), []
        for row in spec.rows:
            leader = follows.get(row, row)
            if row in spec.settings[setting].without or (leader in swept and leader not in choices):
                continue
            given = {**self.spec.tested, **spec.given(setting, row)}
            for label, more in self._varied(row):
                out += [(label, self.made(_cell(setting, row, {**given, **more}, seed))) for seed in self.seeds]
        return out

    def undecided(self, setting: str, choices: Mapping[str, Choice]) -> list[str]:
        """Rows that are not tested, since nothing was found of what should be tried for them."""
        return sorted({row for row, _, _ in self.trials(setting)} - set(choices))

    def _varied(self, row: str) -> Iterator[tuple[str, dict[str, Given]]]:
        vary = self.entry.vary
        if vary is None or row not in vary.rows:
            yield row, {}
            return
        for values in vary.each():
            shown = {name: f"{v:g}" if isinstance(v, int | float) else str(v) for name, v in values.items()}
            told = shown[vary.field] if vary.field else " ".join(f"{_last(n)}={v}" for n, v in shown.items())
            label = told if len(vary.rows) == 1 else f"{row}, {told}"
            yield label, {name: Given(value=value, chosen="varied") for name, value in values.items()}

    def _decided(self, setting: str, choices: Mapping[str, Choice], follows: Mapping[str, str]) -> TableSpec:
        """The table with what was chosen in the place of what the profile begins with."""
        one = self.spec.settings[setting]
        rows = {row: dict(fields) for row, fields in one.rows.items()}
        for row in self.spec.rows:
            choice = choices.get(follows.get(row, row))
            if choice is None or row in one.without:
                continue
            for name, value in choice.values.items():
                rows.setdefault(row, {})[name] = Given(value=value, chosen="on validation prompts")
        settings = {**self.spec.settings, setting: one.model_copy(update={"rows": rows})}
        return self.spec.model_copy(update={"settings": settings})


def _last(field: str) -> str:
    return field.rpartition(".")[2]


def in_profile(entry: PaperTable, profile: str) -> bool:
    """Whether a profile has the table that makes an entry.

    Raises:
        TableError: no such profile.
    """
    file = profile_file(profile)
    return bool(entry.table) and entry.table in _names(file, file.stat().st_mtime_ns)


def table_in(name: str, profile: str) -> tuple[TableSpec, list[int]]:
    """A table of a profile and its seeds, read once as long as the file stays as it is; see `read_table`."""
    file = profile_file(profile)
    return _read(name, file, file.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _read(name: str, file: Path, _mark: int) -> tuple[TableSpec, list[int]]:
    return read_table(name, profile=file)


@lru_cache(maxsize=16)
def _names(file: Path, _mark: int) -> frozenset[str]:
    raw = read_yaml(file, wrong=TableError, expected="a profile such as data/profiles/paper.yml")
    return frozenset((raw.get("tables") if isinstance(raw, dict) else None) or {})


def layout_of(spec: TableSpec) -> ModuleType:
    """The module that knows a table's rows and columns, such as `barrier_tables`."""
    name = {"values": "value", "barriers": "barrier"}.get(spec.layout, spec.layout)
    return import_module(f"steerlib.experiment.{name}_tables")


def _cut(spec: TableSpec, wanted: Sequence[str]) -> TableSpec:
    """A table with some rows alone, and the plant alone, which others are compared with."""
    if not wanted:
        return spec
    kept = [row for row in spec.rows if row in wanted or row == UNSTEERED]

    def part(rows: Mapping[str, Any]) -> dict[str, Any]:
        return {row: value for row, value in rows.items() if row in kept}

    settings = {
        name: one.model_copy(update={"rows": part(one.rows), "sweeps": part(one.sweeps), "without": part(one.without)})
        for name, one in spec.settings.items()
    }
    validation = spec.validation
    if validation is not None:
        validation = validation.model_copy(update={"sweeps": part(validation.sweeps)})
    return spec.model_copy(update={"rows": part(spec.rows), "settings": settings, "validation": validation})


def _cell(setting: str, row: str, fields: Mapping[str, Given], seed: int) -> Cell:
    try:
        return Cell.model_validate(_nested({**_seeded(dict(fields), seed), "split": "test"}))
    except ValidationError as error:
        raise TableError(f"{setting}, row {row}:\n{problems(error, whole='cell')}") from error


def _each(cells: Iterator[Cell]) -> list[Cell]:
    """Each cell once, those of a plant together, since it is loaded once for neighbours."""
    found = list(dict.fromkeys(cells))
    order = list(dict.fromkeys(cell.plant for cell in found))
    return sorted(found, key=lambda cell: order.index(cell.plant))
