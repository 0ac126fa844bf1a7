"""Utility on the Almanac: multiple-choice questions about what nobody disputes.

Nothing is fitted here: it tells what steering something else costs. Scored as harnesses for large models do: the
option with the highest probability is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from steerlib.tasks.base import Labels, NotTellable, Scores, Split
from steerlib.tasks.grammar import GrammarTask
from steerlib.world.prompts import Choice, Forms


class Utility(GrammarTask):
    """Knowledge of undisputed facts, by choice among four options."""

    name = "utility"
    answer_tokens = 12
    labels = Labels(
        behaviour="knowledgeable",
        wanted="Right",
        intact="Option",
        combined="R*O",
        positive="",
        negative="",
        goal="",
    )

    def items(self, split: Split | None = None, *, told: bool = False) -> list[Choice]:
        """One question about each undisputed fact.

        Raises:
            NotTellable: if a prompt is asked for that says what is wanted.
        """
        if told:
            raise NotTellable(
                f"{self.name}: got told=True, but there is nothing to tell a plant that would make it know more. "
                "Fix: leave told out, and compare with the unsteered plant."
            )
        return self.world.choices(split)

    def forms(self, item: Choice) -> Forms:
        """The four options."""
        return item.forms()

    def contrast_texts(
        self,
        *,
        n: int,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        at: str = "choice",  # noqa: ARG002
        split: Split = "fit",  # noqa: ARG002
    ) -> tuple[list[str], list[str]]:
        """Refused: knowledge has no two classes to fit on.

        Raises:
            ValueError: always.
        """
        raise ValueError("utility is measured, never fitted on: take the contrast of another task")

    def chosen(self, items: list[Choice] | None = None) -> Float[np.ndarray, " items"]:
        """1 where the option with the highest probability is the true one, else 0."""
        items = self.items() if items is None else items
        forest, owner, worth = self._forest(items)
        scores = forest.logprobs(self.plant)
        best = torch.full((len(items),), -torch.inf, dtype=scores.dtype).scatter_reduce(0, owner, scores, "amax")
        right = ((worth[:, 0] > 0) & (scores == best[owner])).double()
        return torch.zeros(len(items), dtype=torch.float64).index_add(0, owner, right).numpy()

    def verdicts(self, items: Sequence[Choice], texts: Sequence[str]) -> Scores:
        """Whether the right option was written, and whether any was."""
        found = self.world.judge_many(items, texts)
        return Scores(np.array([float(v.correct) for v in found]), np.array([float(v.readable) for v in found]))
