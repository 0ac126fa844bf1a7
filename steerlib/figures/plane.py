"""The running picture of the book: states in a two-dimensional slice of the residual stream.

The horizontal axis is the target direction, the vertical one the off-target direction along which the states vary
most. Every chapter redraws it as an idea moves the states. Knows arrays; knows nothing about where they came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from steerlib.figures.style import GREY, look, panels
from steerlib.figures.sweeps import colour

States = Float[np.ndarray, "n width"]


@dataclass(frozen=True)
class Plane:
    """A slice through state space: an origin and two orthonormal directions.

    Attributes:
        origin: the point drawn at (0, 0).
        target: unit vector of the horizontal axis.
        off: unit vector of the vertical axis, orthogonal to the target.
    """

    origin: Float[np.ndarray, " width"]
    target: Float[np.ndarray, " width"]
    off: Float[np.ndarray, " width"]

    @classmethod
    def of(cls, direction: np.ndarray, states: States) -> Plane:
        """The slice spanned by a direction and by what varies most among the states, orthogonally to it.

        Raises:
            ValueError: if the direction is zero, or the states do not vary off it.
        """
        norm = np.linalg.norm(direction)
        if norm == 0:
            raise ValueError("direction: got a zero vector, expected a direction.")
        target = np.asarray(direction, dtype=np.float64) / norm
        origin = np.asarray(states, dtype=np.float64).mean(0)
        rest = states - origin
        rest = rest - np.outer(rest @ target, target)
        _, spread, axes = np.linalg.svd(rest, full_matrices=False)
        if spread[0] == 0:
            raise ValueError("states: they do not vary off the direction, so there is no second axis.")
        off = axes[0] * np.sign(axes[0][np.abs(axes[0]).argmax()])  # a sign that does not depend on the library
        return cls(origin, target, off)

    def project(self, states: States) -> Float[np.ndarray, "n 2"]:
        """Coordinates of states in the slice."""
        return (np.asarray(states, dtype=np.float64) - self.origin) @ np.stack([self.target, self.off], 1)


def draw(
    plane: Plane,
    clouds: Mapping[str, States],
    *,
    arrows: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    title: str = "",
    boundary: float | None = None,
    xlabel: str = "along the target direction",
    ylabel: str = "largest off-target direction",
    size: float = 13,
) -> Figure:
    """Clouds of states in the slice, with arrows from one point to another.

    Args:
        plane: the slice.
        clouds: name -> states.
        arrows: name -> (start, end) states; those without a role of their own have the colours of the last clouds, to
            which they lead.
        title: what this redraw shows.
        boundary: position along the target where a decision changes, drawn as a vertical line.
        xlabel: meaning of the horizontal axis.
        ylabel: meaning of the vertical axis.
        size: area of a point, in square points of print; larger for a handful of states.
    """
    with look():
        figure, (axis,) = panels(1, height=4.5, width=5.6)
        for i, (name, states) in enumerate(clouds.items()):
            points = plane.project(states)
            tone = colour(name, i)
            axis.scatter(points[:, 0], points[:, 1], s=size, alpha=0.55, linewidths=0, label=name, color=tone)
            axis.plot(*points.mean(0), marker="X", markersize=10, color=tone, markeredgecolor="white")
        arrows = arrows or {}
        for i, (name, (start, end)) in enumerate(arrows.items(), start=max(0, len(clouds) - len(arrows))):
            a, b = plane.project(np.stack([start, end]))
            tone = colour(name, i)
            axis.annotate(
                "",
                xy=b,
                xytext=a,
                arrowprops={"arrowstyle": "-|>", "linewidth": 2.2, "color": tone, "shrinkA": 0},
            )
            axis.plot([], [], color=tone, linewidth=2.2, label=name)
        if boundary is not None:
            axis.axvline(boundary, color=GREY, linestyle="--", linewidth=1)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
        # Below: inside, the names would lie over states.
        axis.legend(*name_clouds(axis), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
        return figure


def name_clouds(axis: Axes) -> tuple[list[Artist], list[str]]:
    """Legend of a state-plane picture: points large and opaque enough to tell their colours, and the cross."""
    handles: list[Artist] = []
    labels = []
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
        if isinstance(handle, PathCollection):
            colours: Any = handle.get_facecolor()  # one row for each point
            handle = Line2D([], [], marker="o", markersize=6, linestyle="", color=colours[0][:3])
        handles.append(handle)
        labels.append(label)
    handles.append(Line2D([], [], marker="X", markersize=7, linestyle="", color=GREY, markeredgecolor="white"))
    return handles, [*labels, "class mean"]
