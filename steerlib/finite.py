"""Whether what a plant computes is still a number, asked once for each batch.

A push that is too large for the precision does not fail where it is made: the state is clamped (`steerlib.laws.base`),
a later block adds to it and leaves the range, a norm makes that NaN, and the largest of NaNs is some token all the
same. So it is asked of the logits. While an answer is written they are watched on the device, and nobody waits for
them before its end.

Knows logits and what is attached to a plant; knows nothing about what a law computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from steerlib.errors import NotFiniteError

if TYPE_CHECKING:
    from steerlib.plant import Plant


class Watch(LogitsProcessor):
    """Remember at which steps of a generation the logits of which rows were no numbers; goes before all sampling.

    Attributes:
        broken: one tensor (rows,) for each step, where the logits are.
    """

    def __init__(self) -> None:
        """Nothing has been seen yet."""
        self.broken: list[Tensor] = []

    def __call__(self, input_ids: Int[Tensor, "rows time"], scores: Tensor) -> Tensor:  # noqa: ARG002 - as it is called
        """The scores as they are."""
        self.broken.append(not_numbers(scores))
        return scores

    def check(self, plant: Plant, new: Int[Tensor, "rows new"], ends: Iterable[int]) -> None:
        """Refuse answers that were chosen from no numbers; what follows the end of an answer does not count.

        Args:
            plant: with the law still attached.
            new: the tokens that were chosen.
            ends: tokens that end an answer.

        Raises:
            NotFiniteError: names the law, its strength and the precision.
        """
        stops = torch.isin(new, torch.tensor(list(ends), device=new.device, dtype=new.dtype))
        over = stops.cumsum(1) - stops.long() > 0
        broken = (torch.stack([step.to(new.device) for step in self.broken], 1) & ~over).cpu()
        if broken.any():
            first = int(broken.any(0).long().argmax())
            raise not_finite(
                plant, f"generation: {int(broken.any(1).sum())} of {len(new)} answers, from token {first} on"
            )


def not_numbers(logits: Float[Tensor, "*batch vocabulary"]) -> Tensor:
    """Where a softmax would give no numbers. Minus infinity besides finite logits is a token that is ruled out."""
    return ~torch.isfinite(logits.amax(-1))  # the largest is NaN where any is


def check_logits(plant: Plant, logits: Float[Tensor, "rows *time vocabulary"], real: Tensor | None = None) -> Tensor:
    """Logits, once it is known that a softmax of them gives numbers. Waits for the device.

    Args:
        plant: with the law still attached.
        logits: of the last token of each text, or of all its tokens.
        real: (rows, time), which tokens are no padding; what is computed at padding does not count.

    Raises:
        NotFiniteError: names the law, its strength and the precision.
    """
    wrong = not_numbers(logits)
    if real is not None:
        wrong = (wrong & real.to(wrong.device).bool()).any(1)
    broken = int(wrong.sum())
    if broken:
        raise not_finite(plant, f"logits: {broken} of {len(logits)} texts")
    return logits


def check_logprobs(plant: Plant, found: Float[Tensor, " rows"]) -> Tensor:
    """Log probabilities, on the CPU, once it is known that they are numbers.

    Raises:
        NotFiniteError: names the law, its strength and the precision.
    """
    broken = int(found.isnan().sum())
    if broken:
        raise not_finite(plant, f"log probabilities: {broken} of {len(found)} texts")
    return found


def not_finite(plant: Plant, where: str) -> NotFiniteError:
    """The error that says what is attached and what to do."""
    name, largest = str(plant.dtype).removeprefix("torch."), torch.finfo(plant.dtype).max
    acting = [_named(site, law) for site, law in plant.wiring.attached() if getattr(law, "acts", True)]
    if not acting:
        return NotFiniteError(
            f"{where}: the logits are not finite, and no law is attached. Likely cause: the plant itself leaves the "
            f"range of {name} (largest {largest:.3g}). Fix: load it in float32 or bfloat16, or look at its weights."
        )
    return NotFiniteError(
        f"{where}: the logits are not finite under {' and '.join(dict.fromkeys(acting))}. Likely cause: what is added "
        f"leaves the range of {name} (largest {largest:.3g}) in a later block. Fix: a smaller strength, or float32."
    )


def _named(site: Any, law: Any) -> str:
    strength = getattr(law, "strength", None)
    of = f" of strength {float(strength):.4g}" if isinstance(strength, Tensor) else ""
    kind = type(law).__name__ if isinstance(law, torch.nn.Module) else "a function"
    return f"{kind}{of} at {site}"
