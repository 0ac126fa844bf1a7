"""The type checker that runs while testing: shapes (jaxtyping) and types (beartype) of every call into steerlib.

pytest's option `--jaxtyping-packages=steerlib,tests.typecheck.check` (in pyproject.toml) puts it on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

F = TypeVar("F", bound=Callable[..., object])

# An int is a float, as for any type checker; a violation is a TypeError, as for any caller.
CONF = BeartypeConf(is_pep484_tower=True, violation_type=TypeError)


def check(function: F) -> F:
    """Check a function's calls; leave alone a method that returns `Self`, which beartype checks only in whole classes."""
    try:
        return beartype(conf=CONF)(function)
    except BeartypeDecorHintPep673Exception:
        return function
