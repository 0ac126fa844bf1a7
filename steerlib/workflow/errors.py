"""The errors of the pipeline, and how a command ends on one: a plain message and a nonzero exit, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from steerlib.errors import SteerlibError
from steerlib.files import DiskFullError, disk_full, is_disk_full


class WorkflowError(SteerlibError):
    """Something the user can fix; the message says what was got, what was expected, and how."""


class ProfileError(WorkflowError):
    """An unknown or malformed profile."""


class SourceError(WorkflowError):
    """A notebook's source that the pipeline cannot take: no parameters cell, unknown parameter, pair out of step."""


class ExecutionError(WorkflowError):
    """A notebook that did not run to its end."""


class GateError(WorkflowError):
    """An executed notebook that must not be published."""


class BookError(WorkflowError):
    """The book did not build without warnings."""


class DriftError(WorkflowError):
    """The pages say something else than their accepted figures."""


def run_command(body: Callable[[], int | None]) -> None:
    """Run the body of a command; exit 1 with the message of a known error, 130 after an interrupt."""
    try:
        code = body() or 0
    except KeyboardInterrupt:
        print("steerlib: interrupted; finished notebooks are kept, run the same command to go on", flush=True)
        code = 130
    except SteerlibError as error:
        print(f"steerlib: {error}", flush=True)
        code = 1
    except OSError as error:
        if not is_disk_full(error):
            raise
        told = error if isinstance(error, DiskFullError) else disk_full(Path(error.filename or "build"))
        print(f"steerlib: {told}", flush=True)
        code = 1
    sys.exit(code)
