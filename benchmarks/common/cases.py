"""Every registered law as the benchmarks of laws run it: in its main variants, and against which target.

Knows names, options and targets. Knows nothing about how anything is measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import steerlib
from steerlib.closure import import_closure
from steerlib.errors import SteerlibError, unknown
from steerlib.files import sha256
from steerlib.registry import LAWS

Group = Literal["additive", "affine", "other"]
Measured = Literal["fit", "decode"]
#: Seconds that a fit may take; a law that trains networks or a probe for every head has no target.
FIT_TARGET = 10.0
#: Tokens per second at batch 64, as a share of the unsteered plant's. A push along a probe's normal is additive.
DECODE_TARGET: dict[Group, float] = {"additive": 0.97, "affine": 0.97, "other": 0.93}


@dataclass(frozen=True)
class Case:
    """A law in one of its variants.

    Attributes:
        law: registered name.
        group: what its input is like, which decides what a token may cost.
        options: arguments of the constructor.
        scope: name of the token scope it is meant for.
        layer: block at which it is asked to act on a plant; None for the middle one.
        every_block: one law at each block, as a stack, in place of one law at one block; no target is about that.
        measured: what is asked of it: how long it takes to "fit", what it costs to "decode".
        trained: whether it is no part of the target for fits.
        short: further options that cut training short, for when only decoding is measured.
    """

    law: str
    group: Group
    options: Mapping[str, Any] = field(default_factory=dict)
    scope: str = "generated"
    layer: int | None = None
    every_block: bool = False
    measured: tuple[Measured, ...] = ("fit", "decode")
    trained: bool = False
    short: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Name in tables; no two cases share one."""
        words = [f"{name}={value}" for name, value in self.options.items()] + ["every block"] * self.every_block
        return " ".join([self.law, *words])

    @property
    def places(self) -> list[str]:
        """Dotted names of the law and of one behind it."""
        behind = [str(value) for name, value in self.options.items() if name == "behaviour"]
        return [LAWS[name] for name in (self.law, *behind)]

    @property
    def decode_target(self) -> float | None:
        """Least ratio at batch 64; None where there is no target."""
        return None if self.every_block else DECODE_TARGET[self.group]


_FIT: tuple[Measured, ...] = ("fit",)
_DECODE: tuple[Measured, ...] = ("decode",)
CASES: tuple[Case, ...] = (
    Case("difference-of-means", "additive"),
    Case("random-direction", "additive"),
    Case("actadd", "additive", scope="prefill"),
    Case("static-re", "additive"),
    Case("static-re", "additive", {"ridge": 0.0}, measured=_FIT),
    Case("repe", "additive"),
    Case("repe", "additive", {"variant": "unpaired"}, measured=_FIT),
    Case("repe", "additive", {"variant": "as-compared"}, measured=_FIT),
    Case("linear-probe", "additive"),
    Case("linear-probe", "additive", {"standardise": True}, measured=_FIT),
    Case("linear-probe", "additive", {"scale": "sigma"}, measured=_FIT),
    Case("mean-act", "affine"),
    Case("mean-act", "affine", {"support": "q_0_100"}),
    Case("mean-act", "affine", every_block=True, measured=_DECODE),
    Case("linear-act", "affine"),
    Case("linear-act", "affine", {"position": "last", "support": "none", "matching": "truncate"}),
    Case("linear-act", "affine", every_block=True, measured=_DECODE),
    Case("mimic", "affine"),
    Case("mimic", "affine", {"gate": "none"}),
    Case("mimic", "affine", {"reg_scale": "relative", "reg": 1e-3}, measured=_FIT),
    Case("angular-steering", "other"),
    Case("angular-steering", "other", {"measure": "raw", "feature": "most-similar"}, measured=_FIT),
    Case("angular-steering", "other", {"when": "opposed"}, measured=_DECODE),
    Case("half-space-projection", "other"),
    Case("half-space-projection", "other", {"standardise": True}, measured=_FIT),
    Case("conditional", "other", {"behaviour": "difference-of-means"}),
    Case("iti", "additive", {"num_heads": 4}, scope="last", layer=-1, trained=True),
    Case(
        "iti",
        "additive",
        {"num_heads": 4, "direction": "probe"},
        scope="last",
        layer=-1,
        measured=_FIT,
        trained=True,
    ),  # fmt: skip
    Case("truthflow", "other", trained=True, short={"updates": 20}),
    Case("householder-rotation", "other", trained=True, short={"passes": 1}),
    # Jacobians have a benchmark of their own: here the recursion is timed without them.
    Case("a-lqr", "other", {"model": "identity"}, layer=-1, measured=_FIT),
    Case("a-lqr", "other", {"prompts": 4}, layer=-1, measured=_DECODE),
    Case("a-lqr", "other", {"form": "full", "prompts": 4}, layer=-1, measured=_DECODE),
    Case("s-pid", "other", layer=-1),
    Case("pid-act", "additive", {"sequential": False}, scope="all", layer=-1),
    Case("odesteer", "other", short={"dimension": 512}),
    Case("odesteer", "other", {"route": "sketch"}, measured=_DECODE),
    Case("odesteer", "other", {"steps": 1}, measured=_DECODE, short={"dimension": 512}),
    Case("cbf", "other", {"barrier": "linear", "normalise": False}),
    Case("re-control", "other", {"passes": 1, "batch": 512}, trained=True),
)


def chosen(measured: Measured, laws: Sequence[str], skipped: Sequence[str]) -> list[Case]:
    """The cases of which something is measured, of some laws or of all, without some.

    Args:
        measured: what is measured.
        laws: names of laws or of cases; all if there are none.
        skipped: likewise, to be left out.

    Raises:
        SteerlibError: for a name that is neither.
    """
    found = [case for case in CASES if measured in case.measured]
    known = list(dict.fromkeys([*LAWS, *map(str, found)]))
    for name in (*laws, *skipped):
        if name not in known:
            raise SteerlibError(unknown("law", name, known))
    names = set(laws or known)
    return [case for case in found if {case.law, str(case)} & names and not {case.law, str(case)} & set(skipped)]


def code_of(*names: str) -> str:
    """Hash of the sources behind dotted names: when it changes, what was measured is of other code."""
    root = Path(steerlib.__file__).resolve().parents[1]
    marks = [f"{path.relative_to(root)} {sha256(path)}" for path in import_closure(root, set(names))]
    return hashlib.sha256("\n".join(marks).encode()).hexdigest()[:16]
