"""Values and prefix scorers of answers that no memory holds: harvested to disk shard by shard, and learned from there.

161,000 answers of 128 states of width 4096 take 169 GB. Here they go to a folder, which is gone on with where it
stopped; training reads batches of it, on the device of the plant, and goes on from its checkpoint. What comes out is
what `steerlib.tasks.rewarding` and `ReControl.fit_rewarded` would give, but for what other devices round otherwise.

Every harvest has a folder of its own, named by what decides it: weights, prompts, reward, settings and site. It holds
`states` (see `steerlib.control.rollouts`), which all fits on these answers share, and a checkpoint for each fit. One
process at a time is at work in it; others wait, and find what it made. Nothing is removed here: until the table is
made, the states are worth the disk they take.

Knows tasks, folders and how values are fitted. Knows nothing about cells, keys or tables.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steerlib.actuator import Site
from steerlib.control.networks import Training
from steerlib.control.rollouts import Shards, Trajectories
from steerlib.control.values import fit_value
from steerlib.data.sources import cache_folder
from steerlib.decoding.base import DecodingError
from steerlib.decoding.making import PrefixTraining
from steerlib.decoding.prefix import METHODS, prefix_states
from steerlib.decoding.reading import StateScorer
from steerlib.errors import ContrastError, unknown
from steerlib.harvest import Reward
from steerlib.laws.base import LawHeader
from steerlib.laws.rewarded import Rewarded
from steerlib.laws.value import ReControl
from steerlib.tasks.base import Task
from steerlib.tasks.rewarding import answering, reward_among
from steerlib.trajectories import READ_OUT, collect

#: How many answers a file holds. With states of width 4096 and 128 tokens each it takes 270 MB in half precision.
SHARD = 256
#: What an answer earns in a folder if nobody rewarded it. A shard is written whole, and knows no gaps; a number that
#: no judge gives says so for good, also to a process that goes on with the folder.
UNREWARDED = -sys.float_info.max


def rollouts_folder() -> Path:
    """Where harvests lie: STEERLIB_ROLLOUTS, or `rollouts` beside the fetched data."""
    chosen = os.environ.get("STEERLIB_ROLLOUTS")
    return Path(chosen).expanduser() if chosen else cache_folder().parent / "rollouts"


@dataclass(frozen=True)
class Harvest:
    """Answers on disk.

    Attributes:
        folder: of the harvest, where checkpoints go too.
        rewarded: the answers that somebody rewarded; their states stay on disk.
    """

    folder: Path
    rewarded: Rewarded

    def shuffled(self, *, seed: int) -> Harvest:
        """Negative control: the same answers, with their rewards in another order."""
        return replace(self, rewarded=self.rewarded.shuffled(seed=seed))


def harvest(
    task: Task,
    site: Site,
    root: Path | str,
    *,
    n: int,
    seed: int,
    scope: str = "generated",
    batch_size: int = 64,
    shard: int = SHARD,
    progress: bool = False,
) -> Harvest:
    """Let the unsteered plant answer a task's prompts once each, to disk; go on where an earlier harvest stopped.

    Args:
        task: see `steerlib.tasks.rewarding.answering`.
        site: where the states are taken.
        root: where folders of harvests lie.
        n: at most so many prompts.
        seed: of the answers.
        scope: name of the token scope that a law is meant for.
        batch_size: answers at a time.
        shard: answers of a file; memory holds one.
        progress: show a bar.

    Raises:
        ContrastError: if no answer has a reward, or one is infinite.
        PlantError: if a law is attached.
        DiskFullError: no space left; finished shards are kept.
    """
    items, how, _ = answering(task, n=n, seed=seed)
    site = site.resolve(task.plant.depth)
    prompts, named = [item.text for item in items], _reward_name(task)
    decides = [*prompts, str(how), named]
    folder = _folder(root, task, [*decides, str(site), "before each token", str(shard)])
    with _alone(folder):
        whole = collect(
            task.plant, prompts, _reward(task, items), folder / "states", how=how, rewarded_by=named, site=site,
            batch_size=batch_size, shard=shard, progress=progress,
        )  # fmt: skip
    kept = rewarded_only(whole, folder / "states", named=named)
    plant = task.plant
    header = LawHeader(
        layer=site.layer, point=site.point, scope=scope, plant=plant.name, weight_hash=plant.weight_hash,
        width=kept.width, data_hash=_digest([*decides, kept.digest]), seed=seed,
    )  # fmt: skip
    return Harvest(folder, Rewarded(kept, header))


def fit_streamed(
    law: ReControl,
    answers: Harvest,
    *,
    device: str | torch.device = "cpu",
    precision: torch.dtype = torch.float32,
    progress: bool = False,
) -> ReControl:
    """Train the value of a law, as its options say, from disk; go on from the checkpoint of this fit if there is one.

    Args:
        law: not fitted yet.
        answers: what it learns from.
        device: where to train; the law stays where it is.
        precision: type of the weights while training.
        progress: show a bar.

    Returns:
        The law.

    Raises:
        ContrastError: if all rewards are equal.
        LawError: if the loss is not finite.
    """
    data = answers.rewarded.trajectories
    told: dict[str, Any] = {"target": law.target, "lam": law.lam, "layers": law.layers, "seed": law.seed}
    told["hidden"] = law.hidden or data.width
    how = _as_the_law(len(data), passes=law.passes, batch=law.batch, rate=law.rate)
    mark = _digest([_text(told), _text(asdict(how)), str(precision), data.digest])
    with _alone(answers.folder):
        fitted = fit_value(
            data, **told, how=how, precision=precision, device=device, progress=progress,
            checkpoint=answers.folder / f"value-{mark[:16]}.safetensors",
        )  # fmt: skip
    law.hold(fitted.network, answers.rewarded.header)
    law.history = fitted.history
    return law


def streamed_scorer(
    task: Task,
    name: str,
    root: Path | str,
    *,
    n: int,
    seed: int,
    options: Mapping[str, Any],
    device: str | torch.device = "cpu",
    batch_size: int = 64,
    shard: int = SHARD,
    progress: bool = False,
) -> StateScorer:
    """A prefix scorer as `steerlib.decoding.making.trained_scorer` makes it, from answers on disk.

    Args:
        task: see `steerlib.tasks.rewarding.answering`.
        name: "fudge" or "cd-q"; see `steerlib.decoding.prefix`.
        root: as of `harvest`; scorers of all names share the states.
        n: answers, at most one for each prompt.
        seed: of the answers, of weights and of order.
        options: those of `PrefixTraining` that are not to be the default.
        device: where to train.
        batch_size: answers at a time.
        shard: answers of a file; memory holds one.
        progress: show a bar.

    Raises:
        DecodingError: unknown name, or options that it does not take.
        ContrastError: as `harvest`.
        LawError: as `fit_streamed`.
    """
    if name not in METHODS:
        raise DecodingError(f"scorer: {unknown('scorer', name, METHODS)}")
    try:
        given = PrefixTraining(**options)
    except TypeError as error:
        raise DecodingError(f"scorer {name!r} does not take the options {dict(options)}: {error}") from error
    items, how, _ = answering(task, n=n, seed=seed)
    prompts, named = [item.text for item in items], _reward_name(task)
    folder = _folder(root, task, [*prompts, str(how), named, "after each token", str(shard)])
    with _alone(folder):
        whole = prefix_states(
            task.plant, prompts, _reward(task, items), folder / "states", how=how, rewarded_by=named,
            batch_size=batch_size, shard=shard, progress=progress,
        )  # fmt: skip
        kept = rewarded_only(whole, folder / "states", named=named)
        mark = _digest([name, _text(asdict(given)), str(seed), kept.digest])
        fitted = fit_value(
            kept, target=METHODS[name], hidden=given.hidden or kept.width, layers=given.layers, seed=seed,
            how=_as_the_law(len(kept), passes=given.passes, batch=given.batch, rate=given.rate), device=device,
            checkpoint=folder / f"scorer-{mark[:16]}.safetensors", progress=progress,
        )  # fmt: skip
    return StateScorer(fitted.network, site=READ_OUT)


def rewarded_only(whole: Trajectories, folder: Path | str, *, named: str) -> Trajectories:
    """The trajectories of a folder that somebody rewarded; what is left out is not read, and nothing is copied.

    Raises:
        ContrastError: if nobody rewarded any.
    """
    lacking = whole.rewards == UNREWARDED
    if not bool(lacking.any()):
        return whole
    if bool(lacking.all()):
        raise ContrastError(f"{named}: none of {len(whole)} answers has a reward. Fix: look at the judge.")
    shards, parts = Shards.open(Path(folder)), []
    for number in range(len(shards)):
        states, rows = shards._part(number)[0], list(shards.rows(number))
        ends = [0, *whole.lengths[rows].cumsum(0).tolist()]
        # Views of the mapped file, one for each run of answers that stay.
        for lacks, run in groupby(range(len(rows)), key=lambda i, rows=rows: bool(lacking[rows[i]])):
            places = list(run)
            if not lacks:
                parts.append(states[ends[places[0]] : ends[places[-1] + 1]])
    return Trajectories(parts, whole.lengths[~lacking], whole.rewards[~lacking])


def _reward(task: Task, items: Sequence[Any]) -> Reward:
    """What answers earn, `UNREWARDED` where nobody said so."""
    if hasattr(task, "alone"):  # a copy: who wins is nothing to learn from
        task = copy(task)
        task.alone = True  # type: ignore[attr-defined]
    earned: Callable[..., Any] = reward_among(task, items)

    def reward(prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        rewards = np.asarray(earned(prompts, answers), dtype=np.float64)
        return np.where(np.isnan(rewards), UNREWARDED, rewards)

    return reward


def _reward_name(task: Task) -> str:
    """Name of the reward, that of the judge included: a folder is not continued with another one's."""
    judge: Any = getattr(task, "judge", None)
    by = f" by {judge.name} {judge.version}" if hasattr(judge, "version") else ""
    return f"{task.name}: {task.labels.wanted}{by}"


def _folder(root: Path | str, task: Task, decides: Sequence[str]) -> Path:
    name = "".join(c if c.isalnum() or c in "-." else "-" for c in Path(task.plant.name).name)
    return Path(root) / f"{name}-{_digest([task.plant.weight_hash, str(task.plant.dtype), *decides])[:16]}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Be the only process at work in a folder; the system frees it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _text(options: Mapping[str, Any]) -> str:
    return json.dumps(dict(options), sort_keys=True)


def _as_the_law(rows: int, *, passes: int, batch: int, rate: float) -> Training:
    """As `ReControl.fit_rewarded` trains: a constant rate, nothing held out, and a checkpoint once in every pass."""
    each = math.ceil(rows / batch)
    return replace(
        Training(steps=1, batch=batch, rate=rate, floor=1.0, held_out=0.0), steps=passes * each, check=max(each, 50)
    )
