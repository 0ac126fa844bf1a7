"""Answers that were paid for, kept so that nobody asks again: a file with one line for each question.

Knows questions as data, their keys, and damage to lines. Knows nothing about who answers or what an answer means.

The key of a line is the hash of its question, so another model, wording or temperature is another question. A line is
appended in one piece under a lock and carries a checksum; one that was torn or altered is noted and its question counts
as never asked. The first answer to a question stays: what has been published does not change.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from steerlib.errors import SteerlibError
from steerlib.files import disk_full, is_disk_full

Data = dict[str, Any]


class JournalError(SteerlibError, OSError):
    """A journal that cannot be read or written."""


def key_of(question: Data) -> str:
    """The content key of a question."""
    return hashlib.sha256(_canonical(question).encode()).hexdigest()


def _canonical(data: Data) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


class Journal:
    """Recorded answers.

    Args:
        path: a file of JSON lines; made when the first answer is recorded.

    Attributes:
        damaged: which lines could not be used, and why.

    Raises:
        JournalError: if there is something at the path that cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damaged: list[str] = []
        self._answers: dict[str, Data] = {}
        self._read = 0  # bytes
        self._lines = 0
        self._threads = threading.Lock()
        self._catch_up()

    def __len__(self) -> int:
        """Questions with an answer."""
        return len(self._answers)

    def get(self, question: Data) -> Data | None:
        """The recorded answer to a question, or None."""
        return self._answers.get(key_of(question))

    def add(self, question: Data, answer: Data) -> Data:
        """Record an answer, on disk when this returns; where there is one already, that one stays and is returned.

        Raises:
            JournalError: if the file cannot be written; says where and why.
            DiskFullError: if the disk is full. What was recorded before is kept.
        """
        key = key_of(question)
        with self._writing(), self._threads, FileLock(f"{self.path}.lock"):
            self._catch_up()
            if key not in self._answers:
                self._append(key, question, answer)
                self._catch_up()
            return self._answers[key]

    def check_writable(self) -> None:
        """Make the file, or find out that it cannot be written before an answer is paid for.

        Raises:
            JournalError: if it cannot.
        """
        with self._writing():
            self.path.open("ab").close()

    def _append(self, key: str, question: Data, answer: Data) -> None:
        body = {
            "answer": answer,
            "key": key,
            "question": question,
            "recorded": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        line = _canonical({**body, "sum": hashlib.sha256(_canonical(body).encode()).hexdigest()})
        with self.path.open("ab+") as stream:
            stream.seek(0, os.SEEK_END)
            whole = stream.tell() == 0
            if not whole:
                stream.seek(-1, os.SEEK_END)
                whole = stream.read(1) == b"\n"
            # A line that was torn by a crash ends here, so that it cannot spoil the next one.
            stream.write(("" if whole else "\n").encode() + line.encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def _catch_up(self) -> None:
        """Read what was appended since, by this process or another."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self._read)
                fresh = stream.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalError(
                error.errno or errno.EIO, f"the journal {self.path} cannot be read ({error.strerror}). Fix: name a file"
            ) from error
        whole = fresh.rfind(b"\n") + 1  # the rest is being written by somebody, or was torn
        for raw in fresh[:whole].splitlines():
            self._lines += 1
            try:
                key, answer = _parse(raw)
            except (ValueError, KeyError, TypeError) as error:
                self.damaged.append(f"{self.path}, line {self._lines}: {error}; its question counts as never asked")
                continue
            self._answers.setdefault(key, answer)
        self._read += whole

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Errors of the file system, in the words of a user."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            yield
        except JournalError:
            raise
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(self.path) from error
            raise JournalError(
                error.errno or errno.EIO,
                f"the journal {self.path} cannot be written ({error.strerror}). Fix: name another file, or change "
                "its permissions; what was recorded stays readable",
            ) from error


def _parse(raw: bytes) -> tuple[str, Data]:
    """Key and answer of a line whose checksums hold."""
    try:
        body = json.loads(raw.decode())
        held = body.pop("sum")
    except (ValueError, AttributeError, KeyError):
        raise ValueError("torn or not JSON") from None
    if hashlib.sha256(_canonical(body).encode()).hexdigest() != held or key_of(body["question"]) != body["key"]:
        raise ValueError("its content does not have the checksum it names")
    if not isinstance(body["answer"], dict):
        raise ValueError("holds no answer")
    return body["key"], body["answer"]
