"""Language-model alignment as control: plants, actuators, sensors and control laws.

Names are loaded when first used, so that `import steerlib` costs nothing and reaches no network.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

# Public name -> module that defines it. The pipeline reads this table to know what a notebook depends on.
_EXPORTS: dict[str, str] = {
    "Plant": "steerlib.plant",
    "Site": "steerlib.actuator",
    "Scope": "steerlib.actuator",
    "record": "steerlib.recorder",
    "Contrast": "steerlib.laws.base",
    "Law": "steerlib.laws.base",
    "DifferenceOfMeans": "steerlib.laws.additive",
    "RandomDirection": "steerlib.laws.additive",
}

__all__ = ["Contrast", "DifferenceOfMeans", "Law", "Plant", "RandomDirection", "Scope", "Site", "record"]

try:
    __version__ = version("steerlib")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from steerlib.actuator import Scope, Site
    from steerlib.laws.additive import DifferenceOfMeans, RandomDirection
    from steerlib.laws.base import Contrast, Law
    from steerlib.plant import Plant
    from steerlib.recorder import record


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'steerlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
