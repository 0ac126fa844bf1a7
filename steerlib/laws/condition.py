"""The sensor of conditional steering: is this prompt one on which a law should act?

Reads each prompt once and compares it with a vector; see `steerlib.laws.conditional` for the formulas, the papers and
where text and released code differ. Knows nothing about the law that waits for its word.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlib.actuator import Pass, prompt_ends
from steerlib.control.principal import first_direction
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, Law, norm_or_raise, one_of

Vector = Literal["pca", "pca-pairs", "mean-difference"]
Read = Literal["last", "mean"]
Similarity = Literal["projection", "tanh"]
Side = Literal["above", "below"]


class Latch:
    """What the condition said about each row's prompt; shared by the sensor and the gate, and no part of a file."""

    def __init__(self) -> None:
        """Nothing has been read yet."""
        self.met: Bool[Tensor, " batch"] | None = None


class Condition(Law):
    """The sensor: reads each prompt once, remembers whether the condition is met, and changes nothing.

    Args:
        vector: "pca", first principal component of all states about the midpoint of the class means; "pca-pairs", the
            same with each pair about its own midpoint (the released code, which pairs texts in their order);
            "mean-difference".
        read: which state speaks for a prompt: of its "last" token, or the "mean" over its tokens.
        similarity: "projection", as in the text, or "tanh", as released.
        threshold: of the similarity; None chooses the cut with the best F1 on what the condition is fitted on.
        side: on which side of the threshold the condition is met; None chooses it with the threshold.

    Attributes:
        f1: F1 of the condition on what it was fitted on.
        shares: share of the prompts to act on, and of those to leave alone, that met it.
    """

    sees_pass = True
    acts = False
    vector: Float[Tensor, " width"]
    threshold: Float[Tensor, ""]
    above: Bool[Tensor, ""]
    f1: Float[Tensor, ""]
    shares: Float[Tensor, " classes"]

    def __init__(
        self,
        *,
        vector: Vector = "pca",
        read: Read = "last",
        similarity: Similarity = "projection",
        threshold: float | None = None,
        side: Side | None = None,
    ) -> None:
        """Choose what is read and compared."""
        super().__init__()
        given = {"vector": (vector, Vector), "read": (read, Read), "similarity": (similarity, Similarity)}
        for name, (got, known) in (given | ({"side": (side, Side)} if side is not None else {})).items():
            one_of(name, got, known)
        if threshold is not None and (side is None or not -1.0 <= float(threshold) <= 1.0):
            raise LawError(
                f"threshold: got {threshold} with side={side}; a cosine lies between -1 and 1, and a threshold needs "
                "a side, 'above' or 'below'."
            )
        self.kind, self.similarity, self.given = vector, similarity, threshold
        self.side: Side | None = side
        self.read: Read = read
        self.latch = Latch()
        self.register_buffer("vector", torch.empty(0))
        self.register_buffer("threshold", torch.tensor(0.0))
        self.register_buffer("above", torch.tensor(True))
        self.register_buffer("f1", torch.tensor(0.0))
        self.register_buffer("shares", torch.zeros(2))

    def options(self) -> dict[str, Any]:
        """What is read and compared."""
        return {
            "vector": self.kind, "read": self.read, "similarity": self.similarity, "threshold": self.given,
            "side": self.side,
        }  # fmt: skip

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Nothing is added."""
        return torch.zeros_like(state)

    def forward(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The state itself."""
        return state

    def similarities(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch"]:
        """Similarity of states to the condition vector; 0 for a state of zero.

        Raises:
            LawError: if the condition has not been fitted, or was fitted for another width.
        """
        if self.vector.shape[0] != state.shape[-1]:
            held = f"a vector of width {self.vector.shape[0]}" if len(self.vector) else "no vector: it is not fitted"
            raise LawError(f"Condition: holds {held}; the state has width {state.shape[-1]}. Fix: fit it.")
        state = state.float()
        along = state @ self.vector  # c has length 1
        if self.similarity == "tanh":
            projected = torch.tanh(along[..., None] * self.vector)
            return torch.nn.functional.cosine_similarity(state, projected, dim=-1)
        return along.abs() / state.norm(dim=-1).clamp_min(torch.finfo(state.dtype).tiny)

    def met_by(self, state: Float[Tensor, "*batch width"]) -> Bool[Tensor, "*batch"]:
        """Whether states meet the condition."""
        return self._meets(self.similarities(state))

    def _meets(self, found: Float[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
        return torch.where(self.above, found > self.threshold, found < self.threshold)

    def during(self, state: Float[Tensor, "batch time width"], now: Pass) -> Float[Tensor, "batch time width"]:
        """Read the prompts when they pass."""
        if not now.decoding:
            self.latch.met = self.met_by(self._prompt(state, now))
        return state

    def _prompt(self, state: Float[Tensor, "batch time width"], now: Pass) -> Float[Tensor, "batch width"]:
        """The state that speaks for each prompt."""
        shape = (state.shape[0], state.shape[1])
        ends = prompt_ends(now, shape, state.device)
        if self.read == "last":
            return state[torch.arange(shape[0], device=state.device), ends]
        columns = torch.arange(shape[1], device=state.device)
        counted = columns <= ends[:, None]
        counted = counted if now.real is None else counted & now.real
        # Padding may hold anything, not a number included: it is replaced, not multiplied by zero.
        kept = torch.where(counted[..., None], state.float(), 0.0)
        return kept.sum(1) / counted.sum(1, keepdim=True)

    def fit(self, contrast: Contrast) -> Self:
        """Set vector, threshold and side.

        Args:
            contrast: states of prompts to act on (positive) and of prompts to leave alone, read as the law reads them.

        Raises:
            LawError: if there is no vector, or all prompts are equally similar to it.
        """
        act, leave = (states.double() for states in contrast)
        if self.kind == "mean-difference":
            direction = act.mean(0) - leave.mean(0)
        elif self.kind == "pca":
            direction = first_direction(torch.cat([act, leave]) - (act.mean(0) + leave.mean(0)) / 2, centred=False)
        else:
            count = min(len(act), len(leave))
            direction = first_direction(act[:count] - leave[:count], centred=False)
        causes = ["both classes hold the same states"]
        beside = contrast.largest if self.kind == "mean-difference" else 0.0  # components have length 1, or none
        norm = norm_or_raise(direction, f"condition vector ({self.kind})", causes, beside=beside)
        self.vector = (direction / norm).float()
        found = [self.similarities(states) for states in contrast]
        threshold, side = self.given, self.side
        if threshold is None:
            threshold, side = best_cut(*found, side=side)
        self.threshold = torch.tensor(float(threshold), device=act.device)
        self.above = torch.tensor(side == "above", device=act.device)
        met = [self._meets(values).double() for values in found]
        hits, alarms = met[0].sum(), met[1].sum()
        self.f1 = (2 * hits / (hits + alarms + len(act))).float()
        self.shares = torch.stack([each.mean() for each in met]).float()
        self.header = contrast.header
        return self


def best_cut(
    act: Float[Tensor, " positives"], leave: Float[Tensor, " negatives"], *, side: Side | None = None
) -> tuple[float, Side]:
    """The threshold and side with the best F1 for telling prompts to act on from those to leave alone.

    Among all cuts between neighbouring values; of equally good ones that in the widest gap, "above" before "below".

    Raises:
        LawError: if all values are equal.
    """
    values, order = torch.cat([act, leave]).double().sort()
    wanted = torch.cat([torch.ones_like(act), torch.zeros_like(leave)]).double()[order]
    gaps = values.diff()
    if len(gaps) == 0 or gaps.max() <= 0:
        raise LawError(
            f"condition: all {len(values)} prompts have the similarity {float(values[0]):.4g}, so no threshold tells "
            "them apart. Likely cause: constant states, or a vector along which nothing differs."
        )
    below = wanted.cumsum(0)[:-1]  # to act on, below each cut
    count = torch.arange(1, len(values), device=values.device, dtype=torch.float64)
    best: tuple[float, float, float, Side] | None = None
    for name in ("above", "below"):
        if side not in (None, name):
            continue
        hits, met = (wanted.sum() - below, len(values) - count) if name == "above" else (below, count)
        score = torch.where(gaps > 0, 2 * hits / (met + wanted.sum()), -1.0)
        at = int(torch.where(score >= score.max() - 1e-12, gaps, -1.0).argmax())
        found = (float(score[at]), float(gaps[at]), float((values[at] + values[at + 1]) / 2), name)
        best = found if best is None or found[0] > best[0] + 1e-12 else best  # type: ignore[assignment]
    assert best is not None
    return best[2], best[3]
