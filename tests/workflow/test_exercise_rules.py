from __future__ import annotations

from pathlib import Path

import pytest

from steerlib.workflow.exercises import Exercise, ExerciseError, attempt, exercises, verify

PARTS = {
    "setup": "import math",
    "stub": "def area(r):\n    raise NotImplementedError",
    "check": "def check_11_1(area):\n    assert math.isclose(area(2.0), 4 * math.pi)",
    "solution": "def area(r):\n    return math.pi * r**2",
    "wrong": "def area(r):\n    return 2 * math.pi * r + 0.1",
}
TAGS = {"solution": ["hide-cell"], "wrong": ["remove-cell"]}


def exercise(**changes: str) -> Exercise:
    return Exercise("11_x", "11.1", {part: (code,) for part, code in {**PARTS, **changes}.items()})


def source(folder: Path, cells: list[tuple[list[str], str]]) -> Path:
    path = folder / "11_x.py"
    text = "# %% [markdown]\n# # Title\n\n"
    for tags, code in cells:
        text += f"# %% tags={tags!r}\n{code}\n\n".replace("'", '"')
    path.write_text(text)
    return path


def tagged(identifier: str = "11.1") -> list[tuple[list[str], str]]:
    return [([f"exercise-{part}", f"ex:{identifier}", *TAGS.get(part, [])], code) for part, code in PARTS.items()]


def test_a_good_exercise_is_found_and_passes(tmp_path: Path) -> None:
    (found,) = exercises(source(tmp_path, tagged()))
    assert found.label == "11_x:11.1"
    verify(found)


def test_one_setup_may_serve_two(tmp_path: Path) -> None:
    cells = [(["exercise-setup", "ex:11.1", "ex:11.2"], "import math"), (["exercise-stub", "ex:11.2"], PARTS["stub"])]
    assert [(e.id, e.parts["setup"]) for e in exercises(source(tmp_path, cells))] == [
        ("11.1", ("import math",)),
        ("11.2", ("import math",)),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stub": PARTS["solution"]}, "the stub gave None"),
        ({"stub": "def area(r):\n    return 1 / 0"}, "the stub gave ZeroDivisionError"),
        ({"solution": PARTS["wrong"]}, "its solution does not pass"),
        ({"wrong": PARTS["solution"]}, "wrong answer 1 gave None"),
        ({"wrong": "def area(r):\n    return area_of(r)"}, "wrong answer 1 gave NameError"),
        ({"wrong": "def aera(r):\n    return 0"}, "its wrong does not define area"),
        ({"check": "def check(area):\n    assert False"}, "expected check_11_1"),
        ({"stub": "area = None"}, r"got functions \[\], expected exactly one"),
        ({"check": "def check_11_1(area):\n    pass"}, "the stub gave None"),
    ],
)
def test_an_exercise_that_does_not_discriminate_is_refused(changes: dict[str, str], message: str) -> None:
    with pytest.raises(ExerciseError, match=message):
        verify(exercise(**changes))


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_needed(tmp_path: Path, part: str) -> None:
    cells = [cell for cell in tagged() if f"exercise-{part}" not in cell[0]]
    (found,) = exercises(source(tmp_path, cells))
    with pytest.raises(ExerciseError, match=f"lacks: exercise-{part}"):
        verify(found)


def test_namespaces_are_fresh() -> None:
    leaky = exercise(
        setup="import math\nseen = []", solution="def area(r):\n    seen.append(r)\n    return math.pi * r**2"
    )
    assert attempt(leaky, leaky.parts["solution"][0]) is None
    lost = exercise(setup="pass")
    with pytest.raises(ExerciseError, match="NameError"):
        verify(lost)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["exercise-stub"], "one ex:<id>"),
        (["ex:11.1"], "expected one of"),
        (["exercise-sutb", "ex:11.1"], "expected one of"),
        (["exercise-stub", "ex:11.1", "ex:11.2"], "expected one of"),
        (["exercise-stub", "ex:one"], "expected chapter.number"),
        (["exercise-wrong", "ex:11.1"], "also needs the tag remove-cell"),
        (["exercise-solution", "ex:11.1"], "also needs the tag hide-cell or hide-input"),
    ],
)
def test_tags_are_strict(tmp_path: Path, tags: list[str], message: str) -> None:
    with pytest.raises(ExerciseError, match=message):
        exercises(source(tmp_path, [(tags, "x = 1")]))
