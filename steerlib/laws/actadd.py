"""Push the first tokens of the prompt, once, each by its own vector (ActAdd, Turner et al. 2023).

z_k <- z_k + strength * v_k for the first tokens k of the prompt, while it is read; no generated token is touched.
The key-value cache carries the effect on.

Two ways to find the vectors, both position by position from the first token:

- Turner et al. subtract the states of two short prompts ("Love" and "Hate"), the shorter one filled up with spaces;
- Skifstad et al. (2026) compare with the difference of class means at each position, over 100 texts of each class.

The authors count the beginning-of-text token as a position; where a tokenizer writes one, its two states are equal and
its vector is zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.actuator import Pass, Point, Site, Transform
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, Law, Source, norm_or_raise

if TYPE_CHECKING:
    from steerlib.plant import Plant

#: Scopes in which the law acts as it was meant: on the prompt alone it is "prefill"; "all" includes the prompt.
SCOPES = ("prefill", "all")
_MOST_FILLERS = 256


class ActAdd(Law):
    """Add a vector to each of the first tokens of the prompt, counted from the first real token.

    A bare call takes the second to last dimension of the state as positions, the first row as the first token.

    Args:
        prompts: two texts whose states are subtracted, the wanted one first; None for class means of the task's texts.
        positions: how many first positions get a vector; None for as many as all texts have.
        filler: what the shorter of two prompts is filled up with, on the right, until both have as many tokens.
        strength: multiplier of the vectors.
    """

    sees_pass = True
    vectors: Float[Tensor, "positions width"]

    def __init__(
        self,
        *,
        prompts: Sequence[str] | None = None,
        positions: int | None = None,
        filler: str = " ",
        strength: float = 1.0,
    ) -> None:
        """Choose what is subtracted."""
        super().__init__(strength=strength)
        if prompts is not None and (isinstance(prompts, str) or len(prompts) != 2 or prompts[0] == prompts[1]):
            raise LawError(f"prompts: got {prompts!r}, expected two texts that differ, the wanted one first.")
        if positions is not None and (isinstance(positions, bool) or positions < 1):
            raise LawError(f"positions: got {positions!r}, expected at least 1, or None for as many as all texts have.")
        self.prompts = None if prompts is None else (prompts[0], prompts[1])
        self.positions, self.filler = positions, filler
        self.register_buffer("vectors", torch.empty(0, 0))

    def options(self) -> dict[str, Any]:
        """What is subtracted."""
        return {"prompts": self.prompts, "positions": self.positions, "filler": self.filler}

    # Fitting

    def fit(self, contrast: Contrast) -> Self:
        """One vector, for the first token: the difference of the class means."""
        return self.fit_positions([contrast])

    def fit_positions(self, contrasts: Sequence[Contrast]) -> Self:
        """One vector for each position: the difference of the class means there.

        Args:
            contrasts: one for each position, from the first token on.

        Raises:
            LawError: if there are none, or the classes differ at no position.
        """
        if not contrasts:
            raise LawError("ActAdd: got no positions, expected at least one. Fix: longer texts.")
        found = torch.stack([c.positive.double().mean(0) - c.negative.double().mean(0) for c in contrasts])
        causes = ["both classes begin alike in all of these positions: more positions", "the same texts in both"]
        largest = max(contrast.largest for contrast in contrasts)
        norm_or_raise(found.flatten(), "differences by position", causes, beside=largest)
        self.vectors, self.header = found.float(), contrasts[0].header
        return self

    def fit_from(self, source: Source) -> Self:
        """Fit on states at the first positions: of the two prompts, or of the texts of both classes.

        Raises:
            LawError: if the scope leaves the prompt out, or two prompts cannot be made equally long.
        """
        if source.scope not in SCOPES:
            raise LawError(
                f"ActAdd: got scope {source.scope!r}, but it acts on the first tokens of the prompt. "
                "Fix: scope='prefill'."
            )
        texts = None if self.prompts is None else self._level(source)
        return self.fit_positions(source.by_position([source.site], positions=self.positions, texts=texts)[0])

    def _level(self, source: Source) -> tuple[list[str], list[str]]:
        """Both prompts, the shorter one filled up until they have as many tokens."""
        assert self.prompts is not None
        wanted, other = self.prompts
        for _ in range(_MOST_FILLERS):
            first, second = source.plant.encode([wanted, other]).lengths.tolist()
            if first == second:
                return [wanted], [other]
            if first < second:
                wanted += self.filler
            else:
                other += self.filler
        raise LawError(
            f"prompts: {self.prompts[0]!r} and {self.prompts[1]!r} do not get as many tokens each by adding "
            f"{self.filler!r}. Fix: another filler, or prompts of as many tokens."
        )

    # Running

    def entries(
        self, plant: Plant, *, layer: int | None = None, point: Point | None = None
    ) -> list[tuple[Site, Transform, str]]:
        """As every law, but on the prompt: in the scope of others hardly one of the first tokens would be pushed."""
        found = super().entries(plant, layer=layer, point=point)
        return [(site, part, scope if scope in SCOPES else SCOPES[0]) for site, part, scope in found]

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*#batch width"]:
        """The vector of each row, counted from the first; zero where there is none.

        Raises:
            LawError: if the law has not been fitted, or was fitted for another width.
        """
        self._check_width(state)
        if state.dim() == 1:
            return self.vectors[0]
        missing = state.shape[-2] - self.vectors.shape[0]
        return torch.nn.functional.pad(self.vectors, (0, 0, 0, missing))  # cuts, where it is negative

    def during(self, state: Float[Tensor, "batch time width"], now: Pass) -> Float[Tensor, "batch time width"]:
        """The steered state of a pass: nothing while decoding, else the first real tokens of each row's prompt."""
        self._check_width(state)
        if now.decoding:
            return state
        shape = (state.shape[0], state.shape[1])
        real = now.real if now.real is not None else torch.ones(shape, dtype=torch.bool, device=state.device)
        ordinal = real.cumsum(1)  # 1 for the first real token of a row
        held = self.vectors.shape[0]
        pushed = real & (ordinal <= held)
        if now.prompt_lengths is not None:
            pushed = pushed & (ordinal <= now.prompt_lengths[:, None])
        push = self.vectors[(ordinal - 1).clamp(0, held - 1)]
        return torch.where(pushed[..., None], self.moved(state, push), state)

    def _check_width(self, state: Tensor) -> None:
        if self.vectors.shape[1] != state.shape[-1]:
            held = f"vectors of width {self.vectors.shape[1]}" if len(self.vectors) else "no vectors: it is not fitted"
            raise LawError(f"ActAdd: holds {held}; the state has width {state.shape[-1]}. Fix: fit it.")
