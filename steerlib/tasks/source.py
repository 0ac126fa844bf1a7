"""What a law is fitted on, measured on a task: contrasts at the sites that the law asks for.

Knows a task, which texts, where and whether the labels are true. Knows nothing about laws; see `laws.base.Source`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from steerlib.actuator import Site
from steerlib.errors import ContrastError
from steerlib.laws.additive import shuffled
from steerlib.laws.answers import Answers
from steerlib.laws.base import Contrast, LawHeader
from steerlib.laws.rewarded import Rewarded
from steerlib.laws.scored import Scored
from steerlib.plant import Plant
from steerlib.recorder import Activations, Position, record
from steerlib.tasks.answering import answers_of
from steerlib.tasks.base import Task
from steerlib.tasks.rewarding import rewarded_answers

Labels = Literal["true", "shuffled"]


@dataclass(frozen=True)
class TaskSource:
    """The texts of a task, measured wherever a law asks.

    Attributes:
        task: whose texts.
        site: where the law is to act.
        n: texts of each class.
        seed: which texts.
        at: where the state is measured; see `Task.contrast_texts`.
        scope: name of the token scope that the law is meant for.
        labels: "true", or "shuffled" for the negative control.
    """

    task: Task
    site: Site
    n: int = 200
    seed: int = 0
    at: str = "choice"
    scope: str = "generated"
    labels: Labels = "true"

    @property
    def plant(self) -> Plant:
        """Where states are measured."""
        return self.task.plant

    def contrasts(self, sites: Sequence[Site], *, pairs: bool = False, position: Position = "last") -> list[Contrast]:
        """One contrast for each site, from one pass over the texts, under whatever is attached to the plant.

        Args:
            sites: where.
            position: "last" token of each text, or the "mean" over its tokens.
            pairs: keep whole pairs. Shuffled labels are then swapped within pairs; else all states are mixed.

        Raises:
            ContrastError: if pairs are asked for and the task has none.
        """
        found = self._measured(tuple(sites), position)
        if pairs and not all(contrast.paired for contrast in found):
            raise ContrastError(
                f"{self.task.name}: its texts do not come in pairs, which this law needs. Fix: a task whose texts do."
            )
        if self.labels == "true":
            return found
        return [shuffled(contrast, seed=self.seed, within_pairs=pairs) for contrast in found]

    def answers(self, sites: Sequence[Site]) -> list[Answers]:
        """For each site, states of questions and of a right and a wrong answer to each.

        Shuffled labels are swapped by question.
        """
        found = [answers_of(self.task, site, n=self.n, seed=self.seed, scope=self.scope) for site in sites]
        return found if self.labels == "true" else [one.shuffled(seed=self.seed) for one in found]

    def by_position(
        self,
        sites: Sequence[Site],
        *,
        positions: int | None = None,
        texts: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> list[list[Contrast]]:
        """For each site, one contrast for each of the first token positions, from one pass over the texts.

        A text counts at the positions that it has. Shuffled labels are those of whole texts.

        Args:
            sites: where.
            positions: how many, counted from the first token; None for as many as every text has.
            texts: of the positive and the negative class; None for those that other laws are fitted on.

        Raises:
            ContrastError: if no text of a class is as long as that.
        """
        both = self.task.contrast_texts(n=self.n, seed=self.seed, at=self.at) if texts is None else texts
        found = [record(self.plant, group, sites=list(sites), position="all") for group in self._classes(*both)]
        lengths = [torch.tensor(group.rows) for group in found]
        if positions is None:
            positions = min(int(lengths[0].min()), int(lengths[1].min()))
        longest = min(int(lengths[0].max()), int(lengths[1].max()))
        if positions > longest:
            raise ContrastError(
                f"{self.task.name}: got positions={positions}, but a class has no text of more than {longest} tokens. "
                f"Fix: at most {longest}."
            )
        digest = _digest(found[0].data_hash, found[1].data_hash, f"{positions} positions")
        starts = [count.cumsum(0) - count for count in lengths]

        def at(group: int, site: Site, place: int) -> Tensor:
            return found[group].at(site)[(starts[group] + place)[lengths[group] > place]]

        return [
            [Contrast(at(0, site, k), at(1, site, k), self._header(site, found[0], digest)) for k in range(positions)]
            for site in found[0].sites
        ]

    def conditions(self, sites: Sequence[Site], *, read: Literal["last", "mean"] = "last") -> list[Contrast]:
        """For each site, states of prompts on which a law is to act, and of prompts that it is to leave alone.

        See `Task.condition_texts`. Shuffled labels are those of whole prompts.

        Args:
            sites: where.
            read: which state speaks for a prompt: of its last token, or the mean over its tokens.
        """
        texts = self._classes(*self.task.condition_texts(n=self.n, seed=self.seed))
        position = "last" if read == "last" else "all"
        found = [record(self.plant, group, sites=list(sites), position=position) for group in texts]
        digest = _digest(found[0].data_hash, found[1].data_hash, f"conditions {read}")

        def states(group: Activations, site: Site) -> Tensor:
            whole = group.at(site)
            if read == "last":
                return whole
            return torch.stack([rows.double().mean(0) for rows in whole.split(list(group.rows))]).float()

        return [
            Contrast(states(found[0], site), states(found[1], site), self._header(site, found[0], digest))
            for site in found[0].sites
        ]

    def scored(self, sites: Sequence[Site]) -> list[Scored]:
        """For each site, states at the end of prompts with the reward expected after each; see `expected_rewards`.

        As many prompts as a contrast has texts of both classes, if the task has as many. Shuffled labels are rewards
        in another order.
        """
        prompts, rewards = self.task.expected_rewards(n=2 * self.n, seed=self.seed)
        if self.labels == "shuffled":
            rewards = rewards[np.random.default_rng(self.seed).permutation(len(rewards))]
        found = record(self.plant, prompts, sites=list(sites), position="last")
        digest = _digest(found.data_hash, hashlib.sha256(rewards.tobytes()).hexdigest())
        return [
            Scored(found.at(site), torch.from_numpy(rewards), self._header(site, found, digest)) for site in found.sites
        ]

    def trajectories(self, sites: Sequence[Site]) -> list[Rewarded]:
        """For each site, the states of the unsteered plant's answers with what each earned; see `rewarded_answers`.

        As many prompts as a contrast has texts of both classes, if the task has as many. Shuffled labels are rewards
        in another order.
        """
        found = [self._answered(site) for site in sites]
        return found if self.labels == "true" else [one.shuffled(seed=self.seed) for one in found]

    def _answered(self, site: Site) -> Rewarded:
        return rewarded_answers(self.task, site, n=2 * self.n, seed=self.seed, scope=self.scope)

    def _classes(self, positive: Sequence[str], negative: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """The texts of both classes, or mixed where labels are shuffled."""
        if self.labels == "true":
            return positive, negative
        every = [*positive, *negative]
        mixed = [every[i] for i in np.random.default_rng(self.seed).permutation(len(every))]
        return mixed[: len(positive)], mixed[len(positive) :]

    def _header(self, site: Site, found: Activations, digest: str) -> LawHeader:
        return LawHeader(
            layer=site.layer, point=site.point, scope=self.scope, plant=self.plant.name,
            weight_hash=self.plant.weight_hash, width=found.at(site).shape[1], data_hash=digest, seed=self.seed,
        )  # fmt: skip

    def _measured(self, sites: tuple[Site, ...], position: Position) -> list[Contrast]:
        return self.task.contrasts(sites, n=self.n, seed=self.seed, at=self.at, scope=self.scope, position=position)


def _digest(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
