"""Figures that look back at a paper: its comparisons with all the intervals that its table leaves open.

Knows numbers, names and verdicts; knows nothing about papers or how an interval was computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from steerlib.figures.style import BLUE, GREY, NARROW, ORANGE, ROLES, look, panels

#: One tone and one mark for each standing, told apart without colour, too.
_MARKS = ((BLUE, "o"), (ORANGE, "s"), (GREY, "X"))


@dataclass(frozen=True)
class Reach:
    """One comparison.

    Attributes:
        value: the difference.
        narrow: ends of the shortest interval that fits what was published.
        wide: ends of the longest.
        standing: what the comparison amounts to, one of the standings of `forest`.
    """

    value: float
    narrow: tuple[float, float]
    wide: tuple[float, float]
    standing: str

    def __post_init__(self) -> None:
        """Refuse intervals that do not lie in each other."""
        low, high = self.wide
        if not low <= self.narrow[0] <= self.value <= self.narrow[1] <= high:
            raise ValueError(
                f"comparison: got {self.value:g} in {self.narrow} in {self.wide}, expected each inside of the next."
            )


def forest(
    groups: Mapping[str, Mapping[str, Reach]], *, standings: tuple[str, ...], xlabel: str, bars: tuple[str, str]
) -> Figure:
    """Comparisons below each other, a thick bar for the shortest interval and a thin one for the longest.

    Args:
        groups: heading -> name of a comparison -> what is known of it.
        standings: all there are, the strongest first, at most three; each has a colour and a mark.
        xlabel: what the difference is, with its unit.
        bars: what the thick and the thin bar are.

    Raises:
        ValueError: if there is no comparison, more than three standings, or a comparison has another one.
    """
    rows = [reach for group in groups.values() for reach in group.values()]
    strange = sorted({r.standing for r in rows} - set(standings))
    if not rows or len(standings) > len(_MARKS) or strange:
        raise ValueError(
            f"forest: got {len(rows)} comparisons, {len(standings)} standings and unknown ones {strange}, expected at "
            f"least one comparison, each with one of at most {len(_MARKS)} standings."
        )
    marks = dict(zip(standings, _MARKS, strict=False))
    with look():
        figure, (axis,) = panels(1, height=1.5 + 0.25 * (len(rows) + len(groups)), width=NARROW)
        place, ticks, names = 0, [], []
        for heading, group in groups.items():
            ticks.append(place)
            names.append(heading)
            place += 1
            for name, reach in group.items():
                tone, marker = marks[reach.standing]
                axis.plot(reach.wide, (place, place), color=tone, linewidth=1.0)
                axis.plot(reach.narrow, (place, place), color=tone, linewidth=4.0, alpha=0.55, solid_capstyle="butt")
                axis.plot([reach.value], [place], color=tone, marker=marker, linestyle="", markersize=6)
                ticks.append(place)
                names.append(name)
                place += 1
        axis.axvline(0, color=ROLES["unsteered"], linestyle="--", linewidth=1)
        used = [standing for standing in standings if any(r.standing == standing for r in rows)]
        for standing in used:
            axis.plot([], [], color=marks[standing][0], marker=marks[standing][1], linestyle="", label=standing)
        axis.plot([], [], color=ROLES["reference"], linewidth=4.0, alpha=0.55, label=bars[0])
        axis.plot([], [], color=ROLES["reference"], linewidth=1.0, label=bars[1])
        axis.set_yticks(ticks, names)
        for label in axis.get_yticklabels():
            if label.get_text() in groups:
                label.set_fontweight("bold")
        axis.tick_params(axis="y", length=0)
        axis.grid(visible=False, axis="y")
        axis.set(xlabel=xlabel, ylim=(place - 0.4, -0.6))
        figure.legend(*axis.get_legend_handles_labels(), fontsize=9, loc="outside lower center", ncols=2)
        return figure
