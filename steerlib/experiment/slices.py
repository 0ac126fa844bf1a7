"""Which of some records are computed again: one cell of each law, another one each time, and every one has its turn.

Knows the order in which cells have their turn. Knows nothing about records, or what agreement is (`verification`).

A seed is a place in a rotation, so that seeds that follow one another leave nothing out: of a grid every cell is drawn
within as many of them as the law with most cells has cells. The order is that of hashes: neighbours in it have nothing
to do with each other, and it is the same on every machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from steerlib.experiment.cells import Cell, canonical, labelled

#: Least share of the cells of a grid that is computed again.
SHARE = 0.02


def group_of(cell: Cell) -> str:
    """Which law a cell is about; its controls, and the same law fitted for another task, count as laws of their own.

    So does every decoder, alone and with a law.
    """
    by = f", {' in '.join(cell.decoder.all_names)}" if cell.decoder is not None else ""
    if cell.law is None or cell.fitted_for is None:
        return ("told" if cell.told else "unsteered") + by
    task, options = cell.fitted_for
    return labelled(cell.law, f"{cell.law.name} for {' '.join([task, *map(str, options.values())])}") + by


def law_of(cell: Cell) -> tuple[str, ...]:
    """What a slice holds one cell of: a law or one of its controls, whatever it is fitted for, and every decoder."""
    by = cell.decoder.all_names if cell.decoder is not None else ()
    if cell.law is None:
        return ("told" if cell.told else "unsteered", *by)
    return cell.law.name, cell.law.fit.labels, *by


def slice_of(cells: Sequence[Cell], *, share: float = SHARE, seed: int) -> list[Cell]:
    """One cell of each law, whatever plant or task it is on, and more up to the share; in the order given.

    Of a law with n cells, any n seeds that follow one another draw each once.

    Args:
        cells: the whole.
        share: in (0, 1]; rounded up to whole cells.
        seed: a place in the rotation.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share: got {share}, expected more than 0 and at most 1")
    order = _shuffled(cells)
    chosen = {own[seed % len(own)] for own in _by_law(cells, order)}
    rest = [n for n in order if n not in chosen]
    short = max(0, math.ceil(share * len(cells)) - len(chosen))
    chosen |= {rest[(seed * short + k) % len(rest)] for k in range(short)}
    return [cells[n] for n in sorted(chosen)]


def slice_of_race(cells: Sequence[Cell], *, seed: int) -> list[Cell]:
    """One cell of each law, as many of them as can be on one plant, task and seed of the fit; in the order given.

    Cells of one place share what is costly, the states that their laws are fitted on. Every place has its turn, and
    comes back with the next cell of each law: with p places, and at most n cells of a law at one of them, any p * n
    seeds that follow one another draw every cell.

    Args:
        cells: the whole.
        seed: a place in the rotation.
    """
    order = _shuffled(cells)
    homes = _homes([cells[n] for n in order])
    turn, number = divmod(seed, max(1, len(homes)))
    chosen = []
    for own in _by_law(cells, order):
        near = [n for n in own if _is_at(cells[n], homes[number])] or own
        chosen.append(near[turn % len(near)])
    return [cells[n] for n in sorted(chosen)]


#: A plant, a task with its options, and the seed of the fit; None of a task on which no law runs.
Place = tuple[str, str, str, int | None]


def _homes(cells: Sequence[Cell]) -> list[Place]:
    """Every place of a law; and where there are none on some task, that task."""
    steered = list(dict.fromkeys(_place(cell) for cell in cells if cell.law is not None))
    known = {place[:3] for place in steered}
    bare = dict.fromkeys(_place(cell) for cell in cells if cell.law is None)
    return steered + [place for place in bare if place[:3] not in known]


def _is_at(cell: Cell, home: Place) -> bool:
    """Cells without a law belong to every seed's place."""
    place = _place(cell)
    return place == home if cell.law is not None else place[:3] == home[:3]


def _place(cell: Cell) -> Place:
    options = canonical(cell.task_options)
    return cell.plant, cell.task, options, None if cell.law is None else cell.law.fit.seed


def _by_law(cells: Sequence[Cell], order: Sequence[int]) -> list[list[int]]:
    """Numbers of the cells of each law, in the order of their turns."""
    found: dict[tuple[str, ...], list[int]] = {}
    for n in order:
        found.setdefault(law_of(cells[n]), []).append(n)
    return list(found.values())


def _shuffled(cells: Sequence[Cell]) -> list[int]:
    """Numbers of the cells in the order of their hashes."""
    marks = [hashlib.sha256(canonical(cell).encode()).hexdigest() for cell in cells]
    return sorted(range(len(cells)), key=marks.__getitem__)


def next_ones(cells: Sequence[Cell], count: int, *, seed: int) -> list[int]:
    """Numbers of so many cells, the next ones in the rotation over all of them.

    Args:
        cells: the whole.
        count: how many; all if there are no more.
        seed: a place in the rotation.
    """
    order = _shuffled(cells)
    return [order[(seed * count + k) % len(order)] for k in range(min(count, len(order)))]
