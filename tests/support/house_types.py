"""Shapes, checked while testing: every call into steerlib whose annotations name the axes of a tensor.

pytest's option `--jaxtyping-packages` (in pyproject.toml) names the packages and puts it on. Only tensor
annotations are checked: what a caller gets wrong otherwise meets steerlib's own errors, which tests want to see.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from beartype import BeartypeConf, beartype

F = TypeVar("F", bound=Callable[..., object])

SHAPED = re.compile(r"\b(Float|Float32|Int|Bool|Num|Real|Shaped|Integer)\[")
CONF = BeartypeConf(violation_type=TypeError)


def check(function: F) -> F:
    """Check the shapes that a function's annotations promise; the checks of a class's fields are its own."""
    shapes = {name: hint for name, hint in function.__annotations__.items() if SHAPED.search(str(hint))}
    if not shapes or function.__name__ == "__init__":
        return function
    function.__annotations__ = shapes
    return beartype(conf=CONF)(function)
