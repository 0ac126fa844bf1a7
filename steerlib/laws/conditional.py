"""Conditional steering (CAST, Lee et al. 2025): a sensor reads the prompt once and decides whether a law may act.

At a condition layer the state h of the prompt is compared with its projection on a condition vector c,

    s(h) = cos(h, P h),    P = c c^T / c^T c,

and where s is above (or below) a threshold, a behaviour law acts on that row for the whole answer; other rows stay
bit for bit those of the unsteered plant. In the control view: feedforward gating, an open loop behind a switch.

Since P h points along c or against it, s = |cos(h, c)|, which cannot tell c from -c. The released code
(IBM/activation-steering, commit d5f4412, leash_layer.py) squashes each coordinate of P h by tanh first, and averages h
over the prompt by default; the text has neither by name. All are options here. It searches the threshold on a grid,
this file among all cuts between observed values; its condition stays met for good once it was, here each prompt counts
for itself, in batches too. It measures vectors at the output of a block, yet reads and pushes at its input, one block
earlier; here both are one site. It pushes every token, those of the prompt included: that is scope "all".

A threshold that is never, or always, met makes the law that of nothing, or of its behaviour alone; `notes` says so.
"""

from __future__ import annotations

import importlib
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.actuator import Pass, Point, Site
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, Law, Source
from steerlib.laws.condition import Condition, Latch, Read, Side, Similarity, Vector
from steerlib.laws.stack import Stack

#: Looked up by name and not imported: a cell would else depend on the code of every law there is.
#: `steerlib.experiment.cells` counts that of the behaviour.
_REGISTRY = "steerlib.registry"


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
