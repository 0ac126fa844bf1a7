"""Constant pushes: difference of means, and the controls it is measured against.

Open loop: the input is a fixed vector, whatever the state.

Difference of means goes by several names: CAA (Rimsky et al. 2024) measures it at the answer token of paired
prompts and adds it at every token after the prompt; ActAdd (Turner et al. 2023) takes one pair of prompts;
Marks and Tegmark (2024) call it the mass-mean direction.

Negative controls: a random direction of equal norm, shuffled labels (`shuffled`), and the direction of another
behaviour or concept, for which any law is fitted on another task (`steerlib.experiment.methods.elsewhere`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.errors import ContrastError, LawError
from steerlib.laws.base import Contrast, Law, norm_or_raise, one_of

Scale = Literal["raw", "unit"]


class Additive(Law):
    """Add a constant vector: u(z) = v.

    Args:
        vector: v, in units of the residual stream; empty until fitted or loaded.
        strength: multiplier of v.
    """

    vector: Float[Tensor, " width"]

    def __init__(self, vector: Float[Tensor, " width"] | None = None, *, strength: float = 1.0) -> None:
        """Hold the vector as a buffer."""
        super().__init__(strength=strength)
        self.register_buffer("vector", torch.empty(0) if vector is None else vector.detach().clone())

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, " width"]:
        """The constant vector, for every state.

        Raises:
            LawError: if the law has not been fitted, or was fitted for another width.
        """
        if self.vector.shape[0] != state.shape[-1]:
            held = f"a vector of width {self.vector.shape[0]}" if len(self.vector) else "no vector: it is not fitted"
            raise LawError(f"{type(self).__name__}: holds {held}; the state has width {state.shape[-1]}. Fix: fit it.")
        return self.vector

    def _hold(self, vector: Float[Tensor, " width"], contrast: Contrast) -> Self:
        self.vector = vector.float()
        self.header = contrast.header
        return self


class DifferenceOfMeans(Additive):
    """Add the difference of the class means: u = mean(positive) - mean(negative).

    This is the gradient of the log-density ratio of two Gaussians with identity covariance (Zhao et al. 2026,
    Table 1), and one explicit Euler step of size `strength` along it (eq. 3 to 5).

    Args:
        scale: "raw" keeps the length of the difference, so that strength 1 moves the mean of one class onto that of
            the other; "unit" makes strength a length.
        strength: multiplier of the vector.
    """

    def __init__(self, *, scale: Scale = "raw", strength: float = 1.0) -> None:
        """Choose the unit of strength."""
        super().__init__(strength=strength)
        self.scale: Scale = one_of("scale", scale, Scale)

    def options(self) -> dict[str, Any]:
        """The unit of strength."""
        return {"scale": self.scale}

    def fit(self, contrast: Contrast) -> Self:
        """Measure the difference, in float64 so that large sets lose nothing.

        Raises:
            LawError: if the means are equal.
        """
        difference = contrast.positive.double().mean(0) - contrast.negative.double().mean(0)
        causes = ["both classes hold the same states", "wrong token"]
        norm = norm_or_raise(difference, "difference of means", causes, beside=contrast.largest)
        return self._hold(difference / norm if self.scale == "unit" else difference, contrast)


class RandomDirection(Additive):
    """Negative control: a direction drawn at random, as long as the difference of means of the same contrast.

    Args:
        seed: which direction.
        strength: multiplier of the vector.
    """

    def __init__(self, *, seed: int = 0, strength: float = 1.0) -> None:
        """Choose the direction."""
        super().__init__(strength=strength)
        self.seed = seed

    def options(self) -> dict[str, Any]:
        """Which direction."""
        return {"seed": self.seed}

    def fit(self, contrast: Contrast) -> Self:
        """Draw the direction; the contrast gives its length and place only.

        Raises:
            LawError: if the means are equal: a control of no length would be no law at all.
        """
        difference = contrast.positive.double().mean(0) - contrast.negative.double().mean(0)
        causes = ["both classes hold the same states", "wrong token"]
        norm = norm_or_raise(difference, "difference of means", causes, beside=contrast.largest)
        generator = torch.Generator().manual_seed(self.seed)
        draw = torch.randn(contrast.width, generator=generator, dtype=torch.float64)
        return self._hold((draw / draw.norm() * norm.cpu()).to(contrast.positive.device), contrast)


def shuffled(contrast: Contrast, *, seed: int, within_pairs: bool = False) -> Contrast:
    """Negative control: the same states with their labels shuffled. Any law can be fitted on it.

    Args:
        contrast: the states.
        seed: how they are shuffled.
        within_pairs: toss a coin for each pair instead, so that pairs stay pairs, for laws that need them.

    Raises:
        ContrastError: if pairs are to be kept and there are none.
    """
    generator = torch.Generator().manual_seed(seed)
    header = contrast.header
    if header is not None:
        mark = f"{header.data_hash} {'swapped' if within_pairs else 'shuffled'} {seed}"
        header = replace(header, data_hash=hashlib.sha256(mark.encode()).hexdigest())
    if within_pairs:
        if not contrast.paired:
            raise ContrastError("shuffled within pairs: got a contrast without pairs. Fix: within_pairs=False.")
        coins = torch.randint(2, (len(contrast.positive), 1), generator=generator).bool().to(contrast.positive.device)
        first = torch.where(coins, contrast.negative, contrast.positive)
        return Contrast(first, torch.where(coins, contrast.positive, contrast.negative), header, paired=True)
    states = torch.cat([contrast.positive, contrast.negative])
    order = torch.randperm(len(states), generator=generator).to(states.device)
    count = len(contrast.positive)
    return Contrast(states[order[:count]], states[order[count:]], header)
