"""Split rows by what they are about, so that nothing a law was fitted on is scored.

Knows entities (what two rows may share: a question, a conversation, a request), families of rows, and seeds. Knows
nothing about files or tasks. Rows that share an entity, directly or through others, never part; texts that differ in
case, marks, or spaces alone count as the same entity.

Which side a group falls on depends on its entities and the seed, not on the order of the rows.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from steerlib.data.reading import DataError
from steerlib.files import write_atomic

Side = Literal["fit", "validation", "test", "held out", "left out"]

#: Most to fit on, enough to choose on, enough to tell methods apart on.
SHARES: Mapping[Side, float] = {"fit": 0.6, "validation": 0.15, "test": 0.25}

_MARKS = re.compile(r"[^\w]+")


def normalised(text: str) -> str:
    """What is left of a text when case, marks, spaces and variants of letters do not count.

    A text of marks alone is compared as it stands, since nothing would be left of it.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _MARKS.sub(" ", folded).strip() or folded.strip()


@dataclass(frozen=True)
class Partition:
    """Which side each row is on.

    Attributes:
        sides: of each row.
        entities: of each row, sorted.
        seed: of the split.
        shares: part of the rows on each side, as asked for.
        held_out: families that are on no other side.
    """

    sides: tuple[Side, ...]
    entities: tuple[tuple[str, ...], ...]
    seed: int
    shares: Mapping[Side, float]
    held_out: tuple[str, ...] = ()

    def rows(self, side: Side) -> list[int]:
        """Numbers of the rows on a side, in their order."""
        return [i for i, found in enumerate(self.sides) if found == side]

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the entities on each side: equal if and only if the side holds the same ones."""
        found: dict[str, set[str]] = {}
        for side, entities in zip(self.sides, self.entities, strict=True):
            found.setdefault(side, set()).update(entities)
        return {
            side: hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()
            for side, names in sorted(found.items())
        }

    def written(self) -> dict[str, object]:
        """The split as data: seed, shares, families held out, rows and digest of each side; no text of the set."""
        return {
            "seed": self.seed,
            "shares": dict(self.shares),
            "held_out": list(self.held_out),
            "rows": dict(sorted(Counter(self.sides).items())),
            "sha256": self.digests,
        }

    def write(self, file: Path, *, about: Mapping[str, object] | None = None) -> None:
        """Write the split down as JSON, so that a later one can be compared with it.

        Args:
            file: where to.
            about: what else to write down, such as the hashes of the files that were split; never a part of the split.
        """
        write_atomic(file, json.dumps({**(about or {}), **self.written()}, indent=1) + "\n")

    def check(self, file: Path, *, about: Mapping[str, object] | None = None) -> None:
        """Compare with a split that was written down.

        Args:
            file: what was written.
            about: what else must have been written down.

        Raises:
            DataError: if another split was written; says what differs.
        """
        ours = {**(about or {}), **self.written()}
        try:
            theirs = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: not a written split ({error}). Fix: write it again.") from error
        wrong = [name for name in ours if not isinstance(theirs, dict) or theirs.get(name) != ours[name]]
        if wrong:
            raise DataError(
                f"{file}: another split was written down: {', '.join(wrong)} differ. Fix: use the same files and "
                "seed, or write the split again and say why."
            )


def partition(
    entities: Sequence[Sequence[str]],
    *,
    seed: int,
    shares: Mapping[Side, float] = SHARES,
    families: Sequence[str] | None = None,
    held_out: float | Sequence[str] = 0.0,
) -> Partition:
    """Split rows so that no entity is on two sides.

    Args:
        entities: of each row, at least one; compared after `normalised`.
        seed: another seed, another split.
        shares: part of the rows on each side. Groups are not cut, so a side may be off by the size of one group.
        families: family of each row, such as its topic.
        held_out: families for shift: their names, or what part of all families (chosen by the seed). A group with
            one row in such a family is held out whole.

    Raises:
        DataError: no rows, a row without an entity, shares that are not a partition of one, an unknown family, or
            families to hold out where none are named.
    """
    keys = [tuple(sorted({normalised(name) for name in names if name.strip()})) for names in entities]
    _check(keys, shares)
    chosen = _families(families, held_out, len(keys), seed)
    root = _groups(keys)
    members: dict[int, list[int]] = {}
    for i, group in enumerate(root):
        members.setdefault(group, []).append(i)
    sides: list[Side] = ["held out"] * len(keys)
    free = [rows for rows in members.values() if not any(families and families[i] in chosen for i in rows)]
    # The order is random, and the same for the same entities in whatever order the rows come.
    free.sort(key=lambda rows: _draw(seed, min(key for i in rows for key in keys[i])))
    total, done = sum(map(len, free)), 0
    names: list[Side] = [side for side, share in shares.items() if share > 0]
    edges = [sum(shares[name] for name in names[: k + 1]) * total for k in range(len(names))]
    for rows in free:
        # A group goes where its middle falls.
        middle = done + len(rows) / 2
        here = (k for k, edge in enumerate(edges) if middle < edge + 1e-9)
        side = names[next(here, len(names) - 1)]
        for i in rows:
            sides[i] = side
        done += len(rows)
    return Partition(tuple(sides), tuple(keys), seed, dict(shares), tuple(sorted(chosen)))


def fixed(entities: Sequence[Sequence[str]], sides: Sequence[Side], *, seed: int) -> Partition:
    """A split that others have published, made disjoint: what is tested stays, what shares an entity with it goes.

    A row to fit on that shares an entity with one to validate, test or hold out is "left out"; so is a row to validate
    on that shares one with a row to test or hold out.

    Args:
        entities: of each row; see `partition`.
        sides: of each row, as published.
        seed: of whatever part of the split was drawn; written down.

    Raises:
        DataError: no rows, a row without an entity, or lists of different length.
    """
    keys = [tuple(sorted({normalised(name) for name in names if name.strip()})) for names in entities]
    _check(keys, {"test": 1.0})
    if len(keys) != len(sides):
        raise DataError(f"fixed: got {len(keys)} rows and {len(sides)} sides, expected as many.")
    rank: dict[Side, int] = {"left out": 0, "fit": 1, "validation": 2, "test": 3, "held out": 3}
    highest: dict[str, int] = {}
    for names, side in zip(keys, sides, strict=True):
        for name in names:
            highest[name] = max(highest.get(name, 0), rank[side])
    kept: list[Side] = [
        side if all(highest[name] == rank[side] for name in names) else "left out"
        for names, side in zip(keys, sides, strict=True)
    ]
    shares: dict[Side, float] = {side: kept.count(side) / len(kept) for side in sorted(set(kept))}
    return Partition(tuple(kept), tuple(keys), seed, shares)


def _check(keys: Sequence[tuple[str, ...]], shares: Mapping[Side, float]) -> None:
    if not keys:
        raise DataError("partition: got no rows.")
    bare = [i for i, names in enumerate(keys) if not names]
    if bare:
        raise DataError(f"partition: row {bare[0]} has no entity, so nothing says what it may not be parted from.")
    if "held out" in shares or min(shares.values(), default=-1) < 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise DataError(f"partition: got shares {dict(shares)}, expected parts of one, each 0 or more.")


def _families(families: Sequence[str] | None, held_out: float | Sequence[str], rows: int, seed: int) -> set[str]:
    if not held_out:
        return set()
    if families is None or len(families) != rows:
        raise DataError(f"partition: to hold families out, name the family of each of the {rows} rows.")
    known = sorted(set(families), key=lambda name: _draw(seed, name))
    if not isinstance(held_out, float | int):
        if wrong := sorted(set(held_out) - set(known)):
            raise DataError(f"partition: got family {wrong[0]!r}; expected one of {', '.join(sorted(known))}.")
        return set(held_out)
    if not 0 <= held_out < 1:
        raise DataError(f"partition: got held_out={held_out}, expected a part of the families, from 0 to below 1.")
    return set(known[: max(1, round(held_out * len(known)))])


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest()


def _groups(keys: Sequence[tuple[str, ...]]) -> list[int]:
    """For each row the number of its group: rows are together if a chain of shared entities joins them."""
    parent = list(range(len(keys)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    owner: dict[str, int] = {}
    for i, names in enumerate(keys):
        for name in names:
            parent[root(i)] = root(owner.setdefault(name, i))
    return [root(i) for i in range(len(keys))]
