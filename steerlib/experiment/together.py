"""What one build computes again of all its files of records, and how that is handed to workers.

Knows what a law costs by its records. Knows nothing about whose turn it is (`slices`), what agreement is
(`verification`), or files and processes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from steerlib.experiment.cell_records import CellRecord
from steerlib.experiment.cells import Cell, canonical
from steerlib.experiment.slices import LawName, law_of, slices_of_files
from steerlib.experiment.verification import PROMPTS, Drawn, drawn_from

#: Seconds, by the records, beyond which a law is not drawn in every build, but in every second, third or fourth.
DEAR = 10.0
#: The longest rest of a law, in builds.
LONGEST = 4
#: Seconds, by the records, that fill a bundle: so much work is worth the loading of a plant, and few wait at the end.
FULL = 20.0


def costs_of(records: Iterable[CellRecord]) -> dict[LawName, tuple[float, float]]:
    """For each law seconds of a cell, and seconds of a fit; medians.

    Neighbouring cells share a fit, and it is the first one's record that says what it took: fits that took less than a
    tenth of the longest were found, not made.

    Args:
        records: of one file.
    """
    cells, fits = defaultdict(list), defaultdict(list)
    for record in records:
        cells[law_of(record.cell)].append(record.seconds)
        fits[law_of(record.cell)].append(record.fit_seconds)
    return {
        law: (median(cells[law]), median(one for one in found if one >= max(found) / 10)) for law, found in fits.items()
    }


def rests_of(files: Sequence[Sequence[CellRecord]]) -> dict[LawName, int]:
    """In every how many builds a law is drawn, by what it takes in the file where it takes least; 1 is left out."""
    least: dict[LawName, float] = {}
    for records in files:
        for law, took in costs_of(records).items():
            least[law] = min(least.get(law, math.inf), sum(took))
    rests = {law: min(LONGEST, math.ceil(seconds / DEAR)) for law, seconds in least.items()}
    return {law: rest for law, rest in rests.items() if rest > 1}


def draw_together(
    files: Sequence[Sequence[CellRecord]], races: Sequence[bool], *, seed: int, prompts: int = PROMPTS
) -> list[list[Drawn]]:
    """The part of each of some files that one build computes again; see `slices.slices_of_files`.

    Args:
        files: records of each.
        races: for each file, whether they are those of a race.
        seed: which part.
        prompts: see `verification.draw`.
    """
    by_cell = [{record.cell: record for record in records} for records in files]
    parts = slices_of_files([list(found) for found in by_cell], races, seed=seed, rests=rests_of(files))
    return [[drawn_from(found[cell], prompts) for cell in part] for found, part in zip(by_cell, parts, strict=True)]


@dataclass
class _Piece:
    """Cells that share what their laws or scorers are fitted on."""

    cells: list[Cell] = field(default_factory=list)
    fits: set[str] = field(default_factory=set)
    seconds: float = 0.0


def bundles(files: Sequence[Sequence[CellRecord]], parts: Sequence[Sequence[Drawn]]) -> list[list[Cell]]:
    """The cells of all parts, each once, in bundles for one worker each; what takes longest by the records comes first.

    Together are cells that share a fit or the states that laws are fitted on, and small pieces of one plant, which is
    then loaded once.

    Args:
        files: records of each; see `draw_together`.
        parts: what is drawn from each.
    """
    pieces: dict[tuple[str, ...], _Piece] = defaultdict(_Piece)
    for records, part in zip(files, parts, strict=True):
        costs = costs_of(records)
        for one in part:
            piece, fit = pieces[_shared(one.cell)], _fit(one.cell)
            if one.cell in piece.cells:
                continue
            piece.cells.append(one.cell)
            piece.seconds += one.record.seconds + (0.0 if fit in piece.fits else costs[law_of(one.cell)][1])
            piece.fits.add(fit)
    found: list[_Piece] = []
    plant = ""
    for (name, *_), piece in sorted(pieces.items()):
        if name == plant and found[-1].seconds + piece.seconds <= FULL:
            found[-1].cells += piece.cells
            found[-1].seconds += piece.seconds
        else:
            found.append(_Piece(list(piece.cells), seconds=piece.seconds))
        plant = name
    return [bundle.cells for bundle in sorted(found, key=lambda bundle: -bundle.seconds)]


def _shared(cell: Cell) -> tuple[str, ...]:
    """What is costly to measure and serves more than one cell; the plant comes first."""
    if cell.law is None:
        return cell.plant, canonical({"task": cell.task, "options": cell.task_options}), _scorer(cell)
    task, options = cell.fitted_for or ("", {})
    texts = cell.law.fit.model_copy(update={"task": task, "task_options": options, "labels": "true"})
    place = {"point": cell.law.point, "scope": cell.law.scope, "layers": cell.law.layers or cell.law.layer}
    return cell.plant, canonical(texts), canonical(place)


def _fit(cell: Cell) -> str:
    """What is fitted for a cell: one fit serves every strength, and whatever is scored."""
    return _scorer(cell) if cell.law is None else canonical(cell.law.model_copy(update={"strength": 1.0}))


def _scorer(cell: Cell) -> str:
    """The scorer by which a cell decodes, of the decoder or of one inside it; "" without one."""
    decoder = cell.decoder
    while decoder is not None and decoder.scorer is None:
        decoder = decoder.inner
    return "" if decoder is None or decoder.scorer is None else canonical(decoder.scorer)
