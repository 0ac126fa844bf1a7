"""Read a table, JSON, JSON lines or Parquet file row by row, and say exactly what is wrong where it cannot be read.

Knows encodings, quoting, compression and fields. Knows nothing about any one data set.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from steerlib.errors import SteerlibError

RESTORE = "Fix: fetch or copy the file again"


class DataError(SteerlibError, ValueError):
    """A data set that is absent, or a file of it that is not what it should be; says which file, line and field."""


@dataclass(frozen=True)
class Record:
    """One row of a file, with the place to name when something is wrong with it.

    Attributes:
        file: the file.
        place: "line 3" of a table or of JSON lines, "item 3" of a JSON list, "row 3" of Parquet.
        fields: names and values.
    """

    file: Path
    place: str
    fields: Mapping[str, Any]

    def error(self, field: str, why: str) -> DataError:
        """The error that names file, place and field."""
        return DataError(f"{self.file}, {self.place}, field {field!r}: {why}.")

    def get(self, field: str) -> Any:
        """The value of a field, or DataError if the row has none."""
        if field not in self.fields:
            has = ", ".join(map(str, self.fields)) or "none"
            raise self.error(field, f"missing; expected it among the fields, which are: {has}")
        return self.fields[field]

    def text(self, field: str, *, empty: bool = False) -> str:
        """The text of a field, without space around it; DataError if it is no text, or empty and may not be."""
        value = self.get(field)
        if not isinstance(value, str):
            raise self.error(field, f"got {_shown(value)}, expected text")
        if not value.strip() and not empty:
            raise self.error(field, "empty, expected text")
        return value.strip()

    def raw(self, field: str) -> str:
        """The text of a field as it stands: in a dialogue or a continuation the space at its ends counts."""
        self.text(field)
        return self.fields[field]

    def number(self, field: str, *, low: float = -math.inf, high: float = math.inf) -> float:
        """The finite number of a field; DataError if it is none, or outside its bounds."""
        value = self.get(field)
        try:
            found = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found) or not low <= found <= high:
            bounds = "" if low == -math.inf and high == math.inf else f" from {low:g} to {high:g}"
            raise self.error(field, f"got {_shown(value)}, expected a number{bounds}")
        return found

    def inner(self, field: str) -> Record:
        """A field that holds fields of its own."""
        value = self.get(field)
        if not isinstance(value, Mapping):
            raise self.error(field, f"got {_shown(value)}, expected an object")
        return Record(self.file, f"{self.place}, in {field!r}", value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


@contextmanager
def opened(file: Path) -> Iterator[TextIO]:
    """A text file in UTF-8, with or without a byte-order mark, gzipped if its name ends in .gz.

    Raises:
        DataError: absent, unreadable, cut off, not gzip, not UTF-8, or empty.
    """
    if not file.is_file():
        raise DataError(f"{file}: no such file. {RESTORE}, or name the folder that holds it.")
    try:
        if file.stat().st_size == 0:
            raise DataError(f"{file}: empty, expected rows. {RESTORE}.")
        if file.suffix == ".gz":
            with gzip.open(file, "rt", encoding="utf-8-sig", newline="") as stream:
                yield stream  # type: ignore[misc] - gzip.open in text mode gives text
        else:
            with file.open(encoding="utf-8-sig", newline="") as stream:
                yield stream
    except EOFError as error:
        raise DataError(f"{file}: the compressed data ends in the middle: cut off while copied. {RESTORE}.") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{file}: not gzip, or damaged ({error}). {RESTORE}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: byte {error.start} is not UTF-8 ({error.reason}). {RESTORE}.") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror or error}).") from error


def read_table(
    file: Path,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    quoted: bool = True,
    header: bool = True,
    ragged: bool = False,
) -> list[Record]:
    """Rows of a CSV or TSV file.

    Args:
        file: path; `.gz` is decompressed.
        columns: those that must be there. Without a header they name the columns in order.
        delimiter: between fields.
        quoted: whether `"` quotes a field; in ParaDetox it is a character like any other.
        header: whether the first line names the columns.
        ragged: whether a row may have fewer fields than there are columns; it then lacks the last ones.

    Raises:
        DataError: see `opened`; a missing column, a row with too many or too few fields, an open quote, or no row.
    """
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    rows: list[Record] = []
    with opened(file) as stream:
        reader = csv.reader(stream, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            names = next(reader, []) if header else list(columns)
            if absent := [name for name in columns if name not in names]:
                raise DataError(
                    f"{file}, line 1: column {absent[0]!r} is missing; expected {', '.join(columns)}, "
                    f"got {', '.join(names) or 'none'}. {RESTORE}."
                )
            start = reader.line_num + 1
            for row in reader:
                place, start = f"line {start}", reader.line_num + 1
                if not row:
                    continue
                if len(row) > len(names) or (len(row) < len(names) and not ragged):
                    raise DataError(f"{file}, {place}: got {len(row)} fields, expected {len(names)}. {RESTORE}.")
                rows.append(Record(file, place, dict(zip(names, row, strict=False))))
        except csv.Error as error:
            raise DataError(f"{file}, line {reader.line_num}: {error}. {RESTORE}.") from error
    return _some(file, rows)


def read_json(file: Path) -> Any:
    """The value that a JSON file holds.

    Raises:
        DataError: see `opened`; or not JSON, with line and column.
    """
    with opened(file) as stream:
        text = stream.read()
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}). {RESTORE}."
        ) from error


def read_list(file: Path) -> list[Record]:
    """The objects of a JSON list.

    Raises:
        DataError: see `read_json`; or not a list of objects, or an empty one.
    """
    value = read_json(file)
    if not isinstance(value, list):
        raise DataError(f"{file}: got {type(value).__name__}, expected a list of objects. {RESTORE}.")
    return _some(file, [_object(file, f"item {i}", item) for i, item in enumerate(value, start=1)])


def read_json_lines(file: Path) -> list[Record]:
    """The objects of a file with one JSON object a line.

    Raises:
        DataError: see `opened`; or a line that is no JSON object, or no line at all.
    """
    rows: list[Record] = []
    with opened(file) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{file}, line {number}, column {error.colno}: not JSON ({error.msg}). {RESTORE}."
                ) from error
            rows.append(_object(file, f"line {number}", value))
    return _some(file, rows)


def read_parquet(file: Path, columns: Sequence[str]) -> list[Record]:
    """Rows of a Parquet file, through pandas.

    Raises:
        DataError: absent, not Parquet, a missing column, no rows, or no engine to read it with.
    """
    import pandas

    if not file.is_file():
        raise DataError(f"{file}: no such file. {RESTORE}, or name the folder that holds it.")
    try:
        frame = pandas.read_parquet(file)
    except ImportError as error:
        raise DataError(f"{file}: pandas finds nothing to read Parquet with. Fix: pip install pyarrow.") from error
    except Exception as error:  # each engine raises types of its own
        raise DataError(f"{file}: not Parquet, or damaged ({error}). {RESTORE}.") from error
    if absent := [name for name in columns if name not in frame.columns]:
        raise DataError(f"{file}: column {absent[0]!r} is missing; got {', '.join(map(str, frame.columns))}.")
    rows = zip(*(frame[name].tolist() for name in columns), strict=True)
    fields = [dict(zip(columns, row, strict=True)) for row in rows]
    return _some(file, [Record(file, f"row {i}", row) for i, row in enumerate(fields, start=1)])


def _object(file: Path, place: str, value: Any) -> Record:
    if not isinstance(value, dict):
        raise DataError(f"{file}, {place}: got {_shown(value)}, expected an object. {RESTORE}.")
    return Record(file, place, value)


def _some(file: Path, rows: list[Record]) -> list[Record]:
    if not rows:
        raise DataError(f"{file}: holds no row. {RESTORE}.")
    return rows
