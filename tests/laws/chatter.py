"""A behaviour of random models, so that every law can be fitted on every family as a cell would fit it.

The class of a text is its first word, which the random weights carry to every later token in their own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steerlib.actuator import Site
from steerlib.laws.rewarded import Rewarded
from steerlib.laws.stack import Stack
from steerlib.plant import Plant
from steerlib.registry import law_class
from steerlib.tasks.base import Labels, Pair, Scores, Task
from steerlib.tasks.rewarding import rewarded_texts
from steerlib.tasks.source import TaskSource
from steerlib.trajectories import RolloutSampling
from tests.families import words
from tests.laws.variants import Variant

LAYER = 1
#: Laws that act at all blocks, or choose among all: asked for at the last.
EVERYWHERE = ("a-lqr", "iti", "pid-act", "s-pid")
TEXTS = 40  # of each class; more than the width, so that covariances have full rank
WANTED, UNWANTED = 7, 11  # first word of either class


class Chatter(Task):
    """Random words after a first word that tells the class; text i of both classes is the same but for that word."""

    name = "chatter"
    labels = Labels("seven", "Seven", "Intact", "S*I", "sevens", "elevens", "")
    paired = True

    def _rests(self, n: int, seed: int) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        return [rng.integers(12, 97, size=rng.integers(2, 6)).tolist() for _ in range(n)]

    def contrast_texts(self, *, n: int, seed: int, at: str = "choice", split: str = "fit"):  # noqa: ANN201
        rests = self._rests(n, seed)
        return tuple([words(first, *rest) for rest in rests] for first in (WANTED, UNWANTED))

    def prompts(self, split: str = "test") -> list[str]:
        return [words(*rest) for rest in self._rests(TEXTS, {"fit": 0, "validation": 1, "test": 2}[split])]

    def pairs(self, split: str = "test") -> list[Pair]:
        rests = self._rests(2 * TEXTS, {"fit": 0, "validation": 1, "test": 2}[split])
        answers = self._rests(2 * TEXTS, 3)
        return [
            Pair(words(*rest), " " + words(WANTED, *answer), " " + words(UNWANTED, *answer))
            for rest, answer in zip(rests, answers, strict=True)
        ]

    def expected_rewards(self, *, n: int, seed: int = 0):  # noqa: ANN201
        """The reward is how late the last word stands in the vocabulary."""
        rests = self._rests(n, seed)
        return [words(*rest) for rest in rests], np.array([rest[-1] / 97 for rest in rests])

    def exact(self, **_: Any) -> Scores:
        raise NotImplementedError("chatter is fitted on, not scored")

    def sampled(self, **_: Any) -> Any:
        raise NotImplementedError("chatter is fitted on, not scored")

    def reference(self, **_: Any) -> None:
        return None


class _Source(TaskSource):
    """The source of a task whose answers earn what share of their words stands in the first half of the vocabulary."""

    def _answered(self, site: Site) -> Rewarded:
        def earned(texts: Sequence[str]) -> np.ndarray:
            return np.array([np.mean([int(w[1:]) < 48 for w in text.split()] or [0.0]) for text in texts])

        prompts = self.task.prompts("fit")
        how = RolloutSampling(4, self.seed)
        return rewarded_texts(self.plant, prompts, earned, how=how, named="early words", site=site, scope=self.scope)


def source(p: Plant, variant: Variant) -> TaskSource:
    """The texts, measured where the variant asks."""
    layer = -1 if variant.law in EVERYWHERE else LAYER
    return _Source(Chatter(p), Site(layer), n=TEXTS, scope=variant.scope)


def made(variant: Variant) -> Any:
    """The law of a variant, not fitted."""
    kind = law_class(variant.law)
    if variant.layers:
        return Stack.across(kind, variant.layers, options=dict(variant.options), sequential=variant.sequential)
    return kind(**variant.options)


def fitted(variant: Variant, p: Plant) -> Any:
    """The law of a variant, fitted on a plant, at the variant's strength."""
    return made(variant).fit_from(source(p, variant)).at(variant.strength)
