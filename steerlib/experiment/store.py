"""A folder of cell records, addressed by content: finished work is kept whatever happens, and read whole or not at all.

Knows files, locks and damage. Knows nothing about how a record comes about.

A record is written beside its place and moved there, so a reader never sees half of one. A cell under way holds a lock
that the system gives back when its process dies, by any signal. What is damaged is set aside by name and computed anew.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock, Timeout

from steerlib.errors import SteerlibError
from steerlib.experiment.cell_records import CellRecord, dump, inspect, parse
from steerlib.experiment.records import RecordError
from steerlib.files import DiskFullError, disk_full, is_disk_full, write_atomic

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
QUARANTINE, LOCKS = "quarantine", "locks"


class StoreError(SteerlibError, OSError):
    """A store that cannot be written."""

    def __str__(self) -> str:
        """The message alone, without the number of the error."""
        return str(self.strerror)


class Store:
    """Records of cells in a folder.

    Args:
        folder: is made when the first record is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.damaged: list[str] = []

    def path(self, key: str) -> Path:
        """Where the record of a key lies, whether or not it does."""
        return self.folder / key[:2] / f"{key}.json"

    def keys(self) -> set[str]:
        """Keys of all records, from the file names alone."""
        found: set[str] = set()
        if not self.folder.is_dir():
            return found
        for part in os.scandir(self.folder):
            if part.is_dir() and len(part.name) == 2:
                found.update(e.name[:-5] for e in os.scandir(part) if e.name.endswith(".json") and e.name[0] != ".")
        return found

    def get(self, key: str) -> CellRecord | None:
        """A record, or None if there is none; a damaged one is set aside, noted in `damaged`, and counts as absent."""
        return self._read(key, parse)

    def holds(self, key: str) -> bool:
        """Whether there is a sound record: as `get`, by its bytes alone, which takes a twentieth of the time."""
        return self._read(key, inspect) is not None

    def put(self, record: CellRecord) -> Path:
        """Write a record.

        Raises:
            StoreError: if the folder cannot be written; says where and why.
            DiskFullError: if the disk is full. What was there before is untouched.
        """
        path = self.path(record.key)
        with writing(self.folder):
            write_atomic(path, dump(record))
        return path

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Hold the lock of a cell: true inside if it is ours, false if another process is at it."""
        with writing(self.folder):
            (self.folder / LOCKS).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCKS / f"{key}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                ours = False
            else:
                ours = True
        try:
            yield ours
        finally:
            if ours:
                # The file goes while the lock is held, so that nobody is left holding a lock on a file that is gone
                # and a store does not fill with empty files.
                Path(lock.lock_file).unlink(missing_ok=True)
                lock.release()

    def records(self) -> Iterator[CellRecord]:
        """Every record, in the order of keys; damaged ones are set aside."""
        for key in sorted(self.keys()):
            record = self.get(key)
            if record is not None:
                yield record

    def frame(self) -> pd.DataFrame:
        """One row for each metric of each record, for browsing."""
        return frame_of(self.records())

    def export(self, path: str | Path) -> Path:
        """Write `frame` to a file: ".csv", or ".parquet" where pyarrow is installed.

        Raises:
            ValueError: another ending.
            StoreError: if pyarrow is needed and absent, or the file cannot be written.
            DiskFullError: if the disk is full; a file that was there before is untouched.
        """
        target = Path(path)
        if target.suffix not in (".csv", ".parquet"):
            raise ValueError(f"got {target.name!r}, expected a name that ends in .csv or .parquet")
        content = io.BytesIO()
        if target.suffix == ".csv":
            self.frame().to_csv(content, index=False)
        else:
            try:
                self.frame().to_parquet(content, index=False)
            except ImportError:
                raise StoreError(
                    errno.ENOPKG, f"{target}: Parquet needs pyarrow. Fix: pip install pyarrow, or export to .csv"
                ) from None
        with writing(target):
            write_atomic(target, content.getvalue())
        return target

    def _read(self, key: str, how: Callable[..., T]) -> T | None:
        path = self.path(key)
        try:
            return how(path.read_bytes(), key=key, name=str(path))
        except FileNotFoundError:
            return None
        except RecordError as error:
            self._set_aside(path, str(error))
            return None

    def _set_aside(self, path: Path, why: str) -> None:
        try:
            place = self.folder / QUARANTINE
            place.mkdir(parents=True, exist_ok=True)
            target = _free(place, path)
            try:
                os.replace(path, target)
            except OSError as error:
                target.unlink(missing_ok=True)
                if not isinstance(error, FileNotFoundError):  # another process may have set it aside
                    raise
        except OSError as error:  # it counts as absent all the same, and a store that is only read stays readable
            why += f" (and it stays where it is: {error.strerror})"
        self.damaged.append(why)


def _free(folder: Path, path: Path) -> Path:
    """A name for a file in a folder that holds others of its name; it is taken at once, so that no other takes it."""
    target, number = folder / path.name, 1
    while True:
        try:
            target.touch(exist_ok=False)
        except FileExistsError:
            number += 1
            target = folder / f"{path.stem}.{number}{path.suffix}"
        else:
            return target


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn the system's refusals to write into errors that say where and what to do.

    Raises:
        StoreError: read-only or forbidden.
        DiskFullError: no space left.
    """
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(place) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise StoreError(
                error.errno,
                f"{place} cannot be written ({os.strerror(error.errno)}). Fix: name another place, or change its "
                "permissions; records that are there stay readable",
            ) from error
        raise


def frame_of(records: Iterable[CellRecord]) -> pd.DataFrame:
    """One row for each metric of each record, for browsing.

    Columns say what the cell is: among them "fitted_for", the task that the law is fitted for; "max_new_tokens",
    "temperature" and "top_p" where the cell samples otherwise than its task does; "judge"; "decoder"; and "missing",
    the number of answers for which a judge gave no score. The row's metric has "value", "low", "high" and "n".
    """
    import pandas as pd

    rows = []
    for record in records:
        cell, law = record.cell, record.cell.law
        task, *fitted = (" ".join([name, *map(str, options.values())]) for name, options in cell.tasks)
        base = {
            "key": record.key[:12],
            "plant": cell.plant,
            "task": task,
            "law": "unsteered" if law is None else law.name,
            "layer": None if law is None else law.layer,
            "strength": None if law is None else law.strength,
            "labels": None if law is None else law.fit.labels,
            "fitted_for": None if law is None else (fitted or [task])[0],
            "told": cell.told,
            "kind": cell.kind,
            "split": cell.split,
            "seed": cell.seed,
            "max_new_tokens": cell.settings.max_new_tokens,
            "temperature": cell.settings.temperature,
            "top_p": cell.settings.top_p,
            "judge": cell.judged or None,
            "decoder": None if cell.decoder is None else cell.decoder.title,
            "missing": len(record.missing),
            "seconds": record.seconds,
            "created": record.created,
        }
        rows += [{**base, "metric": name, **metric.model_dump()} for name, metric in record.metrics.items()]
    return pd.DataFrame(rows)
