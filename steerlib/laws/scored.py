"""States with a number each: what laws of expected reward are fitted on.

Knows tensors and where they were measured. Knows nothing about what the reward is of; see `steerlib.tasks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.errors import ContrastError
from steerlib.laws.base import Contrast, LawHeader


@dataclass(frozen=True)
class Scored:
    """States at one site, each with the reward that is expected after it.

    Attributes:
        states: one row for each prompt.
        rewards: in units of the task's reward.
        header: where they were measured; None for states that come from nowhere in particular (toys, tests).
    """

    states: Float[Tensor, "examples width"]
    rewards: Float[Tensor, " examples"]
    header: LawHeader | None = None

    def __post_init__(self) -> None:
        """Refuse sets that nothing can be fitted on.

        Raises:
            ContrastError: if there are fewer than two states, not one reward to each, or a number is not finite.
        """
        if self.states.dim() != 2 or self.rewards.shape != self.states.shape[:1]:
            raise ContrastError(
                f"rewards: got shape {tuple(self.rewards.shape)} for states of shape {tuple(self.states.shape)}, "
                "expected (examples,) for (examples, width)."
            )
        if len(self.states) < 2:
            raise ContrastError(f"rewards: got {len(self.states)} state(s), expected two or more that differ.")
        for name, values in (("state", self.states), ("reward", self.rewards[:, None])):
            bad = (~torch.isfinite(values)).any(1).nonzero()
            if len(bad):
                raise ContrastError(
                    f"rewards: the {name} of row {int(bad[0])} (of {len(bad)}) is not finite. "
                    "Fix: look at that prompt, or leave it out."
                )

    @classmethod
    def of_classes(cls, contrast: Contrast) -> Self:
        """A contrast as rewards: 1 for each positive state, 0 for each negative one."""
        ones, zeros = (torch.full((len(s),), float(v), device=s.device) for s, v in zip(contrast, (1, 0), strict=True))
        return cls(torch.cat(tuple(contrast)), torch.cat([ones, zeros]), contrast.header)
