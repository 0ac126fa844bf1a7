"""Pictures of a height on the sphere of directions: paths that climb it, and where they come beside where they could.

Knows arrays; knows nothing about barriers or plants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from steerlib.figures.style import GREY, ROLES, WIDTH, look, panels
from steerlib.figures.sweeps import colour

_GRID = 161  # points along an axis of the disc


def sphere_paths(
    height: Callable[[np.ndarray], np.ndarray],
    paths: Mapping[str, Float[np.ndarray, "points 3"]],
    *,
    times: Sequence[float],
    level: float = 0.0,
    xlabel: str = "x₁",
    ylabel: str = "x₂",
    height_label: str = "h",
    time_label: str = "time",
) -> Figure:
    """A sphere in three dimensions, seen from the third axis, with paths on it; beside it their heights over time.

    Args:
        height: of points, shape (n, 3), as (n,).
        paths: name -> points on the near half of the sphere (third coordinate not negative).
        times: of the points of each path.
        level: drawn as a line in both panels.
        xlabel: meaning of the first axis.
        ylabel: meaning of the second.
        height_label: meaning of the colour.
        time_label: meaning of the times.
    """
    side = np.linspace(-1, 1, _GRID)
    first, second = np.meshgrid(side, side)
    inside = first**2 + second**2 <= 1
    near = np.sqrt(np.clip(1 - first**2 - second**2, 0, None))
    drawn = np.where(inside, height(np.stack([first, second, near], -1).reshape(-1, 3)).reshape(first.shape), np.nan)
    reach = float(np.nanmax(np.abs(drawn - level)))
    with look():
        figure, (disc, curves) = panels(2, height=3.5, width=WIDTH)
        mesh = disc.pcolormesh(
            first, second, drawn, cmap="PuOr", vmin=level - reach, vmax=level + reach, shading="nearest"
        )
        if np.nanmin(drawn) < level < np.nanmax(drawn):
            disc.contour(first, second, drawn, levels=[level], colors=ROLES["reference"], linewidths=1.2)
        for i, (name, path) in enumerate(paths.items()):
            tint = colour(name, i)
            disc.plot(path[:, 0], path[:, 1], color=tint, label=name)
            disc.plot(*path[0, :2], marker="o", color=tint, markeredgecolor="white")
            disc.plot(*path[-1, :2], marker="X", markersize=9, color=tint, markeredgecolor="white")
            curves.plot(times, height(path), color=tint, label=name)
        curves.axhline(level, color=GREY, linestyle="--", linewidth=1)
        disc.set(xlabel=xlabel, ylabel=ylabel, aspect="equal", title="Seen from above")
        disc.grid(visible=False)
        curves.set(xlabel=time_label, ylabel=height_label, title="Height on the way")
        figure.colorbar(mesh, ax=disc, shrink=0.8).ax.set_title(height_label, fontsize=9)
        figure.legend(*curves.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        return figure


def reached(
    clouds: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    zero: float | None = 0.0,
) -> Figure:
    """What was reached against the most that could be reached, a point each; on the diagonal nothing is lost.

    Args:
        clouds: name -> (most, reached), of equal length.
        xlabel: meaning of the most.
        ylabel: meaning of what was reached.
        title: what the picture shows.
        zero: a level drawn in both directions; None for none.
    """
    markers = ("o", "s", "^", "D", "v", "P")
    with look():
        figure, (axis,) = panels(1, height=3.9, width=5.6)
        ends = np.concatenate([np.asarray(part) for pair in clouds.values() for part in pair])
        if zero is not None:
            axis.axhline(zero, color=GREY, linewidth=0.8)
            axis.axvline(zero, color=GREY, linewidth=0.8)
        axis.plot([ends.min(), ends.max()], [ends.min(), ends.max()], color=ROLES["reference"], linestyle=":",
                  linewidth=1.2, label="all that could be")  # fmt: skip
        for i, (name, (most, got)) in enumerate(clouds.items()):
            axis.plot(
                most, got, linestyle="", marker=markers[i % len(markers)], markersize=4, alpha=0.55,
                markeredgewidth=0, color=colour(name, i), label=name,
            )  # fmt: skip
        axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        return figure


def measured_and_predicted(
    x: Sequence[float],
    measured: Mapping[str, Sequence[float]],
    predicted: Mapping[str, Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    log: bool = False,
    dots: bool = True,
) -> Figure:
    """Curves, and dashed over them what a formula says that they should be.

    Args:
        x: places on the horizontal axis.
        measured: name -> one number for each place.
        predicted: the same, from formulas.
        xlabel: meaning of the horizontal axis.
        ylabel: meaning of the vertical one.
        title: what the picture shows.
        log: draw both axes logarithmically.
        dots: mark the measured places.
    """
    styles = ((0, (4, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)))
    with look():
        figure, (axis,) = panels(1, height=3.5, width=6.2)
        for i, (name, values) in enumerate(measured.items()):
            axis.plot(x, values, marker="o" if dots else "", linewidth=2.6, color=colour(name, i), label=name)
        for i, (name, values) in enumerate(predicted.items()):
            axis.plot(x, values, linestyle=styles[i % len(styles)], linewidth=1.4, color=ROLES["reference"], label=name)
        axis.set(xlabel=xlabel, ylabel=ylabel, title=title)
        if log:
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(list(x), [f"{place:g}" for place in x])
            axis.xaxis.set_minor_locator(NullLocator())
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
        return figure
