"""What every task offers, and the scores it gives.

Knows how states of two classes become a contrast with a header; knows nothing about any one behaviour.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from steerlib.actuator import Point, Site
from steerlib.errors import ContrastError, MetricError
from steerlib.laws.base import Contrast, LawHeader
from steerlib.metrics import Estimate, mean_interval, metric_named, product_difference, product_interval
from steerlib.plant import Plant
from steerlib.recorder import Activations, Position, record

Split = Literal["fit", "validation", "test"]


class NotTellable(MetricError):  # noqa: N818 - a statement about a task more than a fault
    """No prompt says what is wanted: a behaviour that a plant cannot be told to show has no prompting baseline."""


@dataclass(frozen=True)
class Labels:
    """Words for a behaviour, so that one page can speak of any task.

    Attributes:
        behaviour: what is wanted, as an adjective ("truthful").
        wanted: name of the score that should rise ("True").
        intact: name of the score that should not fall ("Info").
        combined: name of their product ("T*I").
        positive: what the positive class is.
        negative: what the negative class is.
        goal: what the reference point is that a perfect law would reach, or "" if there is none.
    """

    behaviour: str
    wanted: str
    intact: str
    combined: str
    positive: str
    negative: str
    goal: str


@dataclass(frozen=True)
class Pair:
    """A prompt with two answers that part at some token; see `steerlib.tasks.decisions`.

    Attributes:
        prompt: what the plant is asked.
        wanted: the answer that shows the behaviour.
        unwanted: an answer that does not.
    """

    prompt: str
    wanted: str
    unwanted: str


@dataclass(frozen=True)
class Scores:
    """Scores of a plant on a task, prompt by prompt.

    Attributes:
        wanted: how far each answer shows the behaviour, in [0, 1].
        intact: how far each answer is still a good answer, in [0, 1].
        missing: prompt -> why a judge gave no score for its answer. The task says what such an answer counts as, and
            the scores hold that number; `len(scores.missing)` is how many there are.
        more: what else was measured of each answer, by names of `steerlib.metrics.METRICS`, in the metric's own unit,
            such as its reward; NaN where there is nothing, since no number stands for a reward that nobody gave.
    """

    wanted: Float[np.ndarray, " prompts"]
    intact: Float[np.ndarray, " prompts"]
    missing: Mapping[int, str] = field(default_factory=dict)
    more: Mapping[str, Float[np.ndarray, " prompts"]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        if self.wanted.shape != self.intact.shape or self.wanted.ndim != 1:
            raise MetricError(
                f"scores: got shapes {self.wanted.shape} and {self.intact.shape}, expected equal vectors."
            )
        strange = next((place for place in self.missing if not 0 <= place < len(self.wanted)), None)
        if strange is not None:
            raise MetricError(f"scores: got a gap at prompt {strange}, expected prompts 0 to {len(self.wanted) - 1}.")
        for name, column in self.more.items():
            metric_named(name)
            if column.shape != self.wanted.shape or np.isinf(column).any():
                raise MetricError(
                    f"scores: got {name} of shape {column.shape}, {int(np.isinf(column).sum())} of them infinite; "
                    f"expected {len(self.wanted)} finite numbers, or NaN where there is none."
                )

    def wanted_mean(self, *, seed: int = 0) -> Estimate:
        """Mean of the wanted score."""
        return mean_interval(self.wanted, seed=seed)

    def intact_mean(self, *, seed: int = 0) -> Estimate:
        """Mean of the score that should not fall."""
        return mean_interval(self.intact, seed=seed)

    @property
    def combined_mean(self) -> float:
        """The combined score without its interval, for choosing among many."""
        return float(self.wanted.mean() * self.intact.mean())

    def combined(self, *, seed: int = 0) -> Estimate:
        """Product of the two means, as the papers combine True and Info."""
        return product_interval(self.wanted, self.intact, seed=seed)

    def combined_gain(self, control: Scores, *, seed: int = 0) -> Estimate:
        """How much higher the combined score is than that of a control on the same prompts."""
        return product_difference((self.wanted, self.intact), (control.wanted, control.intact), seed=seed)

    @staticmethod
    def pooled(scores: Sequence[Scores]) -> Scores:
        """Scores of several seeds on the same prompts, averaged prompt by prompt: prompts stay the unit.

        A prompt is missing where a seed lacks it; the first such seed gives the reason. What else was measured is kept
        where every seed has it.
        """
        shared = [name for name in scores[0].more if all(name in s.more for s in scores)]
        missing = {place: s.missing[place] for s in reversed(scores) for place in s.missing}
        return Scores(
            np.mean([s.wanted for s in scores], 0),
            np.mean([s.intact for s in scores], 0),
            dict(sorted(missing.items())),
            {name: np.mean([s.more[name] for s in scores], 0) for name in shared},
        )


class Task(ABC):
    """A behaviour of one plant: where to fit, where to score.

    Args:
        plant: the plant that is steered.
    """

    name: str
    labels: Labels
    #: Attributes that hold judges of sampled answers, by which a cell names them; none where the task is its own judge.
    judge_roles: tuple[str, ...] = ()
    #: Whether text i of both classes belongs together: the same question, asked of or answered by another.
    paired: bool = False

    def __init__(self, plant: Plant) -> None:
        """Remember the plant."""
        self.plant = plant

    @classmethod
    def data_files(cls, options: Mapping[str, Any]) -> tuple[Path, ...]:  # noqa: ARG003 - for tasks that do read files
        """Files that the task reads when it is made with these options: their content decides a cell's key.

        Tasks of the Almanac read none, since its world is code.

        Args:
            options: arguments of the constructor besides the plant, as an experiment writes them down.
        """
        return ()

    @abstractmethod
    def prompts(self, split: Split = "test") -> list[str]:
        """Prompts whose answers are scored; those of different splits share no entity."""

    @abstractmethod
    def pairs(self, split: Split = "test") -> list[Pair]:
        """Prompts with a wanted and an unwanted answer, alike up to the token where the behaviour is decided."""

    @abstractmethod
    def contrast_texts(
        self, *, n: int, seed: int, at: str = "choice", split: Split = "fit"
    ) -> tuple[list[str], list[str]]:
        """Texts of both classes, each ending where the state is measured.

        Args:
            n: texts of each class; fewer if the task has fewer, since no text is used twice.
            seed: which texts.
            at: "choice", the token where the behaviour is decided, or "end", the end of the answer.
            split: "fit", or "validation" and "test" to look at states on entities no law has seen.
        """

    def condition_texts(self, *, n: int, seed: int) -> tuple[list[str], list[str]]:
        """Prompts on which a law is to act, and prompts that it is to leave alone, for laws that read the prompt first.

        Here texts of the unwanted and of the wanted behaviour: where it is shown already, nothing is to be done.

        Args:
            n: prompts of each class.
            seed: which.
        """
        wanted, unwanted = self.contrast_texts(n=n, seed=seed)
        return unwanted, wanted

    @abstractmethod
    def exact(self, *, split: Split = "test", limit: int | None = None) -> Scores:
        """Scores from the plant's own probabilities, without sampling; deterministic.

        Args:
            split: which prompts.
            limit: at most so many prompts, spread evenly over the split.
        """

    @abstractmethod
    def sampled(self, *, split: Split = "test", seed: int = 0, limit: int | None = None) -> tuple[Scores, list[str]]:
        """Scores of one sampled answer to each prompt, and the answers."""

    @abstractmethod
    def reference(self, *, split: Split = "test", limit: int | None = None) -> Scores | None:
        """Exact scores of the unsteered plant told what to do (prompted), or None where it cannot be told."""

    def expected_rewards(self, *, n: int, seed: int = 0) -> tuple[list[str], Float[np.ndarray, " prompts"]]:
        """Prompts to fit on, each with the reward that the unsteered plant's answer is expected to earn there.

        Here the wanted score, exact, so that nothing depends on a seed.

        Args:
            n: at most so many prompts, spread evenly over the split that laws are fitted on.
            seed: of answers, for tasks whose reward is known of whole sampled answers only.
        """
        del seed
        return spread(self.prompts("fit"), n), self.exact(split="fit", limit=n).wanted

    def activations(
        self,
        sites: Sequence[Site | int],
        *,
        n: int = 200,
        seed: int = 0,
        at: str = "choice",
        split: Split = "fit",
        position: Position = "last",
    ) -> tuple[Activations, Activations]:
        """States of both classes at several sites from one pass: (positive, negative)."""
        positive, negative = self.contrast_texts(n=n, seed=seed, at=at, split=split)
        first = record(self.plant, positive, sites=sites, position=position)
        return first, record(self.plant, negative, sites=sites, position=position)

    def contrast(
        self,
        *,
        layer: int,
        point: Point = "resid_post",
        n: int = 200,
        seed: int = 0,
        at: str = "choice",
        scope: str = "generated",
        split: Split = "fit",
    ) -> Contrast:
        """States of both classes at one site, with the header that laws carry away."""
        return self.contrasts([Site(layer, point)], n=n, seed=seed, at=at, scope=scope, split=split)[0]

    def contrasts(
        self,
        sites: Sequence[Site | int],
        *,
        n: int = 200,
        seed: int = 0,
        at: str = "choice",
        scope: str = "generated",
        split: Split = "fit",
        position: Position = "last",
    ) -> list[Contrast]:
        """One contrast for each site, from one pass over the texts.

        Args:
            sites: where.
            n: texts of each class.
            seed: which texts.
            at: where the texts end; see `contrast_texts`.
            scope: name of the token scope that the law is meant for.
            split: which entities the texts are about.
            position: which token's state, or the "mean" over all tokens of a text; one state for each text.

        Raises:
            ContrastError: if n is not positive, or the position is no single one.
        """
        if position == "all":
            raise ContrastError("position: got 'all', expected one state for each text. Fix: 'last', 'mean', a number.")
        if n < 1:
            raise ContrastError(f"n: got {n}, expected at least one text of each class.")
        positive, negative = self.activations(sites, n=n, seed=seed, at=at, split=split, position=position)
        digest = hashlib.sha256((positive.data_hash + negative.data_hash).encode()).hexdigest()
        return [
            Contrast(
                positive.at(site),
                negative.at(site),
                LawHeader(
                    layer=site.layer, point=site.point, scope=scope, plant=self.plant.name,
                    weight_hash=self.plant.weight_hash, width=positive.at(site).shape[1], data_hash=digest, seed=seed,
                ),
                paired=self.paired,
            )
            for site in positive.sites
        ]  # fmt: skip


def spread(items: Sequence, limit: int | None) -> list:
    """At most `limit` items, spread evenly over the whole."""
    if limit is None or limit >= len(items):
        return list(items)
    if limit < 1:
        raise MetricError(f"limit: got {limit}, expected at least 1.")
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def share_within(logs: torch.Tensor, owner: torch.Tensor, groups: int) -> Float[np.ndarray, " groups"]:
    """Sum of probabilities by group, from log probabilities."""
    return torch.zeros(groups, dtype=torch.float64).index_add(0, owner, logs.exp()).numpy()
