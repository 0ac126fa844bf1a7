"""Conditional steering (CAST, Lee et al. 2025): a sensor reads the prompt once and decides whether a law may act.

At a condition layer the state h of the prompt is compared with its projection on a condition vector c,

    s(h) = cos(h, P h),    P = c c^T / c^T c,

and where s is above (or below) a threshold, a behaviour law acts on that row for the whole answer; other rows stay
bit for bit those of the unsteered plant. In the control view: feedforward gating, an open loop behind a switch.

Since P h points along c or against it, s = |cos(h, c)|, which cannot tell c from -c. The released code
(IBM/activation-steering, commit d5f4412, leash_layer.py) squashes each coordinate of P h by tanh first, and averages h
over the prompt by default; the text has neither by name. All are options here. It searches the threshold on a grid,
this file among all cuts between observed values; its condition stays met for good once it was, here each prompt counts
for itself, in batches too.

A threshold that is never, or always, met makes the law that of nothing, or of its behaviour alone; `notes` says so.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal, Self, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlib.actuator import Pass, Point, Site, prompt_ends
from steerlib.control.principal import first_direction
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, Law, Source, norm_or_raise
from steerlib.laws.stack import Stack

Vector = Literal["pca", "pca-pairs", "mean-difference"]
Read = Literal["last", "mean"]
Similarity = Literal["projection", "tanh"]
Side = Literal["above", "below"]

#: Looked up by name and not imported: a cell would else depend on the code of every law there is.
#: `steerlib.experiment.cells` counts that of the behaviour.
_REGISTRY = "steerlib.registry"


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
            if got not in get_args(known):
                raise LawError(f"{name}: got {got!r}, expected {' or '.join(map(repr, get_args(known)))}.")
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
        norm = norm_or_raise(direction, f"condition vector ({self.kind})", ["both classes hold the same states"])
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


class Gated(Law):
    """A law that acts only on rows whose prompt met a condition.

    Args:
        behaviour: registered name of the law.
        behaviour_options: arguments of its constructor.
    """

    sees_pass = True

    def __init__(self, *, behaviour: str, behaviour_options: dict[str, Any] | None = None) -> None:
        """Make the law; see `steerlib.registry.LAWS`."""
        super().__init__()
        kind = importlib.import_module(_REGISTRY).law_class(behaviour)
        if not issubclass(kind, Law):
            raise LawError(f"behaviour: {behaviour!r} acts at sites of its own. Fix: a law of one site.")
        self.behaviour, self.behaviour_options = behaviour, dict(behaviour_options or {})
        self.law = kind(**self.behaviour_options)
        self.latch = Latch()

    def options(self) -> dict[str, Any]:
        """The law behind the gate."""
        return {"behaviour": self.behaviour, "behaviour_options": self.behaviour_options}

    def at(self, strength: float) -> Self:
        """Set the strength of the law behind the gate."""
        super().at(strength)
        self.law.at(strength)
        return self

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The input of the law, its gate open: a state alone does not say what the prompt was."""
        return self.law.input(state)

    def forward(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The law's state, its gate open."""
        return self.law(state)

    def during(self, state: Float[Tensor, "batch time width"], now: Pass) -> Float[Tensor, "batch time width"]:
        """The law's state in rows that met the condition.

        Raises:
            LawError: if a pass continues answers whose prompts the condition has not read.
        """
        met = self.latch.met
        if met is None or met.shape[0] != state.shape[0]:
            got = "no prompt" if met is None else f"{met.shape[0]} prompts"
            raise LawError(
                f"Conditional: got a pass over {state.shape[0]} rows after the condition read {got}. "
                "Fix: attach the law before the prompts are read."
            )
        steered = self.law.during(state, now) if self.law.sees_pass else self.law(state)
        return torch.where(met.to(state.device)[:, None, None], steered, state)

    def fit(self, contrast: Contrast) -> Self:
        """Fit the law behind the gate."""
        self.law.fit(contrast)
        self.header = self.law.header
        return self

    def fit_from(self, source: Source) -> Self:
        """Fit the law behind the gate on what it asks for."""
        self.law.fit_from(source)
        self.header = self.law.header
        return self


class Conditional(Stack):
    """A behaviour law that acts only where the prompt meets a condition.

    The behaviour acts where the source says; the condition is read there, too, or at an earlier site. `fit` takes two
    contrasts, that of the condition first.

    Args:
        behaviour: registered name of the law behind the gate; without a default, so that a cell always names it.
        behaviour_options: arguments of its constructor.
        condition_layer: where the prompt is read; None for the layer at which the behaviour acts.
        condition_point: see `Site`.
        vector: see `Condition`.
        read: see `Condition`.
        similarity: see `Condition`.
        threshold: see `Condition`.
        side: see `Condition`.
        strength: multiplier of the behaviour's input.
    """

    def __init__(
        self,
        *,
        behaviour: str,
        behaviour_options: dict[str, Any] | None = None,
        condition_layer: int | None = None,
        condition_point: Point = "resid_post",
        vector: Vector = "pca",
        read: Read = "last",
        similarity: Similarity = "projection",
        threshold: float | None = None,
        side: Side | None = None,
        strength: float = 1.0,
    ) -> None:
        """Make sensor and gate, one latch between them."""
        condition = Condition(vector=vector, read=read, similarity=similarity, threshold=threshold, side=side)
        gated = Gated(behaviour=behaviour, behaviour_options=behaviour_options)
        super().__init__([condition, gated], strength=strength)
        self.condition_layer = condition_layer
        self.condition_point: Point = condition_point
        self._linked()

    def options(self) -> dict[str, Any]:
        """Those of sensor and gate, and where the prompt is read."""
        where = {"condition_layer": self.condition_layer, "condition_point": self.condition_point}
        return {**self.gated.options(), **where, **self.condition.options()}

    @property
    def condition(self) -> Condition:
        """The sensor."""
        return self.parts[0]  # type: ignore[return-value]

    @property
    def gated(self) -> Gated:
        """The law behind the gate."""
        return self.parts[1]  # type: ignore[return-value]

    @property
    def notes(self) -> list[str]:
        """What is to be known of the condition before the law is used; empty if it does its work."""
        act, leave = self.condition.shares.tolist()
        if not len(self.condition.vector):
            return ["the condition is not fitted"]
        if act == leave == 0:
            return ["the condition was never met on what it was fitted on: the law does nothing there"]
        if act == leave == 1:
            return ["the condition was always met on what it was fitted on: the law is its behaviour alone"]
        if act <= leave:
            return [f"the condition was met by {act:.0%} of the prompts to act on and {leave:.0%} of the others"]
        return []

    def fit_from(self, source: Source) -> Self:
        """Fit the condition on the source's prompts to act on and to leave alone, and the behaviour as it asks.

        Raises:
            LawError: if the condition would be read after the behaviour has acted.
        """
        depth = source.plant.depth
        site = source.site.resolve(depth)
        where = site
        if self.condition_layer is not None:
            where = Site(self.condition_layer, self.condition_point).resolve(depth)
        if where.order > site.order:
            raise LawError(f"condition at {where}, behaviour at {site}: expected the condition first, or both at one.")
        self.condition.fit(source.conditions([where], read=self.condition.read)[0])
        self.gated.fit_from(source)
        return self

    def _linked(self) -> None:
        self.condition.latch = self.gated.latch = Latch()
