"""The errors a user of steerlib can meet. Each says what was got, what was expected, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SteerlibError(Exception):
    """Base of the errors of this package."""


class PlantError(SteerlibError, ValueError):
    """A plant cannot be found, read or wired."""


class SiteError(SteerlibError, ValueError):
    """A site (layer, point) or token scope that this plant does not have."""


class LawError(SteerlibError, ValueError):
    """A law cannot be fitted, loaded, or used at this place."""


class ContrastError(LawError):
    """A contrast set that no law can be fitted on: empty, one-sided, or not finite."""


class NotFiniteError(SteerlibError, ArithmeticError):
    """A plant computes no numbers any more, under a law that leaves the range of its precision or by itself."""


class MetricError(SteerlibError, ValueError):
    """A metric has no meaning for the data given."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist: which names are near, or all there are."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"Did you mean {', '.join(near)}?" if near else f"Known are: {', '.join(names)}."
    return f"got {what} {name!r}, which does not exist. {hint}"
