"""Requests, harmful and harmless: the refusal splits, AdvBench, and the red-teaming questions by topic.

Knows their files. The texts ask for harm: they are read to be refused, and are not for printing (see the page on
responsible use).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steerlib.data.reading import DataError, Record, read_json, read_list, read_table
from steerlib.data.sources import Loaded, locate

Part = Literal["train", "val", "test"]
RedSet = Literal["harmfulqa", "catqa_english", "dangerousqa", "adversarialqa"]


@dataclass(frozen=True)
class Instruction:
    """A request.

    Attributes:
        text: as put.
        harmful: whether it asks for harm.
        family: its topic, or the file it comes from where that names none.
        target: how an answer that helps would begin, "" where the set does not say.
    """

    text: str
    harmful: bool
    family: str
    target: str = ""


def load_instructions(data: str | Path | None = None, *, harmful: bool, part: Part = "test") -> Loaded[Instruction]:
    """A split of harmful or of harmless instructions.

    Raises:
        DataError: the file is absent or malformed.
    """
    kind = "harmful" if harmful else "harmless"
    files = locate("refusal", [f"refusal/{kind}_{part}.json"], data=data)
    rows = []
    for row in read_list(files[0]):
        category = row.get("category")
        if category is not None and not isinstance(category, str):
            raise row.error("category", f"got {category!r}, expected text or null")
        rows.append(Instruction(row.text("instruction"), harmful, category or f"{kind}_{part}"))
    return Loaded(tuple(rows), files)


def load_advbench(data: str | Path | None = None) -> Loaded[Instruction]:
    """AdvBench: harmful requests, each with how compliance would begin.

    Raises:
        DataError: the file is absent or malformed.
    """
    files = locate("refusal", ["refusal/advbench.csv"], data=data)
    rows = [
        Instruction(row.text("goal"), True, "advbench", row.text("target"))
        for row in read_table(files[0], ("goal", "target"))
    ]
    return Loaded(tuple(rows), files)


def load_red(data: str | Path | None = None, *, name: RedSet = "harmfulqa") -> Loaded[Instruction]:
    """One of the red-teaming sets; those with topics keep them as families.

    Raises:
        DataError: the file is absent or malformed.
    """
    files = locate("red_instruct", [f"red_instruct/{name}.json"], data=data)
    rows = _questions(files[0], read_json(files[0]), name)
    if not rows:
        raise DataError(f"{files[0]}: holds no question. Fix: fetch or copy the file again.")
    return Loaded(tuple(rows), files)


def _questions(file: Path, value: object, family: str, depth: int = 0) -> list[Instruction]:
    """Questions of a list, or of topics, subtopics and lists; the family is the topic."""
    if isinstance(value, list):
        return [
            Instruction(Record(file, f"{family}, item {i}", {"question": text}).text("question"), True, family)
            for i, text in enumerate(value, start=1)
        ]
    if not isinstance(value, dict) or depth > 1:
        raise DataError(
            f"{file}, in {family!r}: got {type(value).__name__}, expected a list of questions, or topics with "
            "subtopics of such lists."
        )
    found = []
    for topic, inner in value.items():
        found += _questions(file, inner, topic.strip() if depth == 0 else family, depth + 1)
    return found
