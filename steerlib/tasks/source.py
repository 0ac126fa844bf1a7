"""What a law is fitted on, measured on a task: contrasts at the sites that the law asks for.

Knows a task, which texts, where and whether the labels are true. Knows nothing about laws; see `laws.base.Source`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from steerlib.actuator import Site
from steerlib.errors import ContrastError
from steerlib.laws.additive import shuffled
from steerlib.laws.base import Contrast
from steerlib.plant import Plant
from steerlib.recorder import Position
from steerlib.tasks.base import Task

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

    def _measured(self, sites: tuple[Site, ...], position: Position) -> list[Contrast]:
        return self.task.contrasts(sites, n=self.n, seed=self.seed, at=self.at, scope=self.scope, position=position)
