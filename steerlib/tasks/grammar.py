"""Behaviours on the Almanac whose grammar says every way to go on: exact scores by summing over the forms.

Knows how prompts and their forms become scores. What is asked, and what an answer amounts to, stands with each
behaviour and in `steerlib.world`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from steerlib.forest import Forest
from steerlib.plant import Plant
from steerlib.tasks.base import NotTellable, Pair, Scores, Split, Task, spread
from steerlib.world import World
from steerlib.world.prompts import Forms

#: Prompts in a split, where the world can make as many as one likes.
PROMPTS = 100
#: Dispositions of the two classes that laws are fitted on.
HIGH, LOW = 0.95, 0.05


class Prompt(Protocol):
    """A prompt of the world."""

    @property
    def text(self) -> str:
        """The whole prompt."""
        ...


class GrammarTask(Task):
    """A behaviour of a plant grown on the Almanac.

    Args:
        plant: the plant.
        world: the country; by default the one shipped plants have read about.
    """

    #: Tokens that one sampled answer may have.
    answer_tokens: int = 48
    #: Whether only the first line of a sampled text is the answer.
    first_line: bool = True

    def __init__(self, plant: Plant, *, world: World | None = None) -> None:
        """Choose the country."""
        super().__init__(plant)
        self.world = world if world is not None else World.default()
        self._forests: dict[tuple[str, ...], tuple[Forest, torch.Tensor, torch.Tensor]] = {}

    # ---- what each behaviour says -----------------------------------------------------------------

    @abstractmethod
    def items(self, split: Split = "test", *, told: bool = False) -> Sequence[Any]:
        """Prompts of a split, bare or (``told``) with the name at the start that promises the behaviour.

        Both lists belong together, prompt by prompt.

        Raises:
            NotTellable: if prompts are asked for that promise the behaviour, and none can.
        """

    @abstractmethod
    def forms(self, item: Any) -> Forms:
        """Every way to go on after a prompt, and what each amounts to."""

    @abstractmethod
    def verdicts(self, items: Sequence[Any], texts: Sequence[str]) -> Scores:
        """What sampled answers amount to, by the oracle."""

    def stems(
        self, of: str, ends: tuple[str, str], *, n: int, seed: int, at: str, split: Split
    ) -> tuple[list[str], list[str]]:
        """Texts by speakers high and low in a disposition, up to the choice or ("end") with an answer of each class.

        Raises:
            ValueError: if ``at`` is neither "choice" nor "end".
        """
        if at not in ("choice", "end"):
            raise ValueError(f"at: got {at!r}, expected 'choice' or 'end'.")
        high, low = (self.world.stems(split=split, disposition=d, n=n, seed=seed, of=of) for d in (HIGH, LOW))
        if at == "end":
            high, low = [text + ends[0] for text in high], [text + ends[1] for text in low]
        return high, low

    # ---- what follows from it ---------------------------------------------------------------------

    def prompts(self, split: Split = "test") -> list[str]:
        """Bare prompts, which carry no sign of a disposition."""
        return [item.text for item in self.items(split)]

    def pairs(self, split: Split = "test") -> list[Pair]:
        """Bare prompts with the first form that is wanted most and the first that is wanted least."""
        out = []
        for item in self.items(split):
            forms = self.forms(item)
            best, worst = int(np.argmax(forms.wanted)), int(np.argmin(forms.wanted))
            out.append(Pair(item.text, forms.texts[best], forms.texts[worst]))
        return out

    def exact(self, *, split: Split = "test", limit: int | None = None) -> Scores:
        """Scores from probabilities: each form counts as far as it is wanted, and as far as it is intact."""
        return self.scored(spread(self.items(split), limit))

    def scored(self, items: Sequence[Any]) -> Scores:
        """Exact scores of the plant, steered if a law is attached outside, on prompts of one's own choice."""
        forest, owner, worth = self._forest(items)
        mass = forest.logprobs(self.plant).exp()
        columns = [torch.zeros(len(items), dtype=torch.float64).index_add(0, owner, mass * w) for w in worth.T]
        return Scores(columns[0].numpy(), columns[1].numpy())

    def _forest(self, items: Sequence[Any]) -> tuple[Forest, torch.Tensor, torch.Tensor]:
        """Every form of every prompt, tokenized once; the prompt each belongs to; what it is worth."""
        key = tuple(item.text for item in items)
        if key not in self._forests:
            forms = [self.forms(item) for item in items]
            owner = [i for i, form in enumerate(forms) for _ in form.texts]
            texts = [text for form in forms for text in form.texts]
            worth = [pair for form in forms for pair in zip(form.wanted, form.intact, strict=True)]
            self._forests[key] = (
                Forest.of(self.plant, [key[i] for i in owner], texts),
                torch.tensor(owner),
                torch.tensor(worth, dtype=torch.float64),
            )
        return self._forests[key]

    def sampled(self, *, split: Split = "test", seed: int = 0, limit: int | None = None) -> tuple[Scores, list[str]]:
        """Scores of one sampled answer to each prompt, by the oracle, and the answers."""
        return self.answered(spread(self.items(split), limit), seed=seed)

    def answered(self, items: Sequence[Any], *, seed: int = 0) -> tuple[Scores, list[str]]:
        """Sampled answers to prompts of one's own choice, and their scores."""
        out = self.plant.generate([item.text for item in items], max_new_tokens=self.answer_tokens, seed=seed)
        # A plant goes on to ask itself the next question.
        texts = [text.partition("\n")[0] for text in out.texts] if self.first_line else list(out.texts)
        return self.verdicts(items, texts), texts

    def reference(self, *, split: Split = "test", limit: int | None = None) -> Scores | None:
        """The unsteered plant, told by name what to do: the prompting ceiling; None where it cannot be told."""
        try:
            items = self.items(split, told=True)
        except NotTellable:
            return None
        return self.scored(spread(items, limit))
