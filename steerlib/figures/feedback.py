"""Pictures of feedback over depth: paths of errors in a plane, and what is missed against what is spent.

Knows arrays; knows nothing about gains or plants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from steerlib.figures.style import GREY, look, panels
from steerlib.figures.sweeps import colour


def error_paths(
    paths: Mapping[str, Float[np.ndarray, "points 2"]], *, xlabel: str, ylabel: str, ends: bool = True
) -> Figure:
    """Errors in a plane, layer by layer, towards the origin or away from it.

    Args:
        paths: name -> the error on entering each layer; a dot each, numbered on the last path.
        xlabel: meaning of the horizontal axis.
        ylabel: meaning of the vertical one.
        ends: mark the last point of each path.
    """
    with look():
        figure, (axis,) = panels(1, height=3.4, width=5.6)
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.axvline(0, color=GREY, linewidth=0.8)
        for i, (name, path) in enumerate(paths.items()):
            tint = colour(name, i)
            axis.plot(*path.T, marker="o", color=tint, label=name)
            if ends:
                axis.plot(*path[-1], marker="X", markersize=10, color=tint, markeredgecolor="white")
        for k, point in enumerate(list(paths.values())[-1]):
            axis.annotate(f"{k}", point, textcoords="offset points", xytext=(5, 5), fontsize=8)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.margins(0.1)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        return figure


def missed_and_spent(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    dashed: Sequence[str] = (),
) -> Figure:
    """What a law misses against what it spends, one curve for each law over its knob, on logarithmic axes.

    Args:
        curves: name -> (spent, missed), both positive, in the order of the knob.
        xlabel: meaning of what is spent.
        ylabel: meaning of what is missed.
        dashed: laws that know more than the others, drawn with a dashed line.
    """
    markers = ("o", "s", "^", "D", "v", "P")
    with look():
        figure, (axis,) = panels(1, height=3.8, width=6.2)
        for i, (name, (spent, missed)) in enumerate(curves.items()):
            style = "--" if name in dashed else "-"
            axis.plot(
                spent, missed, marker=markers[i % len(markers)], linestyle=style, color=colour(name, i), label=name
            )
        axis.set(xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            side.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            side.set_minor_formatter(NullFormatter())
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        return figure
