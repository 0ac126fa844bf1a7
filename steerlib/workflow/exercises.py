"""The exercises of a chapter, taken out of its source and run the three ways they must go.

Knows the tags; knows nothing of what is asked. An exercise is made of code cells with the tag `ex:<id>`, such as
`ex:11.1`, and one of:

- `exercise-setup`: imports and data, complete in itself; one cell may serve several exercises (several `ex:` tags);
- `exercise-stub`: one function that raises NotImplementedError when called; what the reader fills in;
- `exercise-check`: one function `check_11_1(answer)` that takes the reader's function and asserts;
- `exercise-solution`: the same function as the stub, filled in; folded on the page (tag `hide-cell` or `hide-input`);
- `exercise-wrong`: the same function with a plausible mistake; not on the page (tag `remove-cell`); may be several.

In a fresh namespace each: setup, stub, check must raise AssertionError or NotImplementedError; setup, solution,
check must pass; setup, wrong, check must raise AssertionError.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path

from nbformat import NotebookNode

from steerlib.workflow.errors import WorkflowError
from steerlib.workflow.pairing import read_source

PARTS = ("setup", "stub", "check", "solution", "wrong")
PREFIX = "exercise-"
HIDDEN = {"solution": {"hide-cell", "hide-input"}, "wrong": {"remove-cell"}}
IDENTIFIER = re.compile(r"^\d\d\.\d+$")


class ExerciseError(WorkflowError):
    """An exercise that is incomplete, or that does not go the way it must."""


@dataclass(frozen=True)
class Exercise:
    """One exercise: the source of the cells of each part."""

    notebook: str
    id: str
    parts: dict[str, tuple[str, ...]] = field(repr=False)

    @property
    def label(self) -> str:
        """Short name for messages and tests."""
        return f"{self.notebook}:{self.id}"

    @property
    def check_name(self) -> str:
        """Name that the check function must have."""
        return "check_" + self.id.replace(".", "_")


def exercises(source: Path) -> list[Exercise]:
    """The exercises of a chapter, complete or not, in order.

    Raises:
        ExerciseError: a cell tagged as a part but without `ex:<id>`, or the reverse, or one shown that must be hidden.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for index, cell in enumerate(read_source(source).cells):
        for identifier, part in _tags(cell, where=f"notebooks/{source.name}, cell {index + 1}"):
            found.setdefault(identifier, {name: [] for name in PARTS})[part].append(cell.source)
    return [
        Exercise(source.stem, identifier, {part: tuple(cells) for part, cells in parts.items()})
        for identifier, parts in found.items()
    ]


def _tags(cell: NotebookNode, *, where: str) -> list[tuple[str, str]]:
    """The (exercise, part) pairs of a cell."""
    tags = set(cell.metadata.get("tags", []))
    parts = [tag.removeprefix(PREFIX) for tag in tags if tag.startswith(PREFIX)]
    names = [tag.removeprefix("ex:") for tag in tags if tag.startswith("ex:")]
    if not parts and not names:
        return []
    if len(parts) != 1 or parts[0] not in PARTS or not names or (len(names) > 1 and parts[0] != "setup"):
        raise ExerciseError(
            f"{where}: got tags {sorted(tags)}, expected one of {', '.join(PREFIX + p for p in PARTS)} and one ex:<id> "
            "(a setup may have several)"
        )
    if bad := [name for name in names if not IDENTIFIER.match(name)]:
        raise ExerciseError(f"{where}: got exercise id {bad[0]!r}, expected chapter.number such as 11.1")
    part = parts[0]
    if part in HIDDEN and not tags & HIDDEN[part]:
        raise ExerciseError(f"{where}: an {PREFIX}{part} cell also needs the tag {' or '.join(sorted(HIDDEN[part]))}")
    return [(name, part) for name in sorted(names)]


def function_name(code: str, *, where: str) -> str:
    """Name of the one top-level function of a cell.

    Raises:
        ExerciseError: none, or several.
    """
    names = [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    if len(names) != 1:
        raise ExerciseError(f"{where}: got functions {names}, expected exactly one")
    return names[0]


def check_complete(exercise: Exercise) -> str:
    """Raise ExerciseError unless every part is there and fits; returns the name of the reader's function."""
    missing = [part for part in PARTS if not exercise.parts[part]]
    if missing:
        raise ExerciseError(f"exercise {exercise.label} lacks: {', '.join(PREFIX + part for part in missing)}")
    for part in ("stub", "check", "solution"):
        if len(exercise.parts[part]) > 1:
            raise ExerciseError(
                f"exercise {exercise.label}: got {len(exercise.parts[part])} {part} cells, expected one"
            )
    name = function_name(exercise.parts["stub"][0], where=f"exercise {exercise.label}, stub")
    check = function_name(exercise.parts["check"][0], where=f"exercise {exercise.label}, check")
    if check != exercise.check_name:
        raise ExerciseError(f"exercise {exercise.label}: got check {check}, expected {exercise.check_name}")
    for part in ("solution", "wrong"):
        for code in exercise.parts[part]:
            if name not in [node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]:
                raise ExerciseError(f"exercise {exercise.label}: its {part} does not define {name}, as the stub does")
    return name


def attempt(exercise: Exercise, answer: str) -> Exception | None:
    """Run setup, an answer and the check in a fresh namespace; returns what the check raised, if anything.

    What setup or the answer raise while they are defined is not caught: neither may.
    """
    name = check_complete(exercise)
    space: dict[str, object] = {"__name__": f"exercise_{exercise.id}"}
    for part, code in [
        *(("setup", c) for c in exercise.parts["setup"]),
        ("answer", answer),
        ("check", exercise.parts["check"][0]),
    ]:
        exec(compile(code, f"<{exercise.label} {part}>", "exec"), space)
    try:
        space[exercise.check_name](space[name])  # type: ignore[operator]
    except Exception as error:
        return error
    return None


def verify(exercise: Exercise) -> None:
    """Raise ExerciseError unless the stub fails, the solution passes, and every wrong answer is caught."""
    check_complete(exercise)
    stub = attempt(exercise, exercise.parts["stub"][0])
    if not isinstance(stub, AssertionError | NotImplementedError):
        raise ExerciseError(
            f"exercise {exercise.label}: the stub gave {stub!r}, expected NotImplementedError"
        ) from stub
    solution = attempt(exercise, exercise.parts["solution"][0])
    if solution is not None:
        raise ExerciseError(f"exercise {exercise.label}: its solution does not pass: {solution!r}") from solution
    for number, code in enumerate(exercise.parts["wrong"], start=1):
        wrong = attempt(exercise, code)
        if not isinstance(wrong, AssertionError):
            raise ExerciseError(
                f"exercise {exercise.label}: wrong answer {number} gave {wrong!r}, expected the check's AssertionError"
            ) from wrong
