"""Concepts on the Almanac: does a page turn to one of twelve concepts?

Exact scores sum the plant's probability over every sentence that a page may begin with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steerlib.plant import Plant
from steerlib.tasks.base import Labels, Scores, Split
from steerlib.tasks.grammar import GrammarTask
from steerlib.world import World
from steerlib.world.pages import CONCEPTS, PLAIN, THINGS
from steerlib.world.prompts import Forms, Lead

#: Beginnings of pages differ in little but the name of a town and how the first sentence begins.
LEADS = 60


def another_concept(concept: str) -> str:
    """The concept whose direction is the negative control of a concept's: the next one, so that each serves once.

    Raises:
        ValueError: unknown concept.
    """
    if concept not in CONCEPTS:
        raise ValueError(f"unknown concept {concept!r}; expected one of {', '.join(CONCEPTS)}")
    names = list(CONCEPTS)
    return names[(names.index(concept) + 1) % len(names)]


class Concept(GrammarTask):
    """Prevalence of a concept in open-ended pages.

    Args:
        plant: the plant.
        concept: one of `steerlib.world.pages.NAMES`.
        world: the country; by default the one shipped plants have read about.

    Raises:
        ValueError: unknown concept.
    """

    answer_tokens = 48
    paired = True

    def __init__(self, plant: Plant, concept: str, *, world: World | None = None) -> None:
        """Choose the concept."""
        super().__init__(plant, world=world)
        if concept not in CONCEPTS:
            raise ValueError(f"unknown concept {concept!r}; expected one of {', '.join(CONCEPTS)}")
        self.concept, self.name = concept, f"concept: {concept}"
        self.labels = Labels(
            behaviour=f"about {concept}",
            wanted=concept.removeprefix("the ").capitalize(),
            intact="Sentence",
            combined="C*S",
            positive=f"pages about {concept}",
            negative="pages about something else",
            goal="a heading promises the concept",
        )

    def items(self, split: Split = "test", *, told: bool = False) -> list[Lead]:
        """Beginnings of pages."""
        return self.world.leads(split, concept=self.concept if told else None, n=LEADS)

    def forms(self, item: Lead) -> Forms:
        """Every sentence of a page."""
        return item.forms(self.concept)

    def contrast_texts(
        self, *, n: int, seed: int, at: str = "choice", split: Split = "fit"
    ) -> tuple[list[str], list[str]]:
        """Pages about the concept and about anything else, up to where a thing is chosen; see `Task.contrast_texts`."""
        if at not in ("choice", "end"):
            raise ValueError(f"at: got {at!r}, expected 'choice' or 'end'.")
        texts = [
            self.world.turned(self.concept, present=present, split=split, n=n, seed=seed) for present in (True, False)
        ]
        if at == "choice":
            return texts[0], texts[1]
        thing, other = THINGS[self.concept][0], PLAIN[0]
        return [f"{text} {thing}." for text in texts[0]], [f"{text} {other}." for text in texts[1]]

    def verdicts(self, items: Sequence[Lead], texts: Sequence[str]) -> Scores:
        """Whether the concept is present, and the share of the page that could be read."""
        found = self.world.judge_many(items, texts)
        present = np.array([float(self.concept in v.concepts) for v in found])
        return Scores(present, np.array([v.readable for v in found]))
