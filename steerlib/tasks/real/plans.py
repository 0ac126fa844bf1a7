"""The splits of the tasks on public data, written down in ``data/splits``, so that other files or code are noticed.

Knows which tasks have a split that was written down, and what is said with it: the task, its options, the code, and the
SHA-256 of every file. Knows nothing of how rows are split. No text of a data set is written, only digests.

A split is here if its whole files were at hand when it was written: not that of MMLU, of UltraFeedback or of Jigsaw's
comments, nor that of the requests, a part of whose harmless instructions was missing.

``python -m steerlib.tasks.real.plans --data FOLDER`` compares the files of a folder with what was written, and with
``--write`` writes it again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from steerlib.errors import SteerlibError, unknown
from steerlib.files import data_folder, sha256
from steerlib.plant import Plant
from steerlib.registry import TASKS, task_class
from steerlib.tasks.real.base import RealTask


@dataclass(frozen=True)
class Plan:
    """A task whose split is written down.

    Attributes:
        task: its name in `steerlib.registry.TASKS`.
        options: what it is made with; the seed is its default, and stands in the split.
    """

    task: str
    options: Mapping[str, Any]


#: By the name of the file. The split of the sentences is the same for every concept.
PLANS: dict[str, Plan] = {
    "truthfulqa": Plan("truthfulqa", {"fold": 0}),
    "truthfulqa-second": Plan("truthfulqa", {"fold": 1}),
    "real-toxicity": Plan("real-toxicity", {"fit_on": "rtp"}),
    "preference": Plan("preference", {"of": "hh"}),
    "preference-shp": Plan("preference", {"of": "shp"}),
    "onesec": Plan("onesec", {"concept": "book"}),
}


def write_plan(name: str, *, data: str | Path | None = None, folder: Path | None = None) -> Path:
    """Write the split of a task down, with what it was made from; returns the file.

    Args:
        name: one of `PLANS`.
        data: folder of the data; see `steerlib.data.sources.locate`.
        folder: where to; by default ``splits`` in the folder of shipped data.

    Raises:
        SteerlibError: no such plan, or a file of the data is absent or malformed.
    """
    task, file = _task(name, data), _file(name, folder)
    task.partition.write(file, about=_about(name, task))
    return file


def check_plan(name: str, *, data: str | Path | None = None, folder: Path | None = None) -> None:
    """Split the data again, and compare with the split that was written down.

    Args:
        name: one of `PLANS`.
        data: folder of the data; see `steerlib.data.sources.locate`.
        folder: of the written splits; by default ``splits`` in the folder of shipped data.

    Raises:
        SteerlibError: no such plan, a file of the data is absent or malformed, or another split was written down; says
            what differs, "files" where the bytes of the data do.
    """
    task = _task(name, data)
    task.partition.check(_file(name, folder), about=_about(name, task))


def _task(name: str, data: str | Path | None) -> RealTask:
    if name not in PLANS:
        raise SteerlibError(unknown("split", name, PLANS))
    # Rows are read and split without a plant, as in `RealTask.data_files`.
    return task_class(PLANS[name].task)(cast(Plant, None), data=data, **PLANS[name].options)


def _file(name: str, folder: Path | None) -> Path:
    return (folder or data_folder() / "splits") / f"{name}.json"


def _about(name: str, task: RealTask) -> dict[str, object]:
    """Where the split comes from; files are named as in the data folder, which is two levels deep."""
    plan = PLANS[name]
    return {
        "task": plan.task,
        "options": dict(plan.options),
        "code": TASKS[plan.task],
        "files": {"/".join(file.parts[-2:]): sha256(file) for file in task.files()},
    }


def main(arguments: list[str] | None = None) -> None:
    """Compare all plans with a folder of data, or write them again."""
    parser = argparse.ArgumentParser(description="Compare the splits of public data with those written down.")
    parser.add_argument("--data", help="folder of the data; by default STEERLIB_DATA, then what was fetched")
    parser.add_argument("--write", action="store_true", help="write them again instead")
    chosen = parser.parse_args(arguments)
    for name in PLANS:
        if chosen.write:
            print(write_plan(name, data=chosen.data))
        else:
            check_plan(name, data=chosen.data)
            print(f"{name}: as it was written down")


if __name__ == "__main__":
    main()
