"""The sensor: record the states of a plant at named sites, batched, padding-safe, streamed to disk if asked.

Knows how to read states; knows nothing about classes or laws. It never uses `output_hidden_states`, whose last
entry is the state after the final norm in every family, and which can miss a later push.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlib.actuator import Actuator, Scope, Site
from steerlib.errors import PlantError
from steerlib.files import write_atomic
from steerlib.plant import Plant, Tokens

Position = Literal["last", "mean", "all"] | int


@dataclass(frozen=True)
class Activations:
    """Recorded states.

    Attributes:
        states: for each site, one row for each recorded token, in the order of the texts.
        rows: how many recorded states each text has (1 for a single position or the mean).
        sites: where they were recorded.
        plant: name of the plant.
        weight_hash: hash of its weights.
        data_hash: hash of the texts and the position.
    """

    states: dict[Site, Float[Tensor, "tokens width"]]
    rows: tuple[int, ...]
    sites: tuple[Site, ...]
    plant: str
    weight_hash: str
    data_hash: str

    def at(self, site: Site | int) -> Float[Tensor, "tokens width"]:
        """States at one site; an integer means the output of that block."""
        wanted = site if isinstance(site, Site) else Site(site)
        if wanted not in self.states:
            raise PlantError(f"{wanted} was not recorded. Recorded: {', '.join(map(str, self.sites))}.")
        return self.states[wanted]


class _AllSeen(Exception):  # noqa: N818 - not an error: it ends a pass of which nothing more is wanted
    """Every tap has seen its state."""


class _Tap:
    """A transform that keeps a copy of what passes and changes nothing."""

    pure = True  # see `steerlib.actuator`: it needs no copy of its own

    def __init__(self, taps: list[_Tap], *, stops: bool) -> None:
        self.seen: Tensor | None = None
        self.taps, self.stops = taps, stops

    def __call__(self, state: Tensor) -> Tensor:
        self.seen = state.clone()  # the model may go on to change the tensor itself
        if self.stops and all(tap.seen is not None for tap in self.taps):
            raise _AllSeen
        return state


def _taps(plant: Plant, count: int) -> list[_Tap]:
    """Taps, the last of which to be reached ends the pass: the blocks above and the head are work for nothing.

    Which is the last is seen, not known beforehand: inside a block the order differs between families. A model that
    is spread over devices runs to its end, since its own hooks move weights behind each block.
    """
    taps: list[_Tap] = []
    taps += [_Tap(taps, stops=not hasattr(plant.model, "hf_device_map")) for _ in range(count)]
    return taps


def _pass(plant: Plant, batch: Tokens, taps: list[_Tap]) -> None:
    """One pass of the plant, until every tap has seen its state."""
    for tap in taps:
        tap.seen = None
    with suppress(_AllSeen):
        plant.forward(batch)


def record(
    plant: Plant,
    texts: Sequence[str],
    *,
    sites: Sequence[Site | int],
    position: Position = "last",
    batch_size: int = 64,
    out: Path | str | None = None,
    progress: bool = False,
) -> Activations:
    """Record states, steered if a law is attached outside.

    Texts are sorted by length, so that little is padding, and the states come back in the order of the texts.
    States are kept in float32 on the CPU.

    Args:
        plant: the plant.
        texts: non-empty strings.
        sites: sites, or layer numbers for the output of those blocks.
        position: "last" token, the "mean" over a text's tokens, "all" tokens, or one position over real tokens
            (negative counts from the last).
        batch_size: texts at a time.
        out: a folder to stream to, one `.npy` for each site, so that no more than a batch is in memory; a recording
            that was interrupted goes on where it stopped. None keeps the states in memory.
        progress: show a bar.

    Raises:
        PlantError: if a text is shorter than the position asked for, or `out` holds another recording.
        SiteError: if a site does not exist.
    """
    resolved = tuple((s if isinstance(s, Site) else Site(s)).resolve(plant.depth) for s in sites)
    if not resolved:
        raise PlantError("sites: got none, expected at least one.")
    rows = plant._ids(texts)
    counts = [_count(len(row), position, i) for i, row in enumerate(rows)]
    digest = _data_hash(texts, position)
    if out is not None and plant.wiring.active():
        raise PlantError(
            "out: a law is attached, and a folder cannot tell steered states from others. "
            "Fix: record in memory (out=None), or outside the with block."
        )
    store = _Store.open(out, resolved, sum(counts), plant, digest, batch_size)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    taps = _taps(plant, len(resolved))
    steps = range(store.done, len(order), batch_size)
    with Actuator(plant.wiring, [(s, tap, Scope("all")) for s, tap in zip(resolved, taps, strict=True)]):
        for start in tqdm(steps, desc="recording", disable=not progress, leave=False):
            chosen = order[start : start + batch_size]
            batch = plant._pad([rows[i] for i in chosen])
            _pass(plant, batch, taps)
            where = np.concatenate([np.arange(starts[i], starts[i] + counts[i]) for i in chosen])
            for site, tap in zip(resolved, taps, strict=True):
                assert tap.seen is not None
                store.write(site, where, _select(tap.seen, batch, position))
            store.commit(start + len(chosen))
    return Activations(store.read(), tuple(counts), resolved, plant.name, plant.weight_hash, digest)


def _count(length: int, position: Position, index: int) -> int:
    if position == "all":
        return length
    if position in ("last", "mean"):
        return 1
    if isinstance(position, bool) or not isinstance(position, int):
        raise PlantError(f"position: got {position!r}, expected 'last', 'mean', 'all' or an integer.")
    if not -length <= position < length:
        raise PlantError(f"text {index} has {length} tokens, so position {position} does not exist in it.")
    return 1


def _select(states: Float[Tensor, "batch time width"], batch: Tokens, position: Position) -> Float[Tensor, "n width"]:
    """The recorded tokens of a left-padded batch, row by row."""
    if position == "all":
        return states[batch.attention_mask.bool()]
    if position == "last":
        return states[:, -1]
    if position == "mean":
        real = batch.attention_mask.bool()[..., None]
        return torch.where(real, states, 0).float().sum(1) / batch.lengths[:, None]
    columns = states.shape[1]
    pads = columns - batch.lengths
    index = pads + position if position >= 0 else torch.full_like(pads, columns + position)
    return states[torch.arange(len(states), device=states.device), index]


def _data_hash(texts: Sequence[str], position: Position) -> str:
    return hashlib.sha256(json.dumps([list(texts), position], ensure_ascii=False).encode()).hexdigest()


class _Store:
    """Where states go: memory, or one memory-mapped `.npy` for each site with a JSON journal beside them."""

    def __init__(
        self, arrays: dict[Site, np.ndarray], journal: Path | None, meta: dict[str, object], done: int
    ) -> None:
        self.arrays, self.journal, self.meta, self.done = arrays, journal, meta, done

    @classmethod
    def open(
        cls,
        out: Path | str | None,
        sites: tuple[Site, ...],
        total: int,
        plant: Plant,
        digest: str,
        batch_size: int,
    ) -> _Store:
        shapes = {site: (total, plant.wiring.width(site)) for site in sites}
        if out is None:
            return cls({site: np.empty(shape, dtype=np.float32) for site, shape in shapes.items()}, None, {}, 0)
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        meta: dict[str, object] = {
            "format": "steerlib-activations/1",
            "plant": plant.name,
            "weight_hash": plant.weight_hash,
            "data_hash": digest,
            "sites": [asdict(site) for site in sites],
            "shape": [total, plant.width],
            "batch_size": batch_size,
        }
        journal = folder / "recording.json"
        done = 0
        if journal.is_file():
            held = json.loads(journal.read_text(encoding="utf-8"))
            done = held.pop("done")
            if held != meta:
                differs = [key for key in meta if held.get(key) != meta[key]]
                raise PlantError(
                    f"{folder}: holds another recording ({', '.join(differs)} differ). Fix: another folder."
                )
        arrays: dict[Site, np.ndarray] = {}
        for site, shape in shapes.items():
            file = folder / f"{site.point}-{site.layer}.npy"
            if not done:
                arrays[site] = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
                continue
            try:
                arrays[site] = np.lib.format.open_memmap(file, mode="r+")
            except (OSError, ValueError) as error:
                raise PlantError(
                    f"{file}: missing or damaged, but its journal counts on it. Fix: delete {folder}."
                ) from error
            if arrays[site].shape != shape:
                raise PlantError(f"{file}: got shape {arrays[site].shape}, expected {shape}. Fix: delete {folder}.")
        return cls(arrays, journal, meta, done)

    def write(self, site: Site, where: np.ndarray, states: Tensor) -> None:
        self.arrays[site][where] = states.float().cpu().numpy()

    def commit(self, done: int) -> None:
        """Note how far the recording is, after the states are on disk."""
        if self.journal is None:
            return
        for array in self.arrays.values():
            array.flush()  # type: ignore[attr-defined]
        write_atomic(self.journal, json.dumps({**self.meta, "done": done}))

    def read(self) -> dict[Site, Tensor]:
        """The states; those on disk copy-on-write, so that changing a tensor does not change the file."""
        if self.journal is None:
            return {site: torch.from_numpy(array) for site, array in self.arrays.items()}
        files = {site: Path(array.filename) for site, array in self.arrays.items()}  # type: ignore[attr-defined]
        return {site: torch.from_numpy(np.load(file, mmap_mode="c")) for site, file in files.items()}
