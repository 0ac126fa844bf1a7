"""Every registered law in every variant that has a name of its own: what the contracts are asked of.

A law that is registered and absent here fails `test_contracts.py`. The first variant of a law is the one that the
costly contracts (compiled generation, every family) are asked of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Variant:
    """A law, the arguments of its constructor, and how it is meant to be used.

    Attributes:
        law: registered name.
        options: arguments of the constructor.
        scope: which tokens it steers.
        strength: at which it changes the logits of random models visibly.
    """

    law: str
    options: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "generated"
    strength: float = 1.0

    def __str__(self) -> str:
        """For the names of tests."""
        return "-".join([self.law, *(f"{name}={value}" for name, value in self.options.items())])


def _of(law: str, *options: dict[str, Any], **use: Any) -> tuple[Variant, ...]:
    return tuple(Variant(law, given, **use) for given in options or ({},))


VARIANTS: tuple[Variant, ...] = (
    *_of("actadd", {}, {"prompts": ("w7 w9", "w11"), "filler": " w5"}, scope="prefill", strength=3.0),
    *_of("difference-of-means", {}, strength=3.0),
    *_of("difference-of-means", {"scale": "unit"}, strength=20.0),
    *_of("half-space-projection", {"setpoint": 0.01}),
    *_of("linear-probe", {}, {"scale": "sigma"}, {"standardise": True}, strength=20.0),
    *_of("random-direction", {}, {"seed": 5}, strength=3.0),
    *_of("repe", {}, {"variant": "unpaired"}, {"variant": "as-compared"}, strength=20.0),
    *_of("static-re", {"scale": "unit"}, strength=20.0),
    *_of("static-re", {}, {"rewards": "labels"}, strength=20.0),
)
#: Laws whose contracts are asked of every family: a constant push, an affine map of the state, one that remembers.
EVERYWHERE = ("difference-of-means",)
