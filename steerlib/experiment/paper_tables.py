"""Every table and figure of the papers that needs a model, and what makes it here: `data/tables.yml`, checked.

An entry is made in one of three ways, or says why it is not made:

- `table`: a table of a profile on real models (`steerlib.experiment.profile_tables`), whole or some of its rows,
  settings and columns; with `vary`, one field of some rows takes one value after another, as in a figure.
- `elsewhere`: a command, such as a benchmark or a chapter of the book on a plant of one's own.
- `nothing`: why nothing here makes it.

Knows the file and the printed numbers (`data/published`). Knows nothing about cells, records, or how anything is shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from steerlib.errors import SteerlibError, unknown
from steerlib.experiment.written import _Data
from steerlib.experiment.yaml_files import problems, read_yaml
from steerlib.files import data_folder

#: A number of a paper, alone or with its deviation.
Printed = tuple[float] | tuple[float, float]
Text = Annotated[str, Field(min_length=1)]


class PaperTableError(SteerlibError, ValueError):
    """A paper, table or profile that is not there, or a registry that cannot be read."""


class Vary(_Data):
    """Fields of some rows that take one value after another; of several fields, all combinations.

    Attributes:
        rows: whose fields they are; of several fields, one.
        field: of their cells, such as "law.options.steps".
        values: what it takes.
        grid: fields in the place of one, each with what it takes.
        said: who states the values.
        chosen: why these, where nobody states them.
    """

    rows: Annotated[tuple[str, ...], Field(min_length=1)]
    field: str = ""
    values: tuple[JsonValue, ...] = ()
    grid: dict[str, Annotated[tuple[JsonValue, ...], Field(min_length=1)]] = {}
    said: str = ""
    chosen: str = ""

    def model_post_init(self, _context: Any) -> None:
        """Refuse values that nobody states and nobody chose, or both; and what varies nothing."""
        if bool(self.said.strip()) is bool(self.chosen.strip()):
            raise ValueError("expected either `said`, who states the values, or `chosen`, why these")
        if bool(self.field) is bool(self.grid) or bool(self.field) is not bool(self.values):
            raise ValueError("expected either `field` with `values`, or `grid`, fields with what each takes")
        if (self.grid and len(self.rows) > 1) or len(self.each()) < 2:
            raise ValueError("expected at least two values, and one row for a grid")

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields that are varied."""
        return tuple(self.grid) or (self.field,)

    def each(self) -> list[dict[str, JsonValue]]:
        """What the fields are at the same time, in order."""
        lists = self.grid or {self.field: self.values}
        return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]

    def two(self) -> Vary:
        """The same with two values of its first field that has them, and one of all others."""
        if not self.grid:
            return self.model_copy(update={"values": self.values[:2]})
        first = next(name for name, values in self.grid.items() if len(values) > 1)
        cut = {name: values[: 2 if name == first else 1] for name, values in self.grid.items()}
        return self.model_copy(update={"grid": cut})


class Elsewhere(_Data):
    """What makes it without records of cells.

    Attributes:
        command: to be typed.
        does: what it measures, and what it leaves open.
    """

    command: Text
    does: Text


class PaperTable(_Data):
    """One table or figure of a paper.

    Attributes:
        printed: what the paper calls it.
        shows: what it shows.
        table: name of the profile's table that makes it.
        rows: some of its rows, by their names there; empty for all.
        only: patterns of names of its settings; empty for all.
        columns: some of its columns; empty for all.
        percent: columns that the paper prints in percent, and we as shares.
        pooled: columns of distinct n-grams that the paper counts over all answers of a run, and records for each.
        vary: of a figure.
        note: what a reader must know who compares the two.
        elsewhere: see the module's text.
        nothing: likewise.
    """

    printed: Text
    shows: Text
    table: str = ""
    rows: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    percent: tuple[str, ...] = ()
    pooled: tuple[Literal["Dist-1", "Dist-2", "Dist-3"], ...] = ()
    vary: Vary | None = None
    note: str = ""
    elsewhere: Elsewhere | None = None
    nothing: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> PaperTable:
        ways = [bool(self.table), self.elsewhere is not None, bool(self.nothing.strip())]
        if sum(ways) != 1:
            raise ValueError(f"expected one of `table`, `elsewhere` and `nothing`, got {sum(ways)} of them")
        if not self.table and (self.rows or self.only or self.columns or self.percent or self.pooled or self.vary):
            raise ValueError("rows, only, columns, percent, pooled and vary are for what a `table` of a profile makes")
        if self.vary is not None and self.rows:
            raise ValueError("got rows beside vary, which names its own. Fix: leave rows out")
        return self

    def takes(self, setting: str) -> bool:
        """Whether a setting of the profile's table belongs to it."""
        return not self.only or any(fnmatchcase(setting, pattern) for pattern in self.only)


class Paper(_Data):
    """A paper.

    Attributes:
        title: with authors and venue.
        cite: its key in the bibliography.
        tables: by what is typed for them.
    """

    title: Text
    cite: Text
    tables: Annotated[dict[str, PaperTable], Field(min_length=1)]


@cache
def papers(file: Path | None = None) -> Mapping[str, Paper]:
    """The registry: paper -> its tables and figures.

    Raises:
        PaperTableError: the file cannot be read; names paper, table and field.
    """
    file = file or data_folder() / "tables.yml"
    raw = read_yaml(file, wrong=PaperTableError, expected="the registry of the papers' tables")
    found = {}
    for name, entry in (raw if isinstance(raw, dict) else {}).items():
        try:
            found[str(name)] = Paper.model_validate(entry)
        except ValidationError as error:
            raise PaperTableError(f"{file}, {name}:\n{problems(error, whole='paper')}") from error
    if not found:
        raise PaperTableError(f"{file}: got no paper, expected at least one")
    return found


def paper_table(paper: str, table: str) -> PaperTable:
    """One entry.

    Args:
        paper: as in the registry, such as "odesteer"; dashes may stand for underscores.
        table: as in the registry, such as "2" or "figure-4"; "Table 2" and "Figure 4" do, too.

    Raises:
        PaperTableError: no such paper, or it has no such table; says which there are.
    """
    known = papers()
    paper = paper_named(paper)
    given = slug(table)
    if given not in known[paper].tables:
        raise PaperTableError(
            f"{paper}: {unknown('table', table, known[paper].tables)} `steerlib table --list` has all."
        )
    return known[paper].tables[given]


def paper_named(paper: str) -> str:
    """A paper's name as the registry has it.

    Raises:
        PaperTableError: no such paper; says which there are.
    """
    name = paper.strip().lower().replace("-", "_")
    if name not in papers():
        raise PaperTableError(unknown("paper", paper, papers()))
    return name


def slug(table: str) -> str:
    """A table as the registry calls it, from what was typed; see `paper_table`."""
    return table.strip().lower().replace(" ", "-").removeprefix("table-")


@cache
def published(paper: str) -> Mapping[str, Mapping[str, Mapping[str, Mapping[str, Printed]]]]:
    """What a paper printed: table -> model or setting -> row -> column -> number, with its deviation where it has one.

    Raises:
        PaperTableError: the file cannot be read, or holds something that is no number.
    """
    file = data_folder() / "published" / f"{paper}.yml"
    raw = read_yaml(file, wrong=PaperTableError, expected="the printed numbers of a paper")
    found: dict[str, dict[str, dict[str, dict[str, Printed]]]] = {}
    for table, parts in raw.items():
        for part, rows in parts.items():
            for row, columns in rows.items():
                # YAML reads the column True as a truth value.
                here = {
                    str(column): _number(value, f"{file}, {table}, {part}, {row}") for column, value in columns.items()
                }
                found.setdefault(str(table), {}).setdefault(str(part), {})[str(row)] = here
    return found


def _number(value: Any, place: str) -> Printed:
    numbers = value if isinstance(value, list) else [value]
    if not 1 <= len(numbers) <= 2 or any(isinstance(x, bool) or not isinstance(x, int | float) for x in numbers):
        raise PaperTableError(f"{place}: got {value!r}, expected a number, or a number and its deviation")
    return (float(numbers[0]),) if len(numbers) == 1 else (float(numbers[0]), float(numbers[1]))
