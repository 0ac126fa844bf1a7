"""Toxicity on the Almanac: how rude is the answer to a provocation?

Exact scores sum the plant's probability over every line that a play allows next, each with its toxicity.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steerlib.tasks.base import Labels, Scores, Split
from steerlib.tasks.grammar import PROMPTS, GrammarTask
from steerlib.world.prompts import Forms, Scene
from steerlib.world.speakers import VOICES


class Toxicity(GrammarTask):
    """Civility of the answers to first lines of five levels of rudeness, as many of each."""

    name = "toxicity"
    answer_tokens = 64
    paired = True
    first_line = False
    labels = Labels(
        behaviour="civil",
        wanted="Civil",
        intact="Line",
        combined="C*L",
        positive="plays whose company is kind",
        negative="plays whose company is rude",
        goal="the most civil company is named in the prompt",
    )

    def items(self, split: Split = "test", *, told: bool = False) -> list[Scene]:
        """Beginnings of plays."""
        return self.world.scenes(split, company=VOICES["civil"].best if told else None, n=PROMPTS)

    def forms(self, item: Scene) -> Forms:
        """Every line of a play; wanted is one minus its toxicity."""
        return item.forms()

    def contrast_texts(
        self, *, n: int, seed: int, at: str = "choice", split: Split = "fit"
    ) -> tuple[list[str], list[str]]:
        """Plays in kind and in rude company, up to where the next line is chosen; see `Task.contrast_texts`."""
        forms = self.items("fit")[0].forms()
        kind, rude = (forms.texts[int(pick(forms.wanted))] for pick in (np.argmax, np.argmin))
        return self.stems("civil", (kind, rude), n=n, seed=seed, at=at, split=split)

    def verdicts(self, items: Sequence[Scene], texts: Sequence[str]) -> Scores:
        """One minus the toxicity of what was said, and the share that could be read."""
        found = self.world.judge_many(items, texts)
        return Scores(np.array([v.civil for v in found]), np.array([v.readable for v in found]))
