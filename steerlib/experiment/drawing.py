"""How the answers of a cell are drawn: its own settings beside those of its task, said to people before they are run.

Knows settings of cells and of tasks on public data. Knows nothing about plants' sampling, laws or records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlib.errors import SteerlibError
from steerlib.experiment.cells import Cell, Sampling, canonical
from steerlib.experiment.sampling_spec import plain
from steerlib.experiment.spelling import listed
from steerlib.registry import task_class
from steerlib.tasks.real.settings import settings_of
from steerlib.tasks.streamed import rollouts_folder

if TYPE_CHECKING:
    from steerlib.plant import Generation, Plant


class CellError(SteerlibError, ValueError):
    """A cell that cannot be computed."""


class _Drawn:
    """A plant that samples by other settings than it is asked for, and is the plant itself in all else."""

    def __init__(self, plant: Plant, settings: dict[str, Any]) -> None:
        self._plant, self._settings = plant, settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plant, name)

    def generate(self, prompts: Sequence[str], **asked: Any) -> Generation:
        return self._plant.generate(prompts, **(asked | self._settings))


def drawn_as(task: Any, cell: Cell) -> Any:
    """The task, whose answers are drawn by the cell's settings; the task that neighbouring cells share stays as it is.

    A penalty or a ban is not among them: they are of the plant while it generates, see `steerlib.decoding.repetition`.

    Raises:
        CellError: if the task has settings of its own, and the cell says the same anew.
    """
    twice = {name: value for name, value in cell.settings.given.items() if name in Sampling.of_tasks}
    if twice and hasattr(task, "settings"):
        raise CellError(f"task {cell.task!r} has settings of its own. Fix: give {twice} as task_options.settings")
    if not cell.settings.drawn:
        return task
    own = copy(task)
    own.plant = _Drawn(task.plant, cell.settings.drawn)
    return own


def answers_folder(repetition: str) -> Path:
    """Where states of answers lie that were written under a penalty or a ban, or under neither.

    Args:
        repetition: `Sampling.repetition`, canonical; another gives other answers to the same prompts.
    """
    if repetition == canonical({}):
        return rollouts_folder()
    return rollouts_folder() / f"repetition-{hashlib.sha256(repetition.encode()).hexdigest()[:12]}"


def drawing_lines(cells: Iterable[Cell]) -> list[str]:
    """How the answers of sampled cells are drawn, a line for each way: which task, and every setting by its name."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.kind == "sampled":
            found.setdefault(_told(cell), []).append(cell)
    lines = []
    for told, those in found.items():
        tasks = ", ".join(dict.fromkeys(cell.task for cell in those))
        bare = len(found) > 1 and all(cell.law is None and cell.decoder is None for cell in those)
        lines.append(f"answers to {tasks}{', unsteered' if bare else ''}: {told}")
    return lines


def _told(cell: Cell) -> str:
    said = {**_of_task(cell), **cell.settings.given}
    stop = said.pop("stop", ())
    words = [f"{name.replace('_', ' ')} {plain(value)}" for name, value in said.items() if value is not None]
    if cell.settings.repetition_penalty is None:
        words.append("repetition penalty as the model's own generation_config says")
    words += [f"cut at {' or '.join(map(repr, stop))}"] if stop else []
    return ", ".join([*words, *_cuts(cell)])


def _cuts(cell: Cell) -> list[str]:
    """Where answers end for some metrics and not for others, if the task is told so."""
    given: Any = cell.task_options.get("cuts") or {}
    by_marks: dict[tuple[str, ...], list[str]] = {}
    for metric, marks in given.items():
        by_marks.setdefault(tuple(marks), []).append(metric)
    return [f"cut for {listed(metrics)} at {' or '.join(map(repr, marks))}" for marks, metrics in by_marks.items()]


def _of_task(cell: Cell) -> dict[str, Any]:
    """Settings of the task; of one that has none to choose, such as a letter that is written, none."""
    given: Any = cell.task_options.get("settings")
    if given is None:
        return {}
    how = settings_of(given, getattr(task_class(cell.task), "behaviour", ""))
    return {name: getattr(how, name) for name in ("max_new_tokens", "temperature", "top_p", "stop")}
