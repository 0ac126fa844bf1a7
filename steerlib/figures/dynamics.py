"""Figures of the plant as a dynamical system: quantities over depth, trajectories, and how far linearity reaches.

Knows estimates and projected states; knows nothing about how they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from steerlib.figures.plane import Plane, name_clouds
from steerlib.figures.style import GREY, WIDTH, look, panels
from steerlib.figures.sweeps import colour, curve
from steerlib.metrics import Estimate


@dataclass(frozen=True)
class Panel:
    """One panel of curves.

    Attributes:
        curves: name -> one estimate for each place on the horizontal axis.
        ylabel: what is measured, with its unit.
        log: draw the vertical axis logarithmically.
        line: (name, value) of a horizontal reference line.
    """

    curves: Mapping[str, Sequence[Estimate]]
    ylabel: str
    log: bool = False
    line: tuple[str, float] | None = field(default=None)


def over(
    x: Sequence[float], parts: Mapping[str, Panel], *, xlabel: str, log_x: bool = False, height: float = 3.0
) -> Figure:
    """Curves with intervals over a common horizontal axis, one panel for each part, side by side.

    Args:
        x: places on the horizontal axis.
        parts: panel title -> panel.
        xlabel: meaning of the horizontal axis.
        log_x: draw it logarithmically.
        height: of the figure, in inches.
    """
    with look():
        figure, axes = panels(len(parts), height=height)
        for axis, (title, part) in zip(axes, parts.items(), strict=True):
            for i, (name, estimates) in enumerate(part.curves.items()):
                curve(axis, x[: len(estimates)], estimates, label=name, color=colour(name, i))
            if part.line is not None:
                axis.axhline(part.line[1], color=GREY, linestyle="--", linewidth=1, label=part.line[0])
            axis.set(title=title, xlabel=xlabel, ylabel=part.ylabel)
            axis.set_yscale("log" if part.log else "linear")
            axis.set_xscale("log" if log_x else "linear")
            whole = all(float(place).is_integer() for place in x)
            apart = not log_x or all(b >= 1.3 * a > 0 for a, b in pairwise(x))
            if whole and apart and len(x) <= 12:
                axis.set_xticks(list(x), [f"{place:g}" for place in x])
                # A logarithmic axis would put small ticks where nothing was measured.
                axis.xaxis.set_minor_locator(NullLocator())
            elif whole and not log_x:
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        _shared_legend(figure, axes)
        return figure


def _shared_legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend under all panels, where no curve is in its way; none if each shows but one thing."""
    each = [list(zip(*axis.get_legend_handles_labels(), strict=True)) for axis in axes]
    named = {label: handle for pairs in each for handle, label in pairs}
    if any(len(pairs) > 1 for pairs in each):
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(len(named), 4), fontsize=8)


def trajectories(
    readings: Mapping[str, Float[np.ndarray, "texts layers"]],
    readable: Mapping[str, Sequence[Estimate]],
    *,
    shown: int = 12,
) -> Figure:
    """The reading of single texts through depth, beside how well the reading tells the classes apart.

    Args:
        readings: class -> position along the target direction, one row for each text, in units of the class gap.
        readable: sensor -> AUC with interval, one for each layer.
        shown: texts of each class that are drawn as thin lines.
    """
    with look():
        figure, (left, right) = panels(2, height=3.2)
        for i, (name, rows) in enumerate(readings.items()):
            layers = np.arange(rows.shape[1])
            tint = colour(name, i)
            left.plot(layers, rows[:shown].T, color=tint, linewidth=0.7, alpha=0.35)
            left.plot(layers, rows.mean(0), color=tint, marker="o", label=name)
        left.set(title="Readings through depth", xlabel="layer of the state", ylabel="along the target, in class gaps")
        left.legend(fontsize=8)
        for i, (name, estimates) in enumerate(readable.items()):
            curve(right, range(len(estimates)), estimates, label=name, color=colour(name, i))
        right.axhline(0.5, color=GREY, linestyle="--", linewidth=1)
        right.set(title="Readable when?", xlabel="layer of the state", ylabel="AUC on held-out texts", ylim=(0, 1.03))
        right.legend(fontsize=8, loc="lower right")
        for axis in (left, right):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure


def small_multiples(
    views: Mapping[str, tuple[Plane, Mapping[str, Float[np.ndarray, "n width"]]]], *, columns: int = 3
) -> Figure:
    """The running picture at several sites: one panel for each, all clouds in the panel's own slice.

    Args:
        views: title -> (slice, cloud name -> states).
        columns: panels in a row.
    """
    rows = -(-len(views) // columns)
    with look():
        figure, axes = panels(min(columns, len(views)), rows, height=2.3, width=WIDTH)
        for axis, (title, (plane, clouds)) in zip(axes, views.items(), strict=False):
            for i, (name, states) in enumerate(clouds.items()):
                _cloud(axis, plane.project(states), name, colour(name, i))
            axis.set_title(title, fontsize=9)
            axis.tick_params(labelsize=7)
        for axis in axes[len(views) :]:
            axis.set_axis_off()
        figure.supxlabel("along the target direction", fontsize=9)
        figure.supylabel("largest off-target direction", fontsize=9)
        handles, labels = name_clouds(axes[0])
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=8)
        return figure


def _cloud(axis: Axes, points: Float[np.ndarray, "n 2"], name: str, tint: str) -> None:
    axis.scatter(points[:, 0], points[:, 1], s=7, alpha=0.4, linewidths=0, color=tint, label=name)
    axis.plot(*points.mean(0), marker="X", markersize=8, color=tint, markeredgecolor="white")
