"""Sources as the parts of a stack see them: at a site of their own, all measured in one pass, or one class pushed.

Knows how to pass questions on to another source; knows nothing about tasks, plants or what a law computes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal, NoReturn, cast

from steerlib.actuator import Actuator, Site
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, Source


class AtSite:
    """A source as it looks to the part of one site; all else is the source's own."""

    def __init__(self, source: Any, site: Site) -> None:
        self._source, self.site = source, site

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked, of the source itself."""
        return getattr(self._source, name)


def at_site(source: Any, site: Site) -> Source:
    """The source for the part of one site."""
    return cast("Source", AtSite(source, site))


class OnePass:
    """A source that measures all sites when the first is asked for."""

    def __init__(self, source: Source, sites: Sequence[Site]) -> None:
        self._source, self._sites = source, tuple(dict.fromkeys(sites))
        self._found: dict[tuple[bool, str], dict[Site, Contrast]] = {}

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked, of the source itself."""
        return getattr(self._source, name)

    def contrasts(
        self, sites: Sequence[Site], *, pairs: bool = False, position: Literal["last", "mean"] = "last"
    ) -> list[Contrast]:
        """Those of the sites, out of one pass over the texts for all; other sites are measured by themselves."""
        wanted = [site.resolve(self._source.plant.depth) for site in sites]
        if not set(wanted) <= set(self._sites):
            return self._source.contrasts(sites, pairs=pairs, position=position)
        if (pairs, position) not in self._found:
            every = self._source.contrasts(self._sites, pairs=pairs, position=position)
            self._found[pairs, position] = dict(zip(self._sites, every, strict=True))
        return [self._found[pairs, position][site] for site in wanted]


class OneClassPushed:
    """A source whose negative states are measured while earlier parts act, and the positive ones while none does.

    Attributes:
        earlier: the parts that act on the negative texts, by default none.
    """

    def __init__(self, free: OnePass, source: Source) -> None:
        self._free, self._source = free, source
        self.earlier: list[Actuator] = []

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked, of the source itself."""
        return getattr(self._source, name)

    def contrasts(
        self, sites: Sequence[Site], *, pairs: bool = False, position: Literal["last", "mean"] = "last"
    ) -> list[Contrast]:
        """Those of the sites, of two passes: the plant left alone for the one class, pushed for the other."""
        free = self._free.contrasts(sites, pairs=pairs, position=position)
        if not self.earlier:
            return free
        with ExitStack() as acting:
            for pushing in self.earlier:
                acting.enter_context(pushing)
            steered = self._source.contrasts(sites, pairs=pairs, position=position)
        return [dataclasses.replace(one, negative=other.negative) for one, other in zip(free, steered, strict=True)]

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Refused: such states belong to no class that could be pushed by itself."""
        raise LawError(
            "Stack: got pushed='negative' and a law that is fitted on more than contrasts, whose states belong to no "
            "one class. Fix: pushed='both', or sequential=False."
        )

    by_position = conditions = scored = answers = _refuse
