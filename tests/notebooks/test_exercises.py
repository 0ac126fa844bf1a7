"""Every exercise of every chapter: complete, its stub fails, its solution passes, its wrong answers are caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlib.workflow.exercises import Exercise, exercises, verify
from steerlib.workflow.project import toc_notebooks

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
EXERCISES = [exercise for source in SOURCES for exercise in exercises(source)]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebooks run from the root of the project."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.label)
def test_exercise(exercise: Exercise) -> None:
    verify(exercise)


def test_every_chapter_has_exercises() -> None:
    chapters = set(toc_notebooks(ROOT))
    assert chapters == {exercise.notebook for exercise in EXERCISES} & chapters
