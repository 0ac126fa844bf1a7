"""MMLU (Hendrycks et al. 2021): multiple-choice questions by subject.

Knows the folder of tables without a header, one for each subject and part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steerlib.data.reading import DataError, read_table
from steerlib.data.sources import Loaded, locate

LETTERS = ("A", "B", "C", "D")
COLUMNS = ("question", *LETTERS, "answer")


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question with four options.

    Attributes:
        question: as put.
        options: in the order A to D.
        answer: which of them is right, from 0.
        subject: such as "abstract algebra".
    """

    question: str
    options: tuple[str, str, str, str]
    answer: int
    subject: str


def load_mmlu(
    data: str | Path | None = None, *, part: Literal["dev", "val", "test"] = "test"
) -> Loaded[ChoiceQuestion]:
    """A part of MMLU: "dev" has five questions a subject, for prompts; "val" is to choose on; "test" to report.

    Raises:
        DataError: the folder is absent or holds no table, or a table is malformed.
    """
    (folder,) = locate("mmlu", [f"mmlu/{part}"], data=data)
    files = tuple(sorted(folder.glob(f"*_{part}.csv")))
    if not files:
        raise DataError(f"{folder}: no table named SUBJECT_{part}.csv. Fix: run `steerlib fetch mmlu`.")
    rows = []
    for file in files:
        subject = file.stem.removesuffix(f"_{part}").replace("_", " ")
        for row in read_table(file, COLUMNS, header=False):
            letter = row.text("answer")
            if letter not in LETTERS:
                raise row.error("answer", f"got {letter!r}, expected one of {', '.join(LETTERS)}")
            a, b, c, d = (row.text(name) for name in LETTERS)
            rows.append(ChoiceQuestion(row.text("question"), (a, b, c, d), LETTERS.index(letter), subject))
    return Loaded(tuple(rows), files)
