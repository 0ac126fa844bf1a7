"""Pictures of an ascent: contours of a value in a slice of state space with the path taken, and scores against knobs.

Knows arrays and estimates; knows nothing about values or how a path was found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from steerlib.figures.plane import Plane
from steerlib.figures.style import GREY, NARROW, ROLES, look, panels
from steerlib.figures.sweeps import colour, curve
from steerlib.metrics import Estimate


def ascent_paths(
    plane: Plane,
    value: Callable[[Float[np.ndarray, "n width"]], Float[np.ndarray, " n"]],
    paths: Mapping[str, Float[np.ndarray, "points width"]],
    *,
    states: Float[np.ndarray, "n width"],
    xlabel: str,
    ylabel: str,
    points: int = 60,
) -> Figure:
    """A value as contours in a slice, with states and paths as their projections onto it.

    Contours are of the value in the slice itself; a path leaves the slice, and what is off it is not drawn.

    Args:
        plane: the slice; its origin is where the paths begin.
        value: of states.
        paths: name -> states along a path.
        states: where the plant's own states lie.
        xlabel: meaning of the horizontal axis.
        ylabel: meaning of the vertical one.
        points: of the grid, along each axis.
    """
    drawn = {name: plane.project(path) for name, path in paths.items()}
    cloud = plane.project(states)
    everything = np.concatenate([cloud, *drawn.values()])
    low, high = everything.min(0), everything.max(0)
    margin = 0.06 * (high - low)
    x, y = (np.linspace(a, b, points) for a, b in zip(low - margin, high + margin, strict=True))
    across, up = np.meshgrid(x, y)
    grid = plane.origin + np.outer(across.ravel(), plane.target) + np.outer(up.ravel(), plane.off)
    with look():
        figure, (axis,) = panels(1, height=4.4, width=NARROW)
        filled = axis.contourf(x, y, value(grid).reshape(across.shape), levels=14, cmap="cividis", alpha=0.85)
        figure.colorbar(filled, ax=axis, label="V in the slice")
        axis.scatter(*cloud.T, s=7, color="white", edgecolors="black", linewidths=0.3, label="unsteered states")
        tones = ("#D55E00", "#FFFFFF", "#56B4E9", "#F0E442")
        for (name, path), tone in zip(drawn.items(), tones, strict=False):
            axis.plot(*path.T, color="black", linewidth=3.4)
            axis.plot(*path.T, color=tone, linewidth=2.0, marker="o", markersize=2.5, label=name)
            axis.plot(*path[-1], color=tone, marker="X", markersize=10, markeredgecolor="black")
        axis.grid(visible=False)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        handles, labels = axis.get_legend_handles_labels()
        legend = axis.legend(
            handles, labels, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=True
        )
        legend.get_frame().set(facecolor="#BBBBBB", edgecolor="none")  # a white line must show
        return figure


def knobs(
    knob: Mapping[str, Mapping[str, Mapping[float, Estimate]]],
    *,
    chosen: Mapping[str, float],
    ylabel: str,
) -> Figure:
    """Scores against several knobs, one panel for each, one below the other, on a logarithmic axis.

    Args:
        knob: name of the knob -> score -> setting -> estimate.
        chosen: name of the knob -> the setting chosen on validation, marked.
        ylabel: of every panel.
    """
    with look():
        figure, axes = panels(1, len(knob), height=2.7, width=NARROW)
        for axis, (name, curves) in zip(axes, knob.items(), strict=True):
            for i, (label, by) in enumerate(curves.items()):
                curve(axis, list(by), list(by.values()), label=label, color=colour(label, i))
            settings = sorted({setting for by in curves.values() for setting in by})
            axis.axvline(chosen[name], color=GREY, linestyle="--", linewidth=1, label="chosen on validation")
            axis.set_xscale("log")
            axis.set_xticks(settings, [f"{s:g}" for s in settings])
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set(xlabel=name, ylabel=ylabel, ylim=(-0.03, 1.05))
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, fontsize=9, loc="outside upper left", ncols=2)
        return figure


def cosines(found: Mapping[str, Float[np.ndarray, " n"]], *, chance: tuple[float, float], xlabel: str) -> Figure:
    """Distributions of a cosine, beside the range that random directions reach.

    Args:
        found: name -> cosines.
        chance: ends of that range.
        xlabel: which cosine.
    """
    with look():
        figure, (axis,) = panels(1, height=2.8, width=NARROW)
        bins = np.linspace(-1, 1, 61).tolist()
        for i, (name, values) in enumerate(found.items()):
            weights = np.full(len(values), 1 / len(values))
            axis.hist(values, bins=bins, weights=weights, histtype="step", linewidth=1.8, label=name,
                      color=colour(name, i))  # fmt: skip
        axis.axvspan(*chance, color=ROLES["random"], alpha=0.25, linewidth=0, label="random directions, 95 %")
        axis.set(xlabel=xlabel, ylabel="share of the nodes", xlim=(-0.6, 0.6))
        figure.legend(fontsize=9, loc="outside upper left", ncols=2)
        return figure
