"""A folder of cell records, addressed by content: finished work is kept whatever happens, and read whole or not at all.

Knows files, locks and damage. Knows nothing about how a record comes about.

A record is written beside its place and moved there, so a reader never sees half of one. A cell under way holds a lock
that the system gives back when its process dies, by any signal. What is damaged is set aside by name and computed anew.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from steerlib.errors import SteerlibError
from steerlib.experiment.cell_records import CellRecord, dump, parse
from steerlib.experiment.records import RecordError
from steerlib.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

QUARANTINE, LOCKS = "quarantine", "locks"


class StoreError(SteerlibError, OSError):
    """A store that cannot be written."""


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
        path = self.path(key)
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        try:
            record = parse(text, name=str(path))
            if record.key != key:
                raise RecordError(f"{path} holds the record of another key, {record.key}")
        except RecordError as error:
            self._set_aside(path, str(error))
            return None
        return record

    def put(self, record: CellRecord) -> Path:
        """Write a record.

        Raises:
            StoreError: if the folder cannot be written; says where and why.
            DiskFullError: if the disk is full. What was there before is untouched.
        """
        path = self.path(record.key)
        with self._writing():
            write_atomic(path, dump(record))
        return path

    @contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Hold the lock of a cell: true inside if it is ours, false if another process is at it."""
        with self._writing():
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
        import pandas as pd

        rows = []
        for record in self.records():
            cell, law = record.cell, record.cell.law
            base = {
                "key": record.key[:12],
                "plant": cell.plant,
                "task": " ".join([cell.task, *map(str, cell.task_options.values())]),
                "law": "unsteered" if law is None else law.name,
                "layer": None if law is None else law.layer,
                "strength": None if law is None else law.strength,
                "labels": None if law is None else law.fit.labels,
                "told": cell.told,
                "kind": cell.kind,
                "split": cell.split,
                "seed": cell.seed,
                "seconds": record.seconds,
                "created": record.created,
            }
            rows += [{**base, "metric": name, **metric.model_dump()} for name, metric in record.metrics.items()]
        return pd.DataFrame(rows)

    def export(self, path: str | Path) -> Path:
        """Write `frame` to a file: ".csv", or ".parquet" where pyarrow is installed.

        Raises:
            ValueError: another ending.
            StoreError: if pyarrow is needed and absent.
        """
        target = Path(path)
        if target.suffix == ".csv":
            self.frame().to_csv(target, index=False)
        elif target.suffix == ".parquet":
            try:
                self.frame().to_parquet(target, index=False)
            except ImportError:
                raise StoreError(
                    errno.ENOPKG, f"{target}: Parquet needs pyarrow. Fix: pip install pyarrow, or export to .csv"
                ) from None
        else:
            raise ValueError(f"got {target.name!r}, expected a name that ends in .csv or .parquet")
        return target

    def _set_aside(self, path: Path, why: str) -> None:
        target = self.folder / QUARANTINE / path.name
        self.damaged.append(why)
        with self._writing():
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another process may have set it aside
                os.replace(path, target)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
                raise StoreError(
                    error.errno,
                    f"the store {self.folder} cannot be written ({os.strerror(error.errno)}). Fix: name another "
                    "folder, or change its permissions; records that are there stay readable",
                ) from error
            raise
