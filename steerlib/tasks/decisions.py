"""The tokens at which a plant decides between two answers, and the margin by which it decides.

The margin is one number for each prompt, exact and cheap: the logit of the first token in which the wanted answer
differs, minus that of the unwanted one. It has no ceiling, so it still tells small effects apart where a
probability is near 0 or 1. Knows pairs of answers; knows nothing about where they came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlib.errors import MetricError
from steerlib.finite import check_logits
from steerlib.plant import Plant, Tokens
from steerlib.tasks.base import Pair


@dataclass(frozen=True)
class Decisions:
    """A left-padded batch whose rows end right before two answers part.

    Attributes:
        tokens: prompt and the common beginning of both answers.
        prompt_lengths: real tokens of each row that are prompt; what follows would have been generated.
        wanted: first token of the wanted answer that differs.
        unwanted: the same of the unwanted answer.
    """

    tokens: Tokens
    prompt_lengths: Int[Tensor, " pairs"]
    wanted: Int[Tensor, " pairs"]
    unwanted: Int[Tensor, " pairs"]

    @classmethod
    def of(cls, plant: Plant, pairs: Sequence[Pair]) -> Self:
        """Find where the answers of each pair part.

        Raises:
            MetricError: if two answers are the same, or one begins with the other.
        """
        heads = plant._ids([pair.prompt for pair in pairs])
        first = plant._ids([pair.prompt + pair.wanted for pair in pairs])
        second = plant._ids([pair.prompt + pair.unwanted for pair in pairs])
        rows, chosen = [], []
        for pair, a, b in zip(pairs, first, second, strict=True):
            place = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
            if not place:
                raise MetricError(
                    f"the answers {pair.wanted!r} and {pair.unwanted!r} to {pair.prompt[-30:]!r} never part after a "
                    "common token. Fix: give two answers of which neither begins with the other."
                )
            rows.append(a[:place])
            chosen.append((a[place], b[place]))
        lengths = [min(len(head), len(row)) for head, row in zip(heads, rows, strict=True)]
        both = torch.tensor(chosen, device=plant.device)
        return cls(plant._pad(rows), torch.tensor(lengths, device=plant.device), both[:, 0], both[:, 1])

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.wanted)

    def logits(self, plant: Plant) -> Float[Tensor, "pairs vocabulary"]:
        """Logits of the token that decides, steered if a law is attached outside.

        Raises:
            NotFiniteError: if they are no numbers: a law is too strong for the precision.
        """
        found = plant.forward(self.tokens, prompt_lengths=self.prompt_lengths)[:, -1].float()
        return check_logits(plant, found)

    def margin(self, logits: Float[Tensor, "pairs vocabulary"]) -> Float[Tensor, " pairs"]:
        """Logit of the wanted token minus that of the unwanted one."""
        rows = torch.arange(len(self), device=logits.device)
        return logits[rows, self.wanted] - logits[rows, self.unwanted]

    def margins(self, plant: Plant) -> Float[np.ndarray, " pairs"]:
        """The margins of a plant, steered if a law is attached outside."""
        return self.margin(self.logits(plant)).double().cpu().numpy()
