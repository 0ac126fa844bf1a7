"""Where the project lies, and how a file is written so that nobody reads half of it.

Knows paths and bytes; knows nothing of what the files mean.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path


class DiskFullError(OSError):
    """The disk is full; says where, and that finished work is kept."""

    def __str__(self) -> str:
        """The message alone, without the number of the error."""
        return str(self.strerror)


def project_root() -> Path | None:
    """Root of the clone this package runs from, or None for an installed package.

    The environment variable STEERLIB_ROOT wins; otherwise the folder above the package counts if it
    holds the lock file.
    """
    if chosen := os.environ.get("STEERLIB_ROOT"):
        return Path(chosen).resolve()
    above = Path(__file__).resolve().parents[1]
    return above if (above / "requirements.lock").exists() else None


def data_folder() -> Path:
    """Folder of the shipped data: `data/` of the clone, or the copy inside an installed package."""
    root = project_root()
    if root is not None and (root / "data").is_dir():
        return root / "data"
    return Path(__file__).resolve().parent / "_data"


def page_references(data: Path) -> list[Path]:
    """The accepted figures of the book's pages, `reference/<profile>/NN_name.json` in the folder of shipped data."""
    return sorted((data / "reference").glob("*/[0-9][0-9]_*.json"))


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    Raises:
        DiskFullError: no space left; the old file, if any, is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    scratch: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(scratch, 0o644)  # mkstemp gives 0600, which a web server could not read
        os.replace(scratch, path)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path) from error
        raise
    finally:
        if scratch is not None and os.path.exists(scratch):
            os.unlink(scratch)


def is_disk_full(error: OSError) -> bool:
    """Whether an error comes from a full disk; `shutil` reports it in words only."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


def disk_full(path: Path) -> DiskFullError:
    """The error that says that the disk of `path` is full."""
    return DiskFullError(
        errno.ENOSPC,
        f"no space left on the disk while writing {path}. Finished work is kept. "
        "Fix: free some space (`make clean` removes everything generated) and run the same command again",
    )


def is_place(name: str) -> bool:
    """Whether a name can only be a folder's, such as "./judge", and not the id of a model on the hub."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1
