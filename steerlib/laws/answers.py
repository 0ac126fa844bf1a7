"""States of questions apart from their answers: what laws are fitted on that look at the question once.

Knows states and where they were measured; see `steerlib.tasks.answering` for how.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.errors import ContrastError
from steerlib.laws.base import LawHeader


@dataclass(frozen=True)
class Answers:
    """Questions with a right and a wrong answer to each, as states at one site.

    Attributes:
        query: states at the last token of each question.
        right: mean state over the tokens of the answer that shows the wanted behaviour.
        wrong: the same of an answer that does not.
        header: where they were measured; None for toys.
    """

    query: Float[Tensor, "questions width"]
    right: Float[Tensor, "questions width"]
    wrong: Float[Tensor, "questions width"]
    header: LawHeader | None = None

    def __post_init__(self) -> None:
        """Refuse sets that no law can be fitted on.

        Raises:
            ContrastError: if there is no question, the shapes differ, or a state is not finite.
        """
        named = {"query": self.query, "right": self.right, "wrong": self.wrong}
        shapes = {name: tuple(states.shape) for name, states in named.items()}
        if self.query.dim() != 2 or len(set(shapes.values())) > 1:
            raise ContrastError(f"answers: got shapes {shapes}, expected (questions, width) three times.")
        if len(self.query) == 0:
            raise ContrastError("answers: got no question. Fix: a task with pairs of answers.")
        for name, states in named.items():
            bad = (~torch.isfinite(states)).any(1).nonzero()
            if len(bad):
                raise ContrastError(
                    f"{name} states: row {int(bad[0])} (of {len(bad)}) is not finite. "
                    "Fix: look at that question; in half precision, record in float32."
                )

    def __len__(self) -> int:
        """Number of questions."""
        return len(self.query)

    @property
    def correction(self) -> Float[Tensor, "questions width"]:
        """Right minus wrong: what would have to be added to the one to make it the other."""
        return self.right - self.wrong

    def shuffled(self, *, seed: int) -> Answers:
        """Negative control: a coin for each question decides which of its answers is called right."""
        coins = torch.randint(2, (len(self), 1), generator=torch.Generator().manual_seed(seed)).bool()
        coins = coins.to(self.query.device)
        header = self.header
        if header is not None:
            mark = f"{header.data_hash} swapped {seed}"
            header = replace(header, data_hash=hashlib.sha256(mark.encode()).hexdigest())
        right = torch.where(coins, self.wrong, self.right)
        return Answers(self.query, right, torch.where(coins, self.right, self.wrong), header)
