"""Sources as the parts of a stack see them: at a site of their own, and all sites measured in one pass.

Knows how to pass questions on to another source; knows nothing about tasks, plants or what a law computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from steerlib.actuator import Site
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
