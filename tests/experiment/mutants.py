"""Planted mutants: laws that a claim about behaviour must not survive.

Knows how a fitted law is spoilt without touching its own code. Knows nothing of tasks, plants or verdicts. A claim is
worth its verdict only if a law that does nothing, one that pushes the other way, and one at a block where its fit means
nothing, each turn "reproduced" into something else.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from steerlib.laws.base import Law


class _Mutant(Law):
    """A fitted law, spoilt: same strength, and same header unless said otherwise."""

    def __init__(self, law: Law, *, layer: int | None = None) -> None:
        if law.header is None:
            raise ValueError(f"{type(law).__name__}: got a law without a header, expected one fitted on a plant")
        super().__init__(strength=float(law.strength))
        self.law = law
        self.header = law.header if layer is None else replace(law.header, layer=layer)

    def input(self, state: Tensor) -> Tensor:
        return self.law.input(state)


class Idle(_Mutant):
    """Does nothing."""

    def input(self, state: Tensor) -> Tensor:
        return 0 * super().input(state)


class Flipped(_Mutant):
    """Pushes exactly the other way."""

    def input(self, state: Tensor) -> Tensor:
        return -super().input(state)


class Misplaced(_Mutant):
    """Pushes by its own rule, after another block than it was fitted for.

    Args:
        law: fitted.
        layer: where it acts instead.
    """

    def __init__(self, law: Law, *, layer: int) -> None:
        super().__init__(law, layer=layer)
        assert law.header is not None
        if layer == law.header.layer:
            raise ValueError(f"layer: got {layer}, where the law was fitted; expected another")


def mutants(law: Law, *, layer: int) -> dict[str, Law]:
    """Every mutant of a fitted law by name; the misplaced one acts after block ``layer``."""
    return {"idle": Idle(law), "flipped": Flipped(law), "misplaced": Misplaced(law, layer=layer)}
