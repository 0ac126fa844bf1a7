"""States of answers, shard by shard: the tap that takes them, what they earn, and the folder they go to.

Knows sites, rewards as numbers, and shards. Knows nothing about how answers come about: see `steerlib.trajectories`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlib.actuator import Actuator, Scope, Site
from steerlib.control.rollouts import Batch, Shards, Trajectories
from steerlib.errors import ContrastError, PlantError
from steerlib.files import write_atomic
from steerlib.laws.base import Law
from steerlib.laws.stack import Stack
from steerlib.plant import Plant

#: Rewards of answers to prompts: as many numbers as there are answers.
Reward = Callable[[Sequence[str], Sequence[str]], "Sequence[float] | np.ndarray | Tensor"]


class Tap:
    """A transform that keeps the last position of each pass, or the whole, and changes nothing.

    Args:
        whole: keep all positions.

    Attributes:
        seen: one tensor for each pass; clear it before each batch.
    """

    pure = True  # see `steerlib.actuator`: it needs no copy of its own

    def __init__(self, *, whole: bool) -> None:
        """Nothing has been seen yet."""
        self.whole = whole
        self.seen: list[Tensor] = []

    def __call__(self, state: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """The state as it is."""
        # Prompts are padded on the left. The model may go on to change the tensor itself.
        self.seen.append((state if self.whole else state[:, -1]).clone())
        return state


@dataclass(frozen=True)
class Answers:
    """Some answers.

    Attributes:
        states: of each, in order; one for each of its tokens, or one more.
        tokens: of each.
        texts: the answers themselves.
    """

    states: list[Tensor]
    tokens: list[tuple[int, ...]]
    texts: tuple[str, ...]


def in_shards(
    plant: Plant,
    asked: list[str],
    answer: Callable[[Tap, range], Answers],
    reward: Reward,
    folder: Path | str | None,
    *,
    law: Law | Stack | None,
    site: Site,
    shard: int,
    about: dict[str, Any],
    progress: bool,
    whole: bool = False,
) -> Trajectories:
    """Answers, shard by shard, with a tap at the site: kept in memory, or written where they are missing.

    Args:
        plant: with nothing attached.
        asked: prompt of each answer.
        answer: gives the answers to some of the prompts, with the tap attached.
        reward: of the answers of a shard.
        folder: where shards go; None keeps them in memory.
        law: the policy.
        site: of the tap.
        shard: answers of a shard.
        about: what else makes this folder the one it is.
        progress: show a bar.
        whole: whether the tap keeps whole passes, or their last positions.
    """
    if plant.wiring.active():
        raise PlantError("a law is attached, which no folder can record. Fix: detach it, or collect(..., law=law).")
    if shard < 1:
        raise PlantError(f"shard: got {shard}, expected at least 1.")
    site = site.resolve(plant.depth)
    tap = Tap(whole=whole)
    with ExitStack() as attached:
        # Attached first, it sees what a law at the same site sees. Before any file is written: the site may not exist.
        attached.enter_context(Actuator(plant.wiring, [(site, tap, Scope("all"))]))
        if law is not None:
            attached.enter_context(plant.under(law))
        kept: Shards | _Kept = _Kept()
        if folder is not None:
            here = {"plant": plant.name, "weights": plant.weight_hash, "dtype": str(plant.dtype), "site": str(site)}
            kept = Shards.begin(folder, count=len(asked), size=shard, about={**here, **about})
        numbers = kept.missing if isinstance(kept, Shards) else range(-(-len(asked) // shard))
        for number in tqdm(numbers, desc="collecting", disable=not progress, leave=False):
            chosen = range(number * shard, min(len(asked), (number + 1) * shard))
            found, prompts = answer(tap, chosen), [asked[i] for i in chosen]
            earned = rewards_of(reward, prompts, found.texts)
            if isinstance(kept, Shards):
                said = {"prompts": prompts, "answers": found.texts, "tokens": found.tokens}
                write_atomic(_said_file(kept, number), json.dumps(said, ensure_ascii=False))
            lengths = torch.tensor([len(states) for states in found.states])
            kept.write(number, Batch(torch.cat(found.states), lengths, earned))
    return kept.read()


def _said_file(shards: Shards, number: int) -> Path:
    return shards.path(number).with_suffix(".json")


class _Kept:
    """Shards that stay in memory."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def write(self, _number: int, batch: Batch) -> None:
        self.batches.append(batch)

    def read(self) -> Trajectories:
        return Trajectories(
            [batch.states for batch in self.batches],
            torch.cat([batch.lengths for batch in self.batches]),
            torch.cat([batch.rewards for batch in self.batches]),
        )


def rewards_of(reward: Reward, prompts: Sequence[str], answers: Sequence[str]) -> Float[Tensor, " n"]:
    """The rewards, once it is known that they are one finite number for each answer."""
    earned = torch.as_tensor(reward(prompts, answers), dtype=torch.float64).detach().cpu()
    if earned.shape != (len(answers),):
        raise ContrastError(f"reward: got shape {tuple(earned.shape)} for {len(answers)} answers, expected one each.")
    wrong = (~earned.isfinite()).nonzero()
    if len(wrong):
        i = int(wrong[0])
        raise ContrastError(
            f"reward: got {float(earned[i])} for the answer {answers[i][:60]!r} to {prompts[i][-60:]!r}. Fix: a reward "
            "that is a finite number for every answer, also an empty one."
        )
    return earned


@dataclass(frozen=True)
class Collected:
    """What was said in the trajectories of a folder.

    Attributes:
        prompts: of each trajectory.
        answers: to them.
        tokens: of the answers.
    """

    prompts: list[str]
    answers: list[str]
    tokens: list[tuple[int, ...]]


def collected(folder: Path | str) -> Collected:
    """Prompt and answer of each trajectory of a folder, to look at, to reward otherwise or to go on from.

    Raises:
        ContrastError: if the folder holds no trajectories, or not all of them yet.
    """
    shards = Shards.open(Path(folder))
    shards.read()  # says what is missing
    found = Collected([], [], [])
    for number in range(len(shards)):
        said = json.loads(_said_file(shards, number).read_text(encoding="utf-8"))
        found.prompts.extend(said["prompts"])
        found.answers.extend(said["answers"])
        found.tokens.extend(map(tuple, said["tokens"]))
    return found
