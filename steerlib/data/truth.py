"""TruthfulQA (Lin et al. 2022): questions, their true and false answers, and the multiple-choice form.

Knows the two files, the table of questions and the list of choices, and how they belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steerlib.data.reading import Record, read_list, read_table
from steerlib.data.sources import Loaded, locate
from steerlib.data.splits import normalised

COLUMNS = ("Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source")


@dataclass(frozen=True)
class TruthQuestion:
    """A question of TruthfulQA.

    Attributes:
        question: as asked.
        category: its topic.
        adversarial: whether it was chosen because a model answered it wrongly.
        best: the best answer.
        correct: true answers.
        incorrect: false answers.
        mc1: choices of which exactly one is true, with whether it is.
        mc2: choices of which one or more are true, with whether each is.
    """

    question: str
    category: str
    adversarial: bool
    best: str
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]
    mc1: tuple[tuple[str, bool], ...]
    mc2: tuple[tuple[str, bool], ...]


def load_truthfulqa(data: str | Path | None = None) -> Loaded[TruthQuestion]:
    """TruthfulQA, the table and the choices joined by question.

    Raises:
        DataError: a file is absent or malformed, or a question of the table has no choices.
    """
    table, choices = files = locate("truthfulqa", ["truthfulqa/TruthfulQA.csv", "truthfulqa/mc_task.json"], data=data)
    by_question = {normalised(row.text("question")): row for row in read_list(choices)}
    rows = []
    for row in read_table(table, COLUMNS):
        question = row.text("Question")
        found = by_question.get(normalised(question))
        if found is None:
            raise row.error("Question", f"{question[:40]!r} has no choices in {choices.name}")
        rows.append(
            TruthQuestion(
                question,
                row.text("Category"),
                row.text("Type") == "Adversarial",
                row.text("Best Answer"),
                _answers(row, "Correct Answers"),
                _answers(row, "Incorrect Answers"),
                _choices(found, "mc1_targets", single=True),
                _choices(found, "mc2_targets", single=False),
            )
        )
    return Loaded(tuple(rows), files)


def _answers(row: Record, field: str) -> tuple[str, ...]:
    """Answers of a list with semicolons between them, each once."""
    found = tuple(dict.fromkeys(part.strip() for part in row.text(field).split(";") if part.strip()))
    if not found:
        raise row.error(field, "holds no answer")
    return found


def _choices(row: Record, field: str, *, single: bool) -> tuple[tuple[str, bool], ...]:
    targets = row.inner(field)
    if not isinstance(targets.fields, Mapping) or any(label not in (0, 1) for label in targets.fields.values()):
        raise row.error(field, "expected answers, each with 1 (true) or 0")
    found = tuple((answer.strip(), label == 1) for answer, label in targets.fields.items())
    true = sum(label for _, label in found)
    if true < 1 or true == len(found) or (single and true != 1):
        raise row.error(field, f"got {true} true of {len(found)}, expected {'one' if single else 'some'}, and not all")
    return found
