"""Which of some records are computed again: one cell of each law, another one each time, and every one has its turn.

Knows the order in which cells have their turn. Knows nothing about records, or what agreement is (`verification`).

A seed is a place in a rotation, so that seeds that follow one another leave nothing out: of a grid every cell is drawn
within as many of them as the law with most cells has cells. The order is that of hashes: neighbours in it have nothing
to do with each other, and it is the same on every machine.

One law may be in several files of records. A build that looks at all of them draws it once, and the files take turns
(`slices_of_files`): what a law does under the same code is then seen in every build, and the cost of a build grows with
the number of laws, not with that of files.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

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


#: A law or one of its controls, with the decoder it acts on.
LawName = tuple[str, ...]


def law_of(cell: Cell) -> LawName:
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
    chosen = {own[seed % len(own)] for own in _by_law(cells, order).values()}
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
    laws = _by_law(cells, _shuffled(cells))
    return [cells[n] for n in _near(cells, laws, seed, dict.fromkeys(laws, 1))]


def slices_of_files(
    files: Sequence[Sequence[Cell]], races: Sequence[bool], *, seed: int, rests: Mapping[LawName, int] | None = None
) -> list[list[Cell]]:
    """One cell of each law over all of some files, which take turns where they share a law; for each file its part.

    Of every file one cell of the plant alone is drawn besides, so that no file is left out of a build. Where the turn
    comes back to a race after k builds, k cells are drawn from one place, which share what is costly there. Any
    `rounds` seeds that follow one another draw every cell of every file.

    Args:
        files: cells of each, in an order that does not change from build to build.
        races: for each file, whether its part is drawn from one place, see `slice_of_race`, or from anywhere, see
            `slice_of`.
        seed: a place in the rotation.
        rests: in every how many builds a law is drawn that takes long; 1 for all that are not named.
    """
    found = []
    for cells, race, (every, due) in zip(files, races, _turns(files, seed, rests or {}), strict=True):
        laws = _by_law(cells, _shuffled(cells), own=_own)
        now = {law: own for law, own in laws.items() if law in due}
        if race:
            chosen = _near(cells, now, seed, every)
        else:
            chosen = sorted(own[seed // every[law] % len(own)] for law, own in now.items())
        found.append([cells[n] for n in chosen or next_ones(cells, 1, seed=seed)])
    return found


def rounds(
    files: Sequence[Sequence[Cell]], races: Sequence[bool], *, rests: Mapping[LawName, int] | None = None
) -> int:
    """How many builds that follow one another `slices_of_files` needs at most until it has drawn every cell.

    Args:
        files: see `slices_of_files`.
        races: likewise.
        rests: likewise.
    """
    most = 0
    for cells, race, (every, _) in zip(files, races, _turns(files, 0, rests or {}), strict=True):
        homes = _homes([cells[n] for n in _shuffled(cells)]) if race else []
        wheel = _wheel(len(homes), every)
        for law, own in _by_law(cells, range(len(cells)), own=_own).items():
            visits = len(own)
            if race:
                visits = math.ceil(max(sum(_is_at(cells[n], home) for n in own) for home in homes) / every[law])
            most = max(most, every[law] * visits * (wheel if race else 1))
    return most


#: What stands for a law where there is none, nor a decoder.
ALONE = ("the plant alone",)


def _own(cell: Cell) -> LawName:
    """What a build draws one cell of: a law, or of each file the plant alone, told what is wanted or not."""
    return ALONE if cell.law is None and cell.decoder is None else law_of(cell)


def _turns(
    files: Sequence[Sequence[Cell]], seed: int, rests: Mapping[LawName, int]
) -> list[tuple[dict[LawName, int], set[LawName]]]:
    """For each file, in every how many builds each of its laws is drawn from it, and those that are due in this one.

    Laws that the same files share begin one after the other, so that no build has them all. Those that rest begin
    together, since they share what makes them dear, but one after the other where they are of other files.
    """
    having: dict[LawName, list[int]] = {}
    for number, cells in enumerate(files):
        for law in set(map(_own, cells)) - {ALONE}:
            having.setdefault(law, []).append(number)
    found: list[tuple[dict[LawName, int], set[LawName]]] = [({ALONE: 1}, {ALONE}) for _ in files]
    begun: Counter[tuple[int, ...]] = Counter()
    resting: dict[tuple[int, ...], int] = {}
    for law, numbers in sorted(having.items()):
        rest = rests.get(law, 1)
        later = begun[tuple(numbers)] if rest == 1 else resting.setdefault(tuple(numbers), len(resting))
        begun[tuple(numbers)] += rest == 1
        turn, waiting = divmod((seed + later) % (rest * len(numbers)), rest)
        for number in numbers:
            found[number][0][law] = rest * len(numbers)
        if not waiting:
            found[numbers[turn]][1].add(law)
    return found


def _near(
    cells: Sequence[Cell], laws: Mapping[LawName, list[int]], seed: int, every: Mapping[LawName, int]
) -> list[int]:
    """The next cells of each law, from one place as far as can be, as numbers; see `slice_of_race`.

    Places and turns of a law meet in all ways, since the number of steps that go round the places has no divisor in
    common with the number of builds between two turns.

    Args:
        cells: the whole race.
        laws: numbers of their cells, in the order of their turns.
        seed: a place in the rotation.
        every: after how many builds the turn of a law comes back, which is how many of its cells are drawn.
    """
    homes = _homes([cells[n] for n in _shuffled(cells)])
    if not homes:
        return []
    wheel = _wheel(len(homes), every)
    home = homes[seed % wheel % len(homes)]
    chosen = []
    for law, own in laws.items():
        near = [n for n in own if _is_at(cells[n], home)] or own
        first = seed // (wheel * every[law]) * every[law]
        chosen += [near[(first + k) % len(near)] for k in range(min(every[law], len(near)))]
    return sorted(chosen)


def _wheel(places: int, every: Mapping[LawName, int]) -> int:
    """The number of steps after which places come again: the least that shares no divisor with the turns of any law."""
    return next(n for n in itertools.count(max(1, places)) if all(math.gcd(n, k) == 1 for k in every.values()))


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


def _by_law(
    cells: Sequence[Cell], order: Sequence[int], *, own: Callable[[Cell], LawName] = law_of
) -> dict[LawName, list[int]]:
    """Numbers of the cells of each law, in the order of their turns."""
    found: dict[LawName, list[int]] = {}
    for n in order:
        found.setdefault(own(cells[n]), []).append(n)
    return found


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
