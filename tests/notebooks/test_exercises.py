"""Every exercise of every chapter: complete, its stub fails, its solution passes, its wrong answers are caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerlib.workflow.exercises import Exercise, attempt, check_complete, exercises, verify
from steerlib.workflow.project import toc_notebooks

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
EXERCISES = [exercise for source in SOURCES for exercise in exercises(source)]
#: Exercises that grow plants. The book runs their solutions; that their wrong answers are caught is for the slow tests.
GROWING = {"02_almanac:02.3"}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notebooks run from the root of the project."""
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    "exercise",
    [pytest.param(e, id=e.label, marks=[pytest.mark.slow] * (e.label in GROWING)) for e in EXERCISES],
)
def test_exercise(exercise: Exercise) -> None:
    verify(exercise)


@pytest.mark.parametrize("exercise", [e for e in EXERCISES if e.label in GROWING], ids=lambda e: e.label)
def test_exercise_that_grows_plants_is_complete_and_its_stub_fails(exercise: Exercise) -> None:
    check_complete(exercise)
    assert isinstance(attempt(exercise, exercise.parts["stub"][0]), NotImplementedError)


def test_every_chapter_has_exercises() -> None:
    assert {exercise.label for exercise in EXERCISES} >= GROWING
    chapters = set(toc_notebooks(ROOT))
    assert chapters == {exercise.notebook for exercise in EXERCISES} & chapters
