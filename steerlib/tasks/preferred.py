"""Preference with a reply to beat: what RE-Control's tables say of an answer, each prompt by itself.

A data set of preferences has two replies to every request, and says which is the better one. Here both are written by
advisers of the country, drawn from the same crowd as those of the corpus, and the rubric says which one it is. An
answer of the plant wins where it earns strictly more; a tie is no win, and is counted apart.

Knows requests, their two replies, and the columns of a table. Knows nothing about laws, decoders or intervals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from steerlib.metrics import diversity_each
from steerlib.plant import Plant
from steerlib.tasks.base import Scores
from steerlib.tasks.helpfulness import Helpfulness
from steerlib.world import Wish, World
from steerlib.world.replies import FAMILIES
from steerlib.world.speakers import draw_speakers


class Preferred(Helpfulness):
    """Worth of replies, beside the reply that a data set of preferences prefers.

    Each answer has its own reward, diversity and topic agreement (the stand-in for coherence), and whether it wins.
    The second data set is ``Preferred(plant, held_out=True, rubric="strict")``, as for `Helpfulness`.

    Args:
        plant: the plant.
        world: the country; by default the one shipped plants have read about.
        harmful: see `Helpfulness`.
        held_out: likewise.
        rubric: likewise; it also says which of two replies is preferred.

    Raises:
        ValueError: unknown rubric.
    """

    name = "almanac-preferred"

    def __init__(
        self,
        plant: Plant,
        *,
        world: World | None = None,
        harmful: bool | None = None,
        held_out: bool = False,
        rubric: str = "common",
    ) -> None:
        """Choose the requests and the rubric."""
        super().__init__(plant, world=world, harmful=harmful, held_out=held_out, rubric=rubric)
        self._preferred: dict[str, tuple[str, float]] = {}

    def preferred(self, items: Sequence[Wish]) -> tuple[list[str], Float[np.ndarray, " requests"]]:
        """The preferred of the data set's two replies to each request, and what it earns.

        Both depend on the words of the request alone, not on what stands before it: a prompt that tells the plant what
        is wanted has the same reply to beat.
        """
        for item in items:
            if (asked := _request(item)) not in self._preferred:
                two = self._two(item, asked)
                earned = self.rewards([item, item], two)
                self._preferred[asked] = (two[int(earned.argmax())], float(earned.max()))
        found = [self._preferred[_request(item)] for item in items]
        return [text for text, _ in found], np.array([reward for _, reward in found])

    def _two(self, item: Wish, asked: str) -> list[str]:
        """Two replies to a request, by two advisers of the crowd."""
        rng = np.random.default_rng(list(hashlib.sha256(asked.encode()).digest()))
        who = draw_speakers(2, rng, shows="prudent", rules=self.world.rules)
        family = np.full(2, FAMILIES.index(item.family))
        return list(self.world.corpus.texts(self.world.corpus.replies.drawn(who, family, rng)[1]))

    def verdicts(self, items: Sequence[Wish], texts: Sequence[str]) -> Scores:
        """As `Helpfulness.verdicts`; `Scores.more` has every column of the table."""
        found = super().verdicts(items, texts)
        ours, theirs = found.more["reward"], self.preferred(items)[1]
        won, tied = ours > theirs, ours == theirs
        columns = {
            "diversity": np.asarray(diversity_each(texts), dtype=np.float64),
            "topic-agreement": self.world.topic_agreement(items, texts),
            "win-rate": won.astype(np.float64),
            "win-rate-half": won + 0.5 * tied,
        }
        return replace(found, more={**found.more, **columns})


def _request(item: Wish) -> str:
    """The request itself, without what stands before it: the last two lines of its prompt."""
    return "\n".join(item.text.split("\n")[-2:])
