"""Figures of open-loop control: dose-response against negative controls, spectrum, data efficiency, disturbance.

Knows arrays and estimates; knows nothing about how they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from scipy.stats import gaussian_kde

from steerlib.figures.plane import Plane
from steerlib.figures.style import ROLES, look, panels
from steerlib.figures.sweeps import colour, curve
from steerlib.metrics import Estimate


@dataclass(frozen=True)
class Band:
    """What a set of negative controls does at several strengths.

    Attributes:
        strengths: the knob.
        draws: one row of scores for each strength, one score for each control.
        label: what they are.
    """

    strengths: Sequence[float]
    draws: Sequence[Sequence[float]]
    label: str


def open_loop_response(
    strengths: Sequence[float],
    scores: Mapping[str, Sequence[Estimate]],
    controls: Mapping[str, Sequence[Band]],
    *,
    label: str,
    xlabel: str,
    chosen: float,
    reference: Mapping[str, tuple[str, float]] | None = None,
) -> Figure:
    """Scores against strength, one panel below the other, over the bands of the negative controls.

    A band runs from the 5th to the 95th percentile of the controls, with their mean as a line.

    Args:
        strengths: the knob, in increasing order, zero included.
        scores: panel title -> one estimate for each strength.
        controls: panel title -> bands.
        label: name of the law.
        xlabel: what the knob is, with its unit.
        chosen: strength selected on validation, marked by a vertical line.
        reference: panel title -> (name, value) of a horizontal line, such as a prompting ceiling.
    """
    with look():
        figure, axes = panels(1, len(scores), height=2.05, width=6.6)
        for axis, (title, estimates) in zip(axes, scores.items(), strict=True):
            for band in controls.get(title, ()):
                tone = colour(band.label)
                low, high = np.quantile(np.asarray(band.draws), [0.05, 0.95], axis=1)
                axis.fill_between(band.strengths, low, high, color=tone, alpha=0.25, linewidth=0)
                axis.plot(band.strengths, np.mean(band.draws, axis=1), color=tone, label=band.label)
            curve(axis, strengths, estimates, label=label, color=ROLES["law"])
            if reference and title in reference:
                name, value = reference[title]
                axis.axhline(value, color=ROLES["reference"], linestyle=":", linewidth=1.3, label=name)
            axis.axvline(chosen, color=ROLES["unsteered"], linestyle="--", linewidth=1, label="chosen on validation")
            axis.axvline(0, color=ROLES["unsteered"], linewidth=0.8)
            axis.set(ylabel=title)
            if axis is not axes[-1]:
                axis.sharex(axes[-1])
                axis.tick_params(labelbottom=False)
        axes[-1].set(xlabel=xlabel)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, fontsize=8, loc="outside upper left", ncols=2)
        return figure


def pushed_clouds(
    plane: Plane, clouds: Mapping[str, np.ndarray], *, arrow: tuple[np.ndarray, np.ndarray], label: str, title: str
) -> Figure:
    """Clouds of states in a slice, and above them how each is spread along the target direction.

    Args:
        plane: the slice.
        clouds: name -> states, each with some spread along the target.
        arrow: start and end of the push, as states.
        label: name of the push.
        title: what this redraw shows.
    """
    with look():
        figure, (top, axis) = panels(1, 2, height=2.4, width=5.8)
        axis.sharex(top)
        for i, (name, states) in enumerate(clouds.items()):
            points, tone = plane.project(states), colour(name, i)
            grid = np.linspace(points[:, 0].min() - points[:, 0].std(), points[:, 0].max() + points[:, 0].std(), 200)
            top.plot(grid, gaussian_kde(points[:, 0])(grid), color=tone, label=name)
            axis.scatter(points[:, 0], points[:, 1], s=11, alpha=0.5, linewidths=0, color=tone)
            for panel in (top, axis):
                panel.axvline(points[:, 0].mean(), color=tone, linewidth=1, linestyle="--")
        a, b = plane.project(np.stack(arrow))
        height = top.get_ylim()[1]
        shape = {"arrowstyle": "-|>", "linewidth": 2, "color": ROLES["law"], "shrinkA": 0, "shrinkB": 0}
        top.annotate("", xy=(b[0], height), xytext=(a[0], height), arrowprops=shape)
        top.plot([], [], color=ROLES["law"], linewidth=2, marker=">", label=label)
        top.set(title=title, ylabel="density", yticks=[])
        top.tick_params(labelbottom=False)
        axis.set(xlabel="along the target direction", ylabel="largest off-target direction")
        figure.legend(*top.get_legend_handles_labels(), fontsize=8, loc="outside upper left", ncols=2)
        return figure


def spectrum(eigenvalues: np.ndarray, *, mean: float, title: str = "") -> Figure:
    """Eigenvalues of a covariance, largest first, against the flat line that isotropy would give.

    Args:
        eigenvalues: positive, in any order.
        mean: their mean, the variance of the isotropic Gaussian with the same total.
        title: what the covariance is of.
    """
    ordered = np.sort(eigenvalues)[::-1]
    with look():
        figure, (axis,) = panels(1, height=2.9, width=5.6)
        axis.plot(np.arange(1, len(ordered) + 1), ordered, color=ROLES["law"], label="measured")
        axis.axhline(mean, color=ROLES["reference"], linestyle=":", label="isotropic, same total")
        axis.set(yscale="log", title=title, xlabel="direction, most variable first", ylabel="variance within a class")
        axis.legend(fontsize=8)
        return figure


def data_efficiency(
    counts: Sequence[int], angles: Sequence[np.ndarray], theory: Sequence[float], *, xlabel: str
) -> Figure:
    """Angle between a direction fitted on few examples and one fitted on others, against the number of examples.

    Args:
        counts: examples of each class.
        angles: for each count, the angles of independent fits, in degrees.
        theory: predicted angle at each count, in degrees.
        xlabel: meaning of the counts.
    """
    with look():
        figure, (axis,) = panels(1, height=3.1, width=5.6)
        for i, (count, found) in enumerate(zip(counts, angles, strict=True)):
            axis.plot([count] * len(found), found, "o", color=ROLES["law"], alpha=0.3, markersize=3.5,
                      markeredgewidth=0, label="one fit" if i == 0 else None)  # fmt: skip
        axis.plot(counts, [np.median(found) for found in angles], "o-", color=ROLES["law"], label="median of fits")
        axis.plot(counts, theory, color=ROLES["reference"], linestyle=":", label="theory")
        axis.axhline(90, color=ROLES["unsteered"], linewidth=0.8, linestyle="--", label="no information")
        axis.set(xscale="log", xlabel=xlabel, ylabel="angle to a separate fit (degrees)", ylim=(0, 100))
        axis.xaxis.set_major_locator(FixedLocator(list(counts)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.legend(fontsize=8)
        return figure


def disturbance(
    sizes: Sequence[float],
    readings: Mapping[str, Sequence[float]],
    scores: Mapping[str, Sequence[Estimate]],
    *,
    setpoint: float,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """What a disturbance does to the sensor's reading and to behaviour, under several laws.

    Args:
        sizes: size of the disturbance.
        readings: name of the law -> mean reading at each size.
        scores: name of the law -> one estimate at each size.
        setpoint: the reading that is wanted, a dotted line.
        xlabel: what the disturbance is, with its unit.
        ylabel: name of the score.
    """
    with look():
        figure, (left, right) = panels(2, height=3.1)
        for i, (name, values) in enumerate(readings.items()):
            left.plot(sizes, values, "o-", label=name, color=colour(name, i))
            curve(right, sizes, scores[name], label=name, color=colour(name, i))
        left.axhline(setpoint, color=ROLES["reference"], linestyle=":", linewidth=1.3, label="setpoint")
        left.set(title="reading", xlabel=xlabel, ylabel="mean reading $v^\\top z$ after the push")
        right.set(title="behaviour", xlabel=xlabel, ylabel=ylabel)
        figure.legend(*left.get_legend_handles_labels(), fontsize=8, loc="outside upper left", ncols=4)
        return figure
