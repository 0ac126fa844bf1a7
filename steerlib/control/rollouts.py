"""Trajectories of states, each with the one reward it ended in: in memory, or in shards on disk.

A folder of trajectories holds `trajectories.json`, which says how they came about, and one safetensors file for each
shard with `states` (all states of the shard end to end, without padding), `lengths` and `rewards`. A shard is written
whole or not at all, so that a run that was killed goes on with the first one that is missing. States are mapped, not
read: 161,000 answers of 128 states of width 4096 take 169 GB on disk, and in memory what a batch takes.

Knows tensors and files; knows nothing about plants, tokens or what a reward means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from steerlib.errors import ContrastError
from steerlib.files import write_atomic

FORMAT = "steerlib-trajectories/1"
MANIFEST = "trajectories.json"
_SAMPLE = 8  # trajectories whose states a digest reads


@dataclass(frozen=True)
class Batch:
    """Some trajectories.

    Attributes:
        states: of all of them, end to end.
        lengths: states of each.
        rewards: what each ended in.
    """

    states: Float[Tensor, "tokens width"]
    lengths: Int[Tensor, " batch"]
    rewards: Float[Tensor, " batch"]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(t.to(device, non_blocking=True) for t in (self.states, self.lengths, self.rewards)))


class Trajectories:
    """States that answers passed through, and the reward of each answer.

    An answer of a single token has one state, and its value is drawn to its reward by every target: such answers are
    fine, but a set that has no others says nothing about targets.

    Args:
        states: right-padded rows of floating-point states, also memory-mapped; or shards (see `open`).
        lengths: states of each row, at least 1.
        rewards: one finite number for each row.

    Raises:
        ContrastError: if there is no trajectory, the numbers of rows differ, a length is out of range, or a reward is
            no finite number.
    """

    def __init__(
        self,
        states: Float[Tensor, "n time width"] | Sequence[Float[Tensor, "tokens width"]],
        lengths: Int[Tensor, " n"] | Sequence[int],
        rewards: Float[Tensor, " n"] | np.ndarray | Sequence[float],
    ) -> None:
        """Check that the parts belong together."""
        self._states = states
        self.lengths = torch.as_tensor(lengths, dtype=torch.long).cpu()
        self.rewards = torch.as_tensor(rewards, dtype=torch.float64).detach().cpu()
        self._check()
        if not isinstance(states, Tensor):
            ends = self.lengths.cumsum(0)
            starts = torch.tensor([0, *torch.tensor([len(shard) for shard in states]).cumsum(0).tolist()])
            # A trajectory lies in the last shard that begins at or before its first state.
            first = ends - self.lengths
            self._shard = torch.searchsorted(starts[:-1], first, right=True) - 1
            self._first = first - starts[self._shard]
            if bool((ends > starts[self._shard + 1]).any()):
                raise ContrastError("shards: got a trajectory that begins in one and ends in the next.")

    def _check(self) -> None:
        n, states = len(self.lengths), self._states
        if n == 0:
            raise ContrastError("trajectories: got none, expected at least one.")
        if isinstance(states, Tensor):
            if states.ndim != 3 or not states.is_floating_point():
                raise ContrastError(
                    f"states: got shape {tuple(states.shape)} of {states.dtype}, expected floating-point rows of "
                    "(trajectories, time, width)."
                )
            time, count = states.shape[1], len(states)
        else:
            time, count = max(map(len, states)), n
        if self.rewards.shape != (n,) or self.lengths.shape != (n,) or count != n:
            raise ContrastError(
                f"trajectories: got states of {count}, lengths of shape {tuple(self.lengths.shape)} and rewards of "
                f"shape {tuple(self.rewards.shape)}; expected one length and one reward for each."
            )
        wrong = (~self.rewards.isfinite()).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise ContrastError(
                f"rewards: got {float(self.rewards[row])} for trajectory {row}, one of {len(wrong)} that are no finite "
                f"numbers. Fix: leave these {len(wrong)} out, or mend the reward."
            )
        if int(self.lengths.min()) < 1 or int(self.lengths.max()) > time:
            raise ContrastError(
                f"lengths: got {int(self.lengths.min())} to {int(self.lengths.max())}, expected 1 to {time} states."
            )
        if not isinstance(states, Tensor) and sum(map(len, states)) != int(self.lengths.sum()):
            raise ContrastError(
                f"shards: got {sum(map(len, states))} states for lengths that sum to {int(self.lengths.sum())}."
            )

    @classmethod
    def open(cls, folder: Path | str) -> Trajectories:
        """The trajectories of a folder; states stay on disk until they are taken.

        Raises:
            ContrastError: if the folder holds none, is not complete, or a file is damaged.
        """
        return Shards.open(Path(folder)).read()

    def __len__(self) -> int:
        """Number of trajectories."""
        return len(self.lengths)

    @property
    def width(self) -> int:
        """Size of a state."""
        return self._states.shape[-1] if isinstance(self._states, Tensor) else self._states[0].shape[-1]

    @property
    def constant(self) -> bool:
        """Whether all rewards are equal, so that the value is the same everywhere and its gradient zero."""
        return bool((self.rewards == self.rewards[0]).all())

    @property
    def digest(self) -> str:
        """Hash of lengths, rewards and the first states: tells sets and sites apart without reading all states."""
        first = self.take(torch.arange(min(_SAMPLE, len(self)))).states
        whole = sha256(f"{first.dtype} {tuple(first.shape)}".encode())
        for part in (self.lengths, self.rewards, first.cpu().contiguous().view(torch.uint8)):
            whole.update(part.numpy().tobytes())
        return whole.hexdigest()

    def with_rewards(self, rewards: Float[Tensor, " n"] | np.ndarray | Sequence[float]) -> Trajectories:
        """The same states, rewarded otherwise; see `Trajectories` for what is refused."""
        return Trajectories(self._states, self.lengths, rewards)

    def take(self, index: Int[Tensor, " batch"]) -> Batch:
        """Some trajectories, in the order asked for; their states are read here."""
        lengths = self.lengths[index]
        if isinstance(self._states, Tensor):
            # Row and column of every state that is there: one copy, and none of the padding.
            starts = lengths.cumsum(0) - lengths
            rows = index.repeat_interleave(lengths)
            columns = torch.arange(len(rows)) - starts.repeat_interleave(lengths)
            states = self._states[rows.to(self._states.device), columns.to(self._states.device)]
        else:
            shards, firsts = self._shard[index].tolist(), self._first[index].tolist()
            where = zip(shards, firsts, lengths.tolist(), strict=True)
            states = torch.cat([self._states[shard][first : first + length] for shard, first, length in where])
        return Batch(states, lengths, self.rewards[index])


class Shards:
    """A folder of trajectories that is being written, or is whole.

    Args:
        folder: where.
        count: trajectories that it will hold.
        size: trajectories of a shard; the last may hold fewer.
        about: how they come about, as JSON.
    """

    def __init__(self, folder: Path, *, count: int, size: int, about: Mapping[str, Any]) -> None:
        self.folder, self.count, self.size, self.about = folder, count, size, dict(about)

    @classmethod
    def begin(cls, folder: Path | str, *, count: int, size: int, about: Mapping[str, Any]) -> Shards:
        """Start a folder, or go on with one that was begun with the same description.

        Raises:
            ContrastError: if it holds something else; what differs is named.
        """
        held = Path(folder) / MANIFEST
        wanted = {"format": FORMAT, "count": count, "size": size, "about": json.loads(json.dumps(dict(about)))}
        if held.is_file():
            found = _manifest(held)
            one, other = _flat(wanted), _flat(found)
            differs = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
            if differs:
                raise ContrastError(
                    f"{folder}: holds other trajectories ({', '.join(differs)} differ). Fix: another folder."
                )
        else:
            write_atomic(held, json.dumps(wanted, indent=1))
        return cls(Path(folder), count=count, size=size, about=wanted["about"])

    @classmethod
    def open(cls, folder: Path) -> Shards:
        """A folder that was begun; see `Trajectories.open`."""
        if not (folder / MANIFEST).is_file():
            raise ContrastError(f"{folder}: holds no trajectories: {MANIFEST} is missing.")
        found = _manifest(folder / MANIFEST)
        return cls(folder, count=found["count"], size=found["size"], about=found["about"])

    def __len__(self) -> int:
        """How many shards there are to be."""
        return -(-self.count // self.size)

    def rows(self, number: int) -> range:
        """Which trajectories a shard holds."""
        return range(number * self.size, min(self.count, (number + 1) * self.size))

    def path(self, number: int) -> Path:
        """File of a shard."""
        return self.folder / f"shard-{number:05d}.safetensors"

    @property
    def missing(self) -> list[int]:
        """Shards that are not written yet."""
        return [number for number in range(len(self)) if not self.path(number).is_file()]

    def write(self, number: int, batch: Batch) -> None:
        """Write a shard, whole or not at all.

        Raises:
            ContrastError: if it has not the trajectories it should, or a reward or state is no finite number.
            DiskFullError: no space left; what was written stays.
        """
        rows = self.rows(number)
        if len(batch.lengths) != len(rows):
            raise ContrastError(f"shard {number}: got {len(batch.lengths)} trajectories, expected {len(rows)}.")
        Trajectories([batch.states], batch.lengths, batch.rewards)  # refuses what does not belong together
        if not bool(batch.states.isfinite().all()):
            raise ContrastError(f"shard {number}: got states that are no finite numbers. Fix: a higher precision.")
        held = {
            "states": batch.states.cpu().contiguous(),
            "lengths": batch.lengths.cpu().contiguous(),
            "rewards": batch.rewards.cpu().double().contiguous(),
        }
        write_atomic(self.path(number), save(held, metadata={"format": FORMAT}))

    def read(self) -> Trajectories:
        """All trajectories; see `Trajectories.open`."""
        if missing := self.missing:
            raise ContrastError(
                f"{self.folder}: holds {len(self) - len(missing)} of {len(self)} shards; {self.path(missing[0]).name} "
                "is missing. Fix: run what wrote it again: it goes on where it stopped."
            )
        parts = [self._part(number) for number in range(len(self))]
        states, lengths, rewards = zip(*parts, strict=True)
        widths = sorted({shard.shape[1] for shard in states})
        if len(widths) > 1:
            raise ContrastError(f"{self.folder}: got shards of widths {widths}, expected one. Fix: delete the folder.")
        return Trajectories(states, torch.cat(lengths), torch.cat(rewards))

    def _part(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        path = self.path(number)
        try:
            with safe_open(path, framework="pt") as file:
                # These are views of the mapped file: its pages come in when they are used, and may leave again.
                states, lengths, rewards = (file.get_tensor(name) for name in ("states", "lengths", "rewards"))
        except (SafetensorError, OSError) as error:
            raise ContrastError(f"{path}: damaged ({error}). Fix: delete it and run what wrote it again.") from error
        return states, lengths.clone(), rewards.clone()


def _flat(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest without its level of nesting, so that single entries can be compared."""
    return {"count": manifest["count"], "size": manifest["size"], **manifest["about"]}


def _manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kind = found["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContrastError(f"{path}: damaged ({error!r}). Fix: delete the folder.") from error
    if kind != FORMAT:
        raise ContrastError(f"{path}: got format {kind!r}, expected {FORMAT!r}.")
    return found
