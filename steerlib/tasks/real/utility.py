"""Utility on MMLU: multiple-choice questions of many subjects, by the probability of the letters.

Nothing is fitted here: it tells what steering something else costs. For other benchmarks see
`steerlib.tasks.real.harness`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from steerlib.data.choices import LETTERS, ChoiceQuestion, load_mmlu
from steerlib.data.splits import Side, fixed
from steerlib.errors import MetricError
from steerlib.plant import Plant
from steerlib.tasks.base import Labels, Scores, Split
from steerlib.tasks.real.base import Item, NotTellable, RealTask
from steerlib.tasks.real.settings import Settings

SHOTS = 5


class Knowledge(RealTask):
    """Knowledge, by choice among four options.

    Args:
        plant: any causal language model.
        data: folder of the data; see `steerlib.data.sources.locate`.
        shots: answered questions of the same subject before each question, from the part made for it; 0 to 5.
        subjects: which subjects; all by default.
    """

    name = "mmlu"
    judge_roles = ()
    labels = Labels(
        behaviour="knowledgeable",
        wanted="Right",
        intact="Option",
        combined="R*O",
        positive="",
        negative="",
        goal="",
    )

    def __init__(
        self,
        plant: Plant,
        *,
        data: str | Path | None = None,
        shots: int = SHOTS,
        subjects: list[str] | None = None,
    ) -> None:
        """Read the questions.

        Raises:
            MetricError: another number of shots, or a subject without questions.
            DataError: a table is absent or malformed.
        """
        super().__init__(plant, settings=Settings(1, temperature=0.0))
        if not 0 <= shots <= SHOTS:
            raise MetricError(f"mmlu: got shots={shots}, expected 0 to {SHOTS}, as many as each subject has.")
        self.shots = shots
        parts = [load_mmlu(data, part=part) for part in ("dev", "val", "test")]
        self.paths = tuple(file for part in parts for file in part.files)
        sides: tuple[Side, ...] = ("fit", "validation", "test")
        both: list[tuple[ChoiceQuestion, Side]] = [
            (row, side) for part, side in zip(parts, sides, strict=True) for row in part.rows
        ]
        known = {row.subject for row, _ in both}
        if wrong := sorted(set(subjects or ()) - known):
            raise MetricError(f"mmlu: got subject {wrong[0]!r}; expected some of {', '.join(sorted(known))}.")
        both = [(row, side) for row, side in both if not subjects or row.subject in subjects]
        self.rows: tuple[ChoiceQuestion, ...] = tuple(row for row, _ in both)
        # Questions may be worded alike and differ in their options.
        entities = [["\n".join((row.question, *sorted(row.options)))] for row, _ in both]
        self.partition = fixed(entities, [side for _, side in both], seed=0)

    def files(self) -> tuple[Path, ...]:
        """The tables of all subjects."""
        return self.paths

    def build(self, side: Side, *, told: bool) -> list[Item]:
        """Questions with four letters to choose from."""
        if told:
            raise NotTellable("mmlu: there is nothing to tell a plant that would make it know more.")
        examples: dict[str, list[str]] = {}
        for i in self.partition.rows("fit"):
            row = self.rows[i]
            examples.setdefault(row.subject, []).append(f"{_question(row)} {LETTERS[row.answer]}\n\n")
        options = tuple(f" {letter}" for letter in LETTERS)
        out = []
        for i in self.partition.rows(side):
            row = self.rows[i]
            head = f"Multiple-choice questions about {row.subject}, with answers.\n\n"
            # A question is no example for itself.
            shown = [text for text in examples.get(row.subject, []) if not text.startswith(_question(row))]
            text = head + "".join(shown[: self.shots]) + _question(row)
            out.append(Item(text, i, options, tuple(float(k == row.answer) for k in range(len(LETTERS)))))
        return out

    def contrast_texts(
        self, *, n: int, seed: int, at: str = "choice", split: Split = "fit"
    ) -> tuple[list[str], list[str]]:
        """Refused: knowledge has no two classes to fit on.

        Raises:
            ValueError: always.
        """
        del n, seed, at, split
        raise ValueError("utility is measured, never fitted on: take the contrast of another task")

    def chosen(self, items: Sequence[Item]) -> Float[np.ndarray, " items"]:
        """1 where the right letter is the likeliest of the four (accuracy, as papers report it), else 0."""
        logs, _ = self.logs(items)
        table = logs.reshape(-1, len(LETTERS))
        right = torch.tensor([item.wanted.index(1.0) for item in items])
        return (table.argmax(1) == right).double().numpy()

    def ready(self) -> None:
        """Always: a letter needs no judge."""

    def verdicts(self, items: Sequence[Item], texts: Sequence[str]) -> Scores:
        """Whether the right letter was written, and whether any was."""
        letters = [text.strip()[:1].upper() for text in texts]
        right = [float(letter == LETTERS[item.wanted.index(1.0)]) for item, letter in zip(items, letters, strict=True)]
        return Scores(np.array(right), np.array([float(letter in LETTERS) for letter in letters]))


def _question(row: ChoiceQuestion) -> str:
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, row.options, strict=True))
    return f"{row.question}\n{listed}\nAnswer:"
