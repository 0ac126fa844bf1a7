"""SST-2 (Socher et al. 2013): sentences of film reviews, happy or not.

Knows the table and its labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steerlib.data.reading import read_table
from steerlib.data.sources import Loaded, locate

LABELS = {"1": True, "0": False}


@dataclass(frozen=True)
class Opinion:
    """A sentence with its feeling.

    Attributes:
        sentence: the text, its words and marks apart by spaces.
        happy: whether it is a good opinion.
    """

    sentence: str
    happy: bool


def sst2_files(data: str | Path | None = None) -> tuple[Path, ...]:
    """The table that `load_sst2` reads; AbsentDataError if it is not there."""
    return locate("sst2", ["sst2/train.tsv"], data=data)


def load_sst2(data: str | Path | None = None) -> Loaded[Opinion]:
    """The sentences of the training part.

    Raises:
        DataError: the table is absent or malformed, or a label is neither 0 nor 1.
    """
    files = sst2_files(data)
    rows = []
    for row in read_table(files[0], ("sentence", "label"), delimiter="\t", quoted=False):
        label = row.text("label")
        if label not in LABELS:
            raise row.error("label", f"got {label!r}, expected 0 or 1")
        rows.append(Opinion(row.text("sentence"), LABELS[label]))
    return Loaded(tuple(rows), files)
