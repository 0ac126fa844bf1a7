"""What a rerun found, laid out as the paper prints it: one part for each model, rows and columns as published.

Knows records and the layouts' columns. Knows nothing about files or terminals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from steerlib.experiment import barrier_tables, race_tables, value_tables
from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import DATA, Cell
from steerlib.experiment.paper_tables import Printed, published
from steerlib.experiment.race_tables import Column
from steerlib.experiment.rerun import UNSTEERED, Choice, Find, Rerun, layout_of
from steerlib.experiment.rerun_reading import COLUMN, means_by_row, together
from steerlib.experiment.unjudged import blank_note, blanks, by_row, note
from steerlib.experiment.written import canonical
from steerlib.metrics import Estimate

#: Columns of records that no layout has by itself: what the paper calls them -> the metric.
FURTHER = {f"Dist-{n}": Column(f"Dist-{n}", "high", race_tables._recorded(f"dist-{n}")) for n in (1, 2, 3)}
RESAMPLES = 600
#: What was read of a record, or None; see `rerun_reading`.
Read = Callable[[CellRecord], Estimate | None]


def _unread(_: CellRecord) -> None:
    return None


@dataclass(frozen=True)
class Entry:
    """One entry of a table.

    Attributes:
        ours: with its interval and n, as the paper prints it (percent where it does); None where nothing was measured.
        theirs: what was printed, with its deviation where it has one; None where nothing was, or was not found.
    """

    ours: Estimate | None
    theirs: Printed | None


@dataclass(frozen=True)
class Part:
    """One model of a table, on one data set or several.

    Attributes:
        key: as the printed numbers call it.
        columns: heads, "%" where they are in percent.
        rows: name -> column -> entry, in the paper's order.
        titles: name of a row -> what the paper calls it.
        choices: setting -> row -> what it was tested at.
        left: rows that are not there, with the reason.
        notes: how many answers of which rows are blank, or were not judged; none where every answer was.
    """

    key: str
    columns: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Entry]]
    titles: Mapping[str, str]
    choices: Mapping[str, Mapping[str, Choice]]
    left: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tested:
    """What is known of one setting.

    Attributes:
        setting: its name.
        cells: row, or value of what is varied, with its cell.
        choices: what rows are tested at.
        left: rows that are not tested, with the reason.
    """

    setting: str
    cells: tuple[tuple[str, Cell], ...]
    choices: Mapping[str, Choice]
    left: Mapping[str, str]


def tested(rerun: Rerun, find: Find) -> list[Tested]:
    """The second stage of every setting, as far as validation has decided."""
    out = []
    for setting in rerun.settings:
        choices = rerun.choices(setting, find)
        left = dict(rerun.spec.settings[setting].without)
        left |= dict.fromkeys(rerun.undecided(setting, choices), "no record on validation prompts to choose from")
        out.append(Tested(setting, tuple(rerun.tests(setting, choices)), choices, left))
    return out


def parts(rerun: Rerun, stages: Sequence[Tested], find: Find, read: Read = _unread) -> list[Part]:
    """The table, a part for each model; without what has no record yet.

    Args:
        rerun: which table.
        stages: see `tested`.
        find: the record of a cell.
        read: the perplexity of its answers.
    """
    printed = published(rerun.paper).get(rerun.name, {})
    by: dict[str, list[Tested]] = {}
    for stage in stages:
        by.setdefault(_key(rerun, stage), []).append(stage)
    return [_part(rerun, key, mine, printed.get(key, {}), find, read) for key, mine in by.items()]


def _part(
    rerun: Rerun, key: str, stages: Sequence[Tested], printed: Mapping[str, Mapping[str, Printed]],
    find: Find, read: Read,
) -> Part:  # fmt: skip
    found: dict[str, dict[str, Estimate]] = {}
    said: list[tuple[str, CellRecord]] = []
    for mine in _together(stages).values():
        records = [(label, record) for label, cell in mine if (record := find(cell)) is not None]
        said += records
        for row, columns in _measured(rerun, records).items():
            found.setdefault(row, {}).update(columns)
        for row, estimate in means_by_row(records, read).items():
            found.setdefault(row, {})[COLUMN] = estimate
        for column in rerun.entry.pooled:
            counted = means_by_row(records, lambda record, n=int(column[-1]): together(record, n))
            for row, estimate in counted.items():
                found.setdefault(row, {})[column] = estimate
    columns = _columns(rerun, found, printed)
    left = {row: why for stage in stages for row, why in stage.left.items() if row not in found}
    absent = left if rerun.entry.vary is None else ()
    order = list(dict.fromkeys([*(label for stage in stages for label, _ in stage.cells), *printed, *absent]))
    known = list(getattr(layout_of(rerun.spec), "ROWS", {}))
    if rerun.entry.vary is None:
        order.sort(key=lambda row: known.index(row) if row in known else len(known))
    scale = {column: 100.0 if column in rerun.entry.percent else 1.0 for column in columns}
    rows = {
        row: {
            column: Entry(_scaled(found.get(row, {}).get(column), scale[column]), printed.get(row, {}).get(column))
            for column in columns
        }
        for row in order
    }
    heads = tuple(f"{column}, %" if column in rerun.entry.percent else column for column in columns)
    rows = {row: dict(zip(heads, entries.values(), strict=True)) for row, entries in rows.items()}
    titles = _titles(rerun, order)
    return Part(key, heads, rows, titles, {s.setting: s.choices for s in stages}, left, _notes(said, titles))


def _notes(said: Sequence[tuple[str, CellRecord]], titles: Mapping[str, str]) -> tuple[str, ...]:
    """What a table says below itself of answers that say nothing, and of those that nobody judged."""
    label = {record.cell: label for label, record in said}.__getitem__
    records = [record for _, record in said]
    told = blank_note(blanks(records, label), titles=titles), note(by_row(records, label), titles=titles)
    return tuple(text for text in told if text)


def _measured(rerun: Rerun, records: Sequence[tuple[str, CellRecord]]) -> dict[str, dict[str, Estimate]]:
    """Row -> column -> estimate, of one model on one task."""
    labels = {record.key: label for label, record in records}
    if rerun.spec.layout == "values":
        by: dict[str, list[CellRecord]] = {}
        for label, record in records:
            by.setdefault(label, []).append(record)
        made = {label: value_tables.row_from(label, mine) for label, mine in by.items()}
        heads = value_tables.COLUMNS
        return {
            label: {heads[column]: row.estimate(column, resamples=RESAMPLES) for column in heads}
            for label, row in made.items()
        }
    if UNSTEERED not in labels.values():
        return {}  # wins and changes are counted against it
    if rerun.entry.vary is None and rerun.spec.layout != "barriers":
        return layout_of(rerun.spec).table([record for _, record in records])
    named = {record.cell: label for label, record in records}
    entries = barrier_tables.entries([record for _, record in records], named=named.__getitem__)
    task = records[0][1].cell.task
    heads = {column.title: column for column in layout_of(rerun.spec).COLUMNS[task]}
    heads |= {name: FURTHER[name] for name in rerun.entry.columns if name in FURTHER}
    bare = entries[UNSTEERED]
    return {row: {title: column.of(entry, bare) for title, column in heads.items()} for row, entry in entries.items()}


def _together(stages: Sequence[Tested]) -> dict[str, list[tuple[str, Cell]]]:
    """Cells by task and its options, both folds of a data set as one."""
    found: dict[str, list[tuple[str, Cell]]] = {}
    for stage in stages:
        for label, cell in stage.cells:
            options = {name: value for name, value in cell.task_options.items() if name not in (DATA, "fold")}
            found.setdefault(f"{cell.task} {canonical(options)}", []).append((label, cell))
    return found


def _key(rerun: Rerun, stage: Tested) -> str:
    """What the printed numbers call a setting: itself in RE-Control's table, else the model, and the concept."""
    if rerun.spec.layout == "values" or not stage.cells:
        return stage.setting
    cell = stage.cells[0][1]
    concept = cell.task_options.get("concept")
    fitted = sorted({c.law.fit.task for _, c in stage.cells if c.law is not None and c.law.fit.task is not None})
    name = cell.plant.rstrip("/").rpartition("/")[2].lower()
    return " ".join([name, *([str(concept)] if concept else []), *(f"fitted for {task}" for task in fitted)])


def _columns(
    rerun: Rerun, found: Mapping[str, Mapping[str, Estimate]], printed: Mapping[str, Mapping[str, Printed]]
) -> list[str]:
    """Columns that are shown: those that the entry names, or all of ours, and what was printed beside them."""
    ours = list(dict.fromkeys(column for row in found.values() for column in row))
    theirs = list(dict.fromkeys(column for row in printed.values() for column in row))
    if rerun.entry.columns:
        return [column for column in rerun.entry.columns if column in (*ours, *theirs)]
    return [*(column for column in theirs), *(column for column in ours if column not in theirs)]


def _titles(rerun: Rerun, rows: Sequence[str]) -> dict[str, str]:
    known: Mapping[str, str] = getattr(layout_of(rerun.spec), "ROWS", {})
    vary = rerun.entry.vary
    if vary is None:
        return {row: known.get(row, row) for row in rows}
    what = vary.field.rpartition(".")[2]
    titles = {}
    for row in rows:
        head, _, value = row.rpartition(", ")
        told = known.get(row, f"{what} {value}" if vary.field else value)
        titles[row] = f"{known.get(head, head)}, {told}" if head else told
    return titles


def _scaled(found: Estimate | None, by: float) -> Estimate | None:
    if found is None or found.n == 0 or found.value != found.value:
        return None
    return found if by == 1.0 else Estimate(by * found.value, by * found.low, by * found.high, found.n)
