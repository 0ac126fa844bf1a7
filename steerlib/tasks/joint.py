"""Truth on the Almanac, scored by the share of answers that are both true and informative.

Prompts, answers and what laws are fitted on are those of `steerlib.tasks.truth`; what is scored differs. TruthfulQA
(Lin et al. 2022) counts an answer that is both, and so does the released code of ODESteer, where papers print the
product of two shares. On the Almanac only statements of the truth are both, so that the share of them is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from steerlib.tasks.base import Scores
from steerlib.tasks.truth import Truth
from steerlib.world.grammar import Question


class JointTruth(Truth):
    """Answers that are true and informative at once.

    `Scores.wanted` is the share of them, and `Scores.intact` one, since being informative is a part of what is wanted:
    the product of both is then the share itself. True and Info stand in `Scores.more`.
    """

    name = "truth-joint"
    labels = replace(Truth.labels, wanted="True and Info", intact="one", combined="True and Info")

    def scored(self, items: Sequence[Question]) -> Scores:
        """Exact scores: the probability of every statement of the truth, for each question."""
        mass = self.masses(list(items))
        both, true = mass["truth"], mass["truth"] + mass["uninformative"]
        return _joint(both, true, both + mass["misconception"])

    def verdicts(self, items: Sequence[Question], texts: Sequence[str]) -> Scores:
        """Whether each answer is true and informative, as the oracle judges it."""
        found = super().verdicts(items, texts)
        return _joint(found.wanted * found.intact, found.wanted, found.intact)


def _joint(both: np.ndarray, true: np.ndarray, info: np.ndarray) -> Scores:
    return Scores(both, np.ones_like(both), more={"true": true, "info": info})
