"""Values from disk: what was killed goes on, what nobody rewarded is left out, memory does not grow with answers."""

from __future__ import annotations

import fcntl
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from steerlib import trajectories as sampling
from steerlib.actuator import Site
from steerlib.control.networks import Training
from steerlib.control.rollouts import Batch, Shards, Trajectories
from steerlib.control.value_training import ValueTraining
from steerlib.control.values import fit_value
from steerlib.decoding.base import DecodingError
from steerlib.decoding.making import trained_scorer
from steerlib.errors import ContrastError, LawError, PlantError
from steerlib.judges.base import BaseJudge, Opinion
from steerlib.laws.value import ReControl
from steerlib.plant import Plant
from steerlib.tasks.real import Preference
from steerlib.tasks.rewarding import rewarded_answers
from steerlib.tasks.streamed import UNREWARDED, fit_streamed, harvest, rewarded_only, rollouts_folder, streamed_scorer
from tests import families
from tests.data import sets

READ_OUT = Site(-1, "final_norm")
LAW = {"hidden": 8, "passes": 4, "batch": 4, "steps": 5, "alpha": 0.5}


class Lengths(BaseJudge):
    """Rewards an answer by its length; has no score for those of `gaps`, counted as they come."""

    def __init__(self, version: str = "1", *, gaps: Sequence[int] = (), scale: float = 0.1) -> None:
        self.name, self.version, self.gaps, self.scale, self.count = "lengths", version, gaps, scale, 0

    def opinions(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Opinion]:
        found = []
        for _, answer in zip(prompts, answers, strict=True):
            found.append(Opinion(None, "too long") if self.count in self.gaps else Opinion(self.scale * len(answer)))
            self.count += 1
        return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sets.everything(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def plant() -> Plant:
    return families.plant("llama")


def task(plant: Plant, folder: Path, judge: Lengths | None = None) -> Preference:
    return Preference(plant, data=folder, settings={"max_new_tokens": 6}, judge=judge or Lengths())


def buffers(law: ReControl) -> torch.Tensor:
    return torch.cat([tensor.flatten() for _, tensor in sorted(law.named_buffers())])


def test_as_in_memory_and_found_again(plant: Plant, folder: Path, tmp_path: Path) -> None:
    asked = task(plant, folder)
    disk = harvest(asked, READ_OUT, tmp_path, n=10, seed=3, shard=3)
    memory = rewarded_answers(asked, READ_OUT, n=10, seed=3)
    ours, theirs = disk.rewarded.trajectories, memory.trajectories
    assert torch.equal(ours.lengths, theirs.lengths) and torch.equal(ours.rewards, theirs.rewards)
    index = torch.arange(10)
    torch.testing.assert_close(ours.take(index).states, theirs.take(index).states, atol=2e-5, rtol=2e-5)
    law = fit_streamed(ReControl(**LAW), disk)
    torch.testing.assert_close(buffers(law), buffers(ReControl(**LAW).fit_rewarded(memory)), atol=1e-4, rtol=1e-3)
    assert law.history is not None and law.history.steps == 4 * 3
    with plant.under(law):  # its header says where, and on which plant, it was fitted
        assert plant.generate(["w3 w4"], max_new_tokens=2, seed=0).tokens
    with pytest.raises(LawError, match="fitted on plant 'random-llama-0'.*used on 'random-llama-1'"):
        families.plant("llama", seed=1).under(law)
    shuffled = disk.shuffled(seed=0)
    assert sorted(shuffled.rewarded.trajectories.rewards.tolist()) == sorted(ours.rewards.tolist())
    assert not torch.equal(buffers(fit_streamed(ReControl(**LAW), shuffled)), buffers(law))
    assert len(list(disk.folder.glob("value-*.safetensors"))) == 2


def test_everything_that_decides_answers_names_another_folder(plant: Plant, folder: Path, tmp_path: Path) -> None:
    options = {"n": 4, "seed": 0}
    made = [
        harvest(task(plant, folder), READ_OUT, tmp_path, **options),
        harvest(task(plant, folder), READ_OUT, tmp_path, **{**options, "seed": 1}),
        harvest(task(plant, folder), READ_OUT, tmp_path, **{**options, "n": 5}),
        harvest(task(plant, folder), Site(1), tmp_path, **options),
        harvest(task(plant, folder, Lengths("2")), READ_OUT, tmp_path, **options),
        harvest(task(families.plant("llama", seed=1), folder), READ_OUT, tmp_path, **options),
    ]
    assert len({one.folder for one in made}) == len(made) == len(list(tmp_path.iterdir()))
    judge = Lengths()
    again = harvest(task(plant, folder, judge), READ_OUT, tmp_path, **options)
    assert again.folder == made[0].folder and judge.count == 0, "nothing is asked again"
    assert again.rewarded.header == made[0].rewarded.header


def test_a_harvest_that_was_killed_goes_on(
    plant: Plant, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = harvest(task(plant, folder), READ_OUT, tmp_path / "whole", n=9, seed=0, shard=2, batch_size=2)
    generate, batches = sampling.generate_batch, []

    def interrupted(*args: Any) -> Any:
        batches.append(1)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return generate(*args)

    monkeypatch.setattr(sampling, "generate_batch", interrupted)
    options = {"n": 9, "seed": 0, "shard": 2, "batch_size": 2}
    with pytest.raises(KeyboardInterrupt):
        harvest(task(plant, folder), READ_OUT, tmp_path / "again", **options)
    assert not plant.wiring.active(), "nothing may stay attached"
    judge = Lengths()
    batches[:] = [1, 1, 1]
    again = harvest(task(plant, folder, judge), READ_OUT, tmp_path / "again", **options)
    assert len(batches) == 3 + 3 and judge.count == 5, "two of five shards must not be made again"
    assert again.rewarded.trajectories.digest == whole.rewarded.trajectories.digest
    assert again.rewarded.header == whole.rewarded.header


def test_a_second_process_waits_and_finds_what_the_first_made(plant: Plant, folder: Path, tmp_path: Path) -> None:
    options = {"n": 4, "seed": 0}
    first = harvest(task(plant, folder), READ_OUT, tmp_path, **options)
    judge, found = Lengths(), []
    work = threading.Thread(
        target=lambda: found.append(harvest(task(plant, folder, judge), READ_OUT, tmp_path, **options))
    )
    with (first.folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        work.start()
        work.join(0.5)
        assert work.is_alive() and not found
    work.join(60)
    assert found[0].rewarded.trajectories.digest == first.rewarded.trajectories.digest and judge.count == 0


def test_a_fit_that_was_killed_goes_on(
    plant: Plant, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {**LAW, "passes": 60}  # 60 passes of 3 updates; a checkpoint after 50, 100, 150, 180
    found = harvest(task(plant, folder), READ_OUT, tmp_path / "a", n=10, seed=0)
    whole = fit_streamed(ReControl(**made), found)
    other = harvest(task(plant, folder), READ_OUT, tmp_path / "b", n=10, seed=0)
    update, updates = ValueTraining._update, []

    def interrupted(self: ValueTraining, batches: list[Batch]) -> None:
        updates.append(1)
        if len(updates) == 120:
            raise KeyboardInterrupt
        update(self, batches)

    monkeypatch.setattr(ValueTraining, "_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_streamed(ReControl(**made), other)
    updates[:] = [1] * 120
    again = fit_streamed(ReControl(**made), other)
    assert len(updates) == 120 + 80, "the hundred updates before the checkpoint must not be made again"
    assert torch.equal(buffers(again), buffers(whole))
    assert torch.equal(buffers(fit_streamed(ReControl(**made), other)), buffers(whole)) and len(updates) == 200
    # The ascent is no part of the training: another step size finds the value that is there.
    assert fit_streamed(ReControl(**{**made, "alpha": 7.0, "steps": 1}), other).history is not None
    assert len(updates) == 200


def test_answers_without_a_reward_are_left_out_and_not_read(plant: Plant, folder: Path, tmp_path: Path) -> None:
    bare = harvest(task(plant, folder), READ_OUT, tmp_path / "all", n=10, seed=0, shard=4).rewarded.trajectories
    options = {"n": 10, "seed": 0, "shard": 4}
    judge = Lengths("gaps", gaps=(0, 5, 6, 9))
    found = harvest(task(plant, folder, judge), READ_OUT, tmp_path, **options).rewarded.trajectories
    kept = torch.tensor([1, 2, 3, 4, 7, 8])
    assert torch.equal(found.lengths, bare.lengths[kept]) and torch.equal(found.rewards, bare.rewards[kept])
    order = torch.tensor([5, 0, 3])
    assert torch.equal(found.take(order).states, bare.take(kept[order]).states)
    # A process that goes on knows of the gaps, too.
    again = harvest(task(plant, folder, Lengths("gaps")), READ_OUT, tmp_path, **options).rewarded.trajectories
    assert again.digest == found.digest and UNREWARDED not in again.rewards
    shards = Shards.begin(tmp_path / "none", count=2, size=2, about={})
    shards.write(0, Batch(torch.ones(3, 2), torch.tensor([1, 2]), torch.tensor([UNREWARDED] * 2, dtype=torch.float64)))
    with pytest.raises(ContrastError, match="preference: none of 2 answers has a reward. Fix: look at the judge"):
        rewarded_only(Trajectories.open(tmp_path / "none"), tmp_path / "none", named="preference")


def test_prefix_scorers_from_disk(plant: Plant, folder: Path, tmp_path: Path) -> None:
    asked, options = task(plant, folder), {"hidden": 8, "passes": 3, "batch": 4}
    disk = streamed_scorer(asked, "fudge", tmp_path, n=9, seed=1, options=options, shard=2)
    memory = trained_scorer(asked, "fudge", n=9, seed=1, options=options)
    states = torch.randn(5, plant.width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(disk.value(states), memory.value(states), atol=1e-4, rtol=1e-3)
    streamed_scorer(asked, "cd-q", tmp_path, n=9, seed=1, options=options, shard=2)
    (place,) = tmp_path.iterdir()
    assert len(list(place.glob("scorer-*.safetensors"))) == 2, "both learn from the same states"
    with pytest.raises(DecodingError, match="scorer 'fudg', which does not exist. Did you mean fudge"):
        streamed_scorer(asked, "fudg", tmp_path, n=9, seed=1, options={})
    with pytest.raises(DecodingError, match=r"does not take the options \{'depth': 2\}"):
        streamed_scorer(asked, "fudge", tmp_path, n=9, seed=1, options={"depth": 2})


def test_refusals(plant: Plant, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = harvest(task(plant, folder, Lengths(scale=0.0)), READ_OUT, tmp_path, n=4, seed=0)
    with pytest.raises(ContrastError, match="got 4 that all equal 0, expected some variety"):
        fit_streamed(ReControl(**LAW), flat)
    with plant.under(lambda state: state, layer=0), pytest.raises(PlantError, match="a law is attached"):
        harvest(task(plant, folder), READ_OUT, tmp_path, n=4, seed=7)
    monkeypatch.setenv("STEERLIB_ROLLOUTS", str(tmp_path / "here"))
    assert rollouts_folder() == tmp_path / "here"
    monkeypatch.delenv("STEERLIB_ROLLOUTS")
    monkeypatch.setenv("STEERLIB_CACHE", str(tmp_path / "cache"))
    assert rollouts_folder() == tmp_path / "cache" / "rollouts"


def test_an_ascent_that_diverges_is_reported_with_its_step_or_leaves_the_row_alone(
    plant: Plant, folder: Path, tmp_path: Path
) -> None:
    found = harvest(task(plant, folder), READ_OUT, tmp_path, n=10, seed=0)
    wild = fit_streamed(ReControl(**{**LAW, "alpha": 1e37}), found)
    states = found.rewarded.trajectories.take(torch.arange(4)).states
    with pytest.raises(LawError, match=r"the ascent diverges in \d+ of \d+ states, in row \d+ at step \d+ of 5"):
        wild.check(states)
    careful = fit_streamed(ReControl(**{**LAW, "alpha": 1e37, "fallback": True}), found)
    left = (careful(states) == states).all(1)
    failed = careful.ascent(states).failed > 0
    assert failed.any() and torch.equal(left | ~failed, torch.ones_like(failed)) and int(careful.fallbacks.sum()) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is read from /proc, which only Linux has")
def test_training_holds_batches_whatever_the_number_of_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches of 2 MB at a time; sixteen times the states on disk, 134 MB of them, are not taken into memory."""
    time, width, batch = 64, 512, 16
    take, peak = Trajectories.take, 0
    alive: list[weakref.ref[torch.Tensor]] = []

    def owned() -> int:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    def watched(self: Trajectories, index: torch.Tensor) -> Batch:
        nonlocal peak
        found = take(self, index)
        peak = max(peak, owned())
        alive.append(weakref.ref(found.states))
        assert sum(one() is not None for one in alive) <= 3, "one that is learned from, one that waits, and this one"
        assert found.states.numel() * 4 <= batch * time * width * 4, "no more than a batch at a time"
        return found

    def grown(count: int) -> int:
        nonlocal peak
        shards = Shards.begin(tmp_path / str(count), count=count, size=32, about={})
        draw = torch.Generator().manual_seed(0)
        for number in shards.missing:
            n = len(shards.rows(number))
            rewards = torch.randn(n, generator=draw, dtype=torch.float64)
            shards.write(number, Batch(torch.ones(n * time, width), torch.full((n,), time), rewards))
        how = Training(steps=40, batch=batch, rate=1e-3, floor=1.0, held_out=0.0)
        begin, peak = owned(), 0
        fit_value(tmp_path / str(count), target="td0", hidden=16, how=how, seed=0)
        return peak - begin

    monkeypatch.setattr(Trajectories, "take", watched)
    grown(64)  # first calls take what they keep
    few, many = grown(65), grown(16 * 64)
    # The allocator keeps what it was given back: a part of the states is what can be told from none of them.
    assert many - few < 0.25 * 16 * 64 * time * width * 4
