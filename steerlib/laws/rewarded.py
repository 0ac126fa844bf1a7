"""Answers as the states they passed through, with the reward each ended in: what laws of value are fitted on.

Knows what belongs together. Knows nothing about how answers are sampled or rewarded; see `steerlib.tasks.rollouts`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch

from steerlib.actuator import Site
from steerlib.control.rollouts import Trajectories
from steerlib.laws.base import Contrast, LawHeader, Source


@dataclass(frozen=True)
class Rewarded:
    """Trajectories at one site.

    Attributes:
        trajectories: states from the last prompt token on, each the one that the next token was drawn from.
        header: where they were measured; None for states that come from nowhere in particular (toys, tests).
    """

    trajectories: Trajectories
    header: LawHeader | None = None

    @classmethod
    def of_classes(cls, contrast: Contrast) -> Self:
        """A contrast as answers of a single state: reward 1 for each positive one, 0 for each negative one."""
        states = torch.cat([states.float().cpu() for states in contrast])
        rewards = [1.0] * len(contrast.positive) + [0.0] * len(contrast.negative)
        return cls(Trajectories(states[:, None], [1] * len(states), rewards), contrast.header)

    def shuffled(self, *, seed: int) -> Rewarded:
        """Negative control: the same answers, with their rewards in another order."""
        order = torch.randperm(len(self.trajectories), generator=torch.Generator().manual_seed(seed))
        header = self.header
        if header is not None:
            mark = f"{header.data_hash} shuffled {seed}"
            header = replace(header, data_hash=hashlib.sha256(mark.encode()).hexdigest())
        return Rewarded(self.trajectories.with_rewards(self.trajectories.rewards[order]), header)


class RewardedSource(Source, Protocol):
    """A source that can also let the plant answer, and say what each answer earned."""

    def trajectories(self, sites: Sequence[Site]) -> list[Rewarded]:
        """For each site, the states that answers of the unsteered plant passed through, with their rewards."""
        ...
