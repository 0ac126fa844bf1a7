"""Figures of flows: their paths in the plane, what a solver's error costs, barriers before and after, calibration.

Knows arrays and estimates; knows nothing about laws or how anything was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from steerlib.figures.plane import Plane, name_clouds
from steerlib.figures.style import GREY, PALETTE, look, panels
from steerlib.figures.sweeps import colour
from steerlib.metrics import Estimate

MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def flow_paths(
    plane: Plane,
    clouds: Mapping[str, Float[np.ndarray, "_ width"]],
    paths: Mapping[str, Float[np.ndarray, "points states width"]],
) -> Figure:
    """The running picture with the ways that states take through it, a dot for each step.

    Args:
        plane: the slice.
        clouds: class -> states, drawn pale.
        paths: name -> states after each step, the first the starts.
    """
    with look():
        figure, (axis,) = panels(1, height=4.4, width=5.8)
        for i, (name, states) in enumerate(clouds.items()):
            points, tone = plane.project(states), colour(name, i)
            axis.scatter(*points.T, s=8, alpha=0.25, linewidths=0, color=tone, label=name)
            axis.plot(*points.mean(0), marker="X", markersize=9, color=tone, markeredgecolor="white")
        taken = {colour(name, i) for i, name in enumerate(clouds)}
        free = [tone for tone in PALETTE if tone not in taken]
        for tone, (name, path) in zip(cycle(free), paths.items(), strict=False):
            for k in range(path.shape[1]):
                label = name if k == 0 else "_nolegend_"
                axis.plot(*plane.project(path[:, k]).T, marker=".", linewidth=1.2, color=tone, label=label)
        axis.set(xlabel="along the target direction", ylabel="largest off-target direction")
        axis.legend(*name_clouds(axis), fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
        return figure


def work_precision(
    parts: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], *, xlabel: str, ylabel: str
) -> Figure:
    """Error against the work that it took, one curve for each solver, on logarithmic axes.

    Args:
        parts: panel title -> solver -> (work, error), both positive.
        xlabel: meaning of the work.
        ylabel: meaning of the error.
    """
    with look():
        figure, axes = panels(len(parts), height=3.4)
        for axis, (title, curves) in zip(axes, parts.items(), strict=True):
            for i, (name, (work, error)) in enumerate(curves.items()):
                axis.plot(work, error, marker=MARKERS[i % len(MARKERS)], color=colour(name, i), label=name)
            axis.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
        names = {
            label: handle
            for axis in axes
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }  # fmt: skip
        figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=5, fontsize=8)
        return figure


def before_and_after(
    laws: Mapping[str, Mapping[str, tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]]],
    *,
    line: tuple[str, float],
    label: str = "h",
) -> Figure:
    """A reading after a law against the same reading before it, one panel for each law, a point for each state.

    Args:
        laws: panel title -> class -> (before, after).
        line: (name, value) of a level that is asked for, drawn horizontally.
        label: of the reading.

    Raises:
        ValueError: if before and after are not of as many states.
    """
    with look():
        figure, axes = panels(len(laws), height=3.2)
        for axis, (title, classes) in zip(axes, laws.items(), strict=True):
            for i, (name, (before, after)) in enumerate(classes.items()):
                if len(before) != len(after):
                    raise ValueError(f"{name}: got {len(before)} before and {len(after)} after, expected as many.")
                axis.scatter(before, after, s=9, alpha=0.55, linewidths=0, color=colour(name, i), label=name)
            ends = [min(b.min() for b, _ in classes.values()), max(b.max() for b, _ in classes.values())]
            axis.plot(ends, ends, color=GREY, linewidth=0.9, label="unchanged")
            axis.axhline(line[1], color=GREY, linestyle="--", linewidth=1, label=line[0])
            axis.set(title=title, xlabel=f"{label} before", ylabel=f"{label} after")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, markerscale=2)
        return figure


def reliability(curves: Mapping[str, tuple[Sequence[float], Sequence[Estimate]]], *, columns: int = 3) -> Figure:
    """How often a class is met among examples for which a given probability was said, beside the diagonal.

    Args:
        curves: name -> (mean probability said, share met with its interval), one pair for each bin; a panel each.
        columns: panels in a row.
    """
    rows = -(-len(curves) // columns)
    with look():
        figure, axes = panels(min(columns, len(curves)), rows, height=2.5)
        for i, (axis, (name, (said, met))) in enumerate(zip(axes, curves.items(), strict=False)):
            value, low, high = (np.array([getattr(e, part) for e in met]) for part in ("value", "low", "high"))
            reach = np.abs(np.stack([value - low, high - value]))
            axis.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="a log ratio")
            axis.errorbar(said, value, yerr=reach, marker="o", linewidth=1.4, color=colour(name, i), label=name)
            axis.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
            axis.set_title(name, fontsize=9)
            axis.tick_params(labelsize=7)
        for axis in axes[len(curves) :]:
            axis.set_axis_off()
        figure.supxlabel("probability that the barrier says", fontsize=9)
        figure.supylabel("share met among held-out texts", fontsize=9)
        return figure
