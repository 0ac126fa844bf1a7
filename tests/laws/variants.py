"""Every registered law in every variant that has a name of its own: what the contracts are asked of.

A law that is registered and absent here fails `test_contracts.py`. The first variant of a law is the one that the
costly contracts are asked of (compiled generation, several families), as is the first of each of its stacks, where the
families alone decide; the others are asked of one family.
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
        layers: blocks, one law for each, as a stack; empty for one law.
        sequential: whether the laws of a stack are fitted in order of depth.
    """

    law: str
    options: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "generated"
    strength: float = 1.0
    layers: tuple[int, ...] = ()
    sequential: bool = False

    def __str__(self) -> str:
        """For the names of tests."""
        options = [f"{name}={value}" for name, value in self.options.items()]
        stacked = ["layers=" + "".join(map(str, self.layers))] * bool(self.layers) + ["in-turn"] * self.sequential
        return "-".join([self.law, *options, *stacked])


def _of(law: str, *options: dict[str, Any], **use: Any) -> tuple[Variant, ...]:
    return tuple(Variant(law, given, **use) for given in options or ({},))


#: Options that make training short, and few steps, for each of which a compiler traces the field anew: the contracts do
#: not ask how good a network or a path is.
_SHORT_TURN = {"passes": 3}
_SHORT_FLOW = {"updates": 20, "steps": 2}
_SHORT_VALUE = {"passes": 10, "rate": 5e-3, "alpha": 1.0}

#: Small sketches: the contracts do not ask how near they are to the kernel.
_SMALL_SKETCH = {"dimension": 256, "gamma": 1.0}

#: Few Jacobians: the contracts do not ask how good a linear model is.
_SHORT_LQR = {"prompts": 2, "setpoint": 3.0}

VARIANTS: tuple[Variant, ...] = (
    *_of("a-lqr", _SHORT_LQR, {**_SHORT_LQR, "jacobian": "mean", "form": "full", "precision": "float32"}, strength=3.0),
    *_of("a-lqr", {"gain": "proportional", "reference": "centred"}, scope="last", strength=0.5),
    *_of("a-lqr", {"model": "identity", "reference": "fixed", "q": [1.0] * 32}, scope="all"),
    *_of("actadd", {}, {"positions": 2}, {"prompts": ("w7 w9", "w11"), "filler": " w5"}, scope="prefill"),
    *_of("angular-steering", {"angle": 30.0}, {"angle": 200.0, "when": "aligned"}),
    *_of("angular-steering", {"angle": 0.0, "when": "opposed", "measure": "raw", "feature": "most-similar"}),
    *_of("difference-of-means", {}, strength=3.0),
    *_of("difference-of-means", {"scale": "unit"}, strength=20.0),
    *_of("difference-of-means", layers=(0, 2), strength=2.0),
    *_of("difference-of-means", {"scale": "unit"}, layers=(0, 1, 2), sequential=True, strength=10.0),
    *_of("half-space-projection", {"setpoint": 0.001}, {"setpoint": 0.0003, "standardise": True}),
    *_of("householder-rotation", _SHORT_TURN, {**_SHORT_TURN, "layers": 1, "held_out": 0.0}),
    *_of("conditional", {"behaviour": "difference-of-means"}, strength=3.0),
    *_of(
        "conditional",
        {"behaviour": "repe", "vector": "mean-difference", "read": "mean", "condition_layer": 0},
        strength=15.0,
    ),
    *_of("iti", {"num_heads": 3}, {"num_heads": 2, "direction": "probe"}, scope="last", strength=8.0),
    *_of("iti", {"num_heads": 3, "direction": "random", "ranking": "random"}, scope="last", strength=8.0),
    *_of("linear-act", {}, {"position": "last", "support": "none"}, {"support": "q_5_95", "matching": "truncate"}),
    *_of("linear-act", layers=(0, 1, 2), sequential=True),
    *_of("linear-probe", {}, {"scale": "sigma", "c": 0.5, "standardise": True}, strength=20.0),
    *_of("mean-act", {}, {"support": "q_0_100"}),
    *_of("mimic", {}, {"gate": "none"}, {"reg": 1.0, "reg_scale": "relative"}),
    *_of(
        "odesteer",
        {**_SMALL_SKETCH, "steps": 2},
        {**_SMALL_SKETCH, "steps": 2, "route": "sketch", "solver": "midpoint"},
        {**_SMALL_SKETCH, "steps": 2, "route": "matrix", "solver": "geodesic", "guard": "released"},
        {"barrier": "gaussian", "normalise": False, "steps": 5, "solver": "bosh3", "tolerance": 0.1},
        {"barrier": "fourier", "dimension": 64, "steps": 1, "solver": "rk4"},
        {"barrier": "neural", "hidden": 8, "updates": 40, "steps": 2},
        strength=15.0,
    ),
    *_of("odesteer", {"barrier": "means", "normalise": False, "field": "gradient", "steps": 1}, strength=3.0),
    *_of("cbf", {**_SMALL_SKETCH, "margin": 1.0, "steps": 2}, {"barrier": "linear", "normalise": False, "margin": 9.0}),
    *_of(
        "pid-act",
        {},
        {"sequential": False},
        {"history": "mean", "pushed": "negative", "position": "last"},
        scope="all",
        strength=2.0,
    ),
    *_of("random-direction", {}, {"seed": 5}, strength=3.0),
    *_of("re-control", {**_SHORT_VALUE, "steps": 6}, strength=40.0),
    *_of(
        "re-control",
        {**_SHORT_VALUE, "steps": 4, "layers": 3, "radius": 0.3, "fallback": True, "form": "plain"},
        strength=40.0,
    ),
    *_of(
        "re-control",
        {**_SHORT_VALUE, "alpha": 0.3, "steps": 5, "goal": 2.0, "tolerance": 0.1, "target": "monte-carlo"},
        strength=20.0,
    ),
    *_of("repe", {}, {"variant": "unpaired"}, {"variant": "as-compared"}, strength=20.0),
    *_of(
        "s-pid",
        {"setpoint": 3.0},
        {"kp": 0.0, "ki": 0.3, "kd": 0.1, "windup": "conditional", "limit": 0.5},
        scope="last",
    ),
    *_of("static-re", {"scale": "unit"}, {"scale": "unit", "rewards": "labels"}, strength=20.0),
    *_of("static-re", {"ridge": 1.0}, strength=300.0),
    *_of("truthflow", _SHORT_FLOW, {**_SHORT_FLOW, "solver": "midpoint", "scaled": False, "k": 3}, strength=3.0),
    *_of("truthflow", _SHORT_FLOW, layers=(0, 2), strength=3.0),
)
#: Laws whose contracts are asked of every family: a constant push, an affine map of the state, one that remembers.
EVERYWHERE = ("difference-of-means", "linear-act", "truthflow")
