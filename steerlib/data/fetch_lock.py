"""The fetch lock: which bytes each public file had when it was first downloaded, and from which revision.

Knows the file and its entries. An entry is written from bytes that were downloaded, never by hand and never from a
local copy of unknown origin. Later downloads, on any machine, must give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steerlib.data.reading import DataError
from steerlib.data.sources import cache_folder
from steerlib.files import project_root, write_atomic


class Entry(BaseModel):
    """One downloaded file.

    Attributes:
        home: kind and place, such as "github:owner/name".
        remote: path in the home.
        revision: commit it was taken from.
        sha256: of its bytes.
        size: in bytes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: str
    remote: str
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=1)]


class FetchLock(BaseModel):
    """All entries, by their path in the data folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    files: dict[str, Entry] = {}

    @classmethod
    def read(cls, file: Path) -> FetchLock:
        """Read a lock; an absent one is empty.

        Raises:
            DataError: if it is not a lock.
        """
        if not file.is_file():
            return cls()
        try:
            return cls.model_validate_json(file.read_text(encoding="utf-8"))
        except (ValidationError, UnicodeDecodeError) as error:
            raise DataError(
                f"{file}: not a fetch lock ({error}). Fix: restore it, or delete it and fetch again."
            ) from error

    def with_entry(self, path: str, entry: Entry) -> FetchLock:
        """The lock with one entry more."""
        return FetchLock(files=dict(sorted({**self.files, path: entry}.items())))

    def write(self, file: Path) -> None:
        """Write the lock, so that nobody reads half of it."""
        write_atomic(file, self.model_dump_json(indent=1) + "\n")

    def revision(self, home: str) -> str | None:
        """The revision that files of a home were taken from, or None if none was."""
        return next((entry.revision for entry in self.files.values() if entry.home == home), None)


def default_lock() -> Path:
    """`fetch.lock.json` in the clone, where it can be committed; beside the fetched data for an installed package."""
    root = project_root()
    return (root if root is not None else cache_folder().parent) / "fetch.lock.json"
