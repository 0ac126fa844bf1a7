"""Trajectories: the same batches from memory and disk, shards written whole or not at all, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlib.control.rollouts import Batch, Shards, Trajectories
from steerlib.errors import ContrastError

LENGTHS = [3, 1, 4, 2, 4]
REWARDS = [0.5, -1.0, 2.0, 0.0, 7.0]
#: State t of trajectory i is (10 i + t, -(10 i + t)); padding is NaN, so that reading it shows.
STATES = torch.full((5, 4, 2), torch.nan)
for row, length in enumerate(LENGTHS):
    STATES[row, :length, 0] = 10.0 * row + torch.arange(length)
    STATES[row, :length, 1] = -STATES[row, :length, 0]


def flat(rows: range | list[int]) -> Tensor:
    return torch.cat([STATES[row, : LENGTHS[row]] for row in rows])


def written(folder: Path, dtype: torch.dtype = torch.float32, size: int = 2) -> Shards:
    shards = Shards.begin(folder, count=5, size=size, about={"seed": 0, "plant": "p"})
    for number in shards.missing:
        rows = shards.rows(number)
        keep = slice(rows.start, rows.stop)
        shards.write(number, Batch(flat(rows).to(dtype), torch.tensor(LENGTHS[keep]), torch.tensor(REWARDS[keep])))
    return shards


def test_batches_come_in_the_order_asked_for_wherever_states_are(tmp_path: Path) -> None:
    mapped = np.lib.format.open_memmap(tmp_path / "states.npy", mode="w+", dtype=np.float32, shape=(5, 4, 2))
    mapped[:] = STATES.numpy()
    written(tmp_path / "shards")
    for kept in (
        Trajectories(STATES, LENGTHS, REWARDS),
        Trajectories(torch.from_numpy(mapped), torch.tensor(LENGTHS), np.array(REWARDS)),
        Trajectories.open(tmp_path / "shards"),
    ):
        assert (len(kept), kept.width, kept.constant) == (5, 2, False)
        for index in ([4, 0, 3], [1], [2, 2, 1], [0, 1, 2, 3, 4]):
            batch = kept.take(torch.tensor(index))
            assert torch.equal(batch.states, flat(index))
            assert batch.lengths.tolist() == [LENGTHS[i] for i in index]
            assert batch.rewards.tolist() == [REWARDS[i] for i in index]


def test_half_precision_stays_half_precision(tmp_path: Path) -> None:
    written(tmp_path, torch.bfloat16)
    batch = Trajectories.open(tmp_path).take(torch.tensor([4]))
    assert batch.states.dtype == torch.bfloat16 and torch.equal(batch.states, flat([4]).bfloat16())


def test_other_rewards_on_the_same_states(tmp_path: Path) -> None:
    written(tmp_path)
    kept = Trajectories.open(tmp_path)
    other = kept.with_rewards([1.0] * 5)
    assert other.constant and other.digest != kept.digest
    assert torch.equal(other.take(torch.tensor([2])).states, flat([2]))
    assert kept.digest == Trajectories(STATES, LENGTHS, REWARDS).digest
    assert kept.digest != Trajectories(STATES, [3, 1, 4, 2, 3], REWARDS).digest
    assert kept.digest != Trajectories(STATES + 1, LENGTHS, REWARDS).digest, "another site"
    with pytest.raises(ContrastError, match="rewards: got nan for trajectory 1, one of 2"):
        kept.with_rewards([0, np.nan, 0, np.inf, 0])


def test_a_folder_goes_on_with_the_shard_that_is_missing(tmp_path: Path) -> None:
    shards = written(tmp_path)
    assert [list(shards.rows(number)) for number in range(len(shards))] == [[0, 1], [2, 3], [4]]
    shards.path(1).unlink()
    with pytest.raises(ContrastError, match=r"holds 2 of 3 shards; shard-00001.safetensors is missing. Fix"):
        Trajectories.open(tmp_path)
    before = shards.path(0).stat().st_mtime_ns
    assert written(tmp_path).missing == []
    assert shards.path(0).stat().st_mtime_ns == before
    assert len(Trajectories.open(tmp_path)) == 5
    with pytest.raises(ContrastError, match=r"holds other trajectories \(count, seed differ\)"):
        Shards.begin(tmp_path, count=6, size=2, about={"seed": 1, "plant": "p"})


def test_states_stay_on_disk(tmp_path: Path) -> None:
    """64 MB of states cost this process less than a tenth of that."""
    if sys.platform != "linux":
        pytest.skip("memory of a process is read from /proc, which only Linux has")
    shards = Shards.begin(tmp_path, count=64, size=64, about={})
    shards.write(0, Batch(torch.ones(64 * 256, 1024), torch.full((64,), 256), torch.arange(64.0)))

    def owned() -> int:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    before = owned()
    kept = Trajectories.open(tmp_path)
    batch = kept.take(torch.tensor([5, 60]))
    assert batch.states.sum() == 2 * 256 * 1024
    assert owned() - before < 6.4e6


@pytest.mark.parametrize(
    ("states", "lengths", "rewards", "message"),
    [
        (STATES[:0], [], [], "trajectories: got none"),
        (STATES, LENGTHS, REWARDS[:4], r"rewards of shape \(4,\); expected one length and one reward for each"),
        (STATES[:4], LENGTHS, REWARDS, "got states of 4"),
        (STATES, LENGTHS, [[1.0]] * 5, r"rewards of shape \(5, 1\)"),
        (STATES, LENGTHS, [0, 1, float("nan"), 3, 4], "got nan for trajectory 2, one of 1"),
        (STATES, [3, 0, 4, 2, 4], REWARDS, "lengths: got 0 to 4, expected 1 to 4"),
        (STATES, [3, 1, 5, 2, 4], REWARDS, "lengths: got 1 to 5, expected 1 to 4"),
        (STATES[0], LENGTHS, REWARDS, r"states: got shape \(4, 2\)"),
        (STATES.nan_to_num().long(), LENGTHS, REWARDS, "of torch.int64, expected floating-point"),
        ([flat([0, 1])], LENGTHS, REWARDS, "shards: got 4 states for lengths that sum to 14"),
        ([flat([0]), flat(range(5))[3:]], [4, 2, 4, 2, 2], REWARDS, "begins in one and ends in the next"),
    ],
)
def test_what_does_not_belong_together_is_refused(states, lengths, rewards, message: str) -> None:
    with pytest.raises(ContrastError, match=message):
        Trajectories(states, lengths, rewards)


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ContrastError, match="trajectories.json is missing"):
        Trajectories.open(tmp_path)
    shards = written(tmp_path)
    whole = shards.path(2).read_bytes()
    shards.path(2).write_bytes(whole[:-8])
    with pytest.raises(ContrastError, match=r"shard-00002.safetensors: damaged .* Fix: delete it"):
        Trajectories.open(tmp_path)
    shards.write(2, Batch(torch.ones(4, 3), torch.tensor([4]), torch.tensor([1.0])))
    with pytest.raises(ContrastError, match=r"shards of widths \[2, 3\]"):
        Trajectories.open(tmp_path)
    with pytest.raises(ContrastError, match="shard 0: got 1 trajectories, expected 2"):
        shards.write(0, Batch(torch.ones(4, 2), torch.tensor([4]), torch.tensor([1.0])))
    with pytest.raises(ContrastError, match="shard 2: got states that are no finite numbers"):
        shards.write(2, Batch(torch.full((1, 2), torch.inf), torch.tensor([1]), torch.tensor([1.0])))
    (tmp_path / "trajectories.json").write_text('{"format": "other/2"}')
    with pytest.raises(ContrastError, match="got format 'other/2', expected 'steerlib-trajectories/1'"):
        Trajectories.open(tmp_path)
    (tmp_path / "trajectories.json").write_text("{")
    with pytest.raises(ContrastError, match="trajectories.json: damaged"):
        Trajectories.open(tmp_path)
