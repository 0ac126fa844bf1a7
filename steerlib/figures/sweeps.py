"""Curves of a score against a knob, with intervals: dose-response, layer sweeps, bars of methods.

Knows estimates and labels; knows nothing about how they were measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlib.figures.style import PALETTE, ROLES, look, panels
from steerlib.metrics import Estimate

Curves = Mapping[str, Sequence[Estimate]]
_WITHIN = 4  # names that find room beside the curves of a panel


def colour(name: str, index: int = 0) -> str:
    """The colour of a curve: that of its role where its name begins with one, else the next of the palette."""
    role = next((value for key, value in ROLES.items() if name.lower().startswith(key)), None)
    return role if role is not None else PALETTE[index % len(PALETTE)]


def exactly(values: Iterable[float]) -> list[Estimate]:
    """Numbers that were computed and not estimated, where a curve is asked for: each is its own interval."""
    return [Estimate(float(value), float(value), float(value), 0) for value in values]


def curve(
    axes: Axes,
    x: Sequence[float],
    estimates: Sequence[Estimate],
    *,
    label: str,
    color: str,
    marker: str = "o",
) -> None:
    """One line with its interval as a band."""
    value, low, high = (np.array([getattr(e, part) for e in estimates]) for part in ("value", "low", "high"))
    axes.plot(x, value, marker=marker, label=label, color=color)
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def dose_response(
    strengths: Sequence[float],
    groups: Mapping[str, Curves],
    *,
    xlabel: str,
    ylabels: Mapping[str, str] | None = None,
    reference: Mapping[str, tuple[str, float]] | None = None,
    chosen: float | None = None,
) -> Figure:
    """Scores against strength, one panel for each score.

    Args:
        strengths: the knob.
        groups: panel title -> curve name -> one estimate for each strength.
        xlabel: what the knob is, with its unit.
        ylabels: panel title -> axis label.
        reference: panel title -> (name, value) of a horizontal line, such as a prompting ceiling.
        chosen: strength selected on validation, marked by a vertical line.
    """
    with look():
        figure, axes = panels(len(groups), height=3.1)
        for axis, (title, curves) in zip(axes, groups.items(), strict=True):
            for i, (name, estimates) in enumerate(curves.items()):
                curve(axis, strengths, estimates, label=name, color=colour(name, i))
            if reference and title in reference:
                name, value = reference[title]
                axis.axhline(value, color=ROLES["reference"], linestyle=":", linewidth=1.3, label=name)
            if chosen is not None:
                axis.axvline(
                    chosen,
                    color=ROLES["unsteered"],
                    linestyle="--",
                    linewidth=1,
                    label="chosen on validation",
                )
            axis.set(title=title, xlabel=xlabel, ylabel=(ylabels or {}).get(title, ""))
        axes[0].legend(fontsize=8)
        return figure


def layer_sweep(
    groups: Mapping[str, Curves], *, ylabel: str = "", xlabel: str = "layer (block, from 0)", below: bool = False
) -> Figure:
    """Scores against the layer, one panel for each group of curves.

    More than four curves have their names above the figure, once: panels then share them.

    Args:
        groups: panel title -> curve name -> one estimate for each layer.
        ylabel: of every panel.
        xlabel: what the layer is.
        below: each panel has its names below it, where they lie over no curve.
    """
    with look():
        figure, axes = panels(len(groups), height=3.5 if below else 3.0)
        for axis, (title, curves) in zip(axes, groups.items(), strict=True):
            for i, (name, estimates) in enumerate(curves.items()):
                curve(axis, range(len(estimates)), estimates, label=name, color=colour(name, i))
            axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
            axis.set_xticks(range(len(next(iter(curves.values())))))
            if below:
                axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
            elif len(curves) <= _WITHIN:
                axis.legend(fontsize=8)
        if not below and max(map(len, groups.values())) > _WITHIN:  # so many names would hide the curves
            figure.legend(*axes[0].get_legend_handles_labels(), fontsize=8, loc="outside upper left", ncols=3)
        return figure


def intervals(rows: Mapping[str, Estimate], *, xlabel: str, zero: float | None = None) -> Figure:
    """Named estimates as dots with intervals, one below the other."""
    with look():
        figure, (axis,) = panels(1, height=0.55 + 0.36 * len(rows))
        for place, (name, e) in enumerate(rows.items()):
            axis.errorbar(
                e.value,
                place,
                xerr=[[e.value - e.low], [e.high - e.value]],
                fmt="o",
                capsize=3,
                color=colour(name, place),
            )
        if zero is not None:
            axis.axvline(zero, color=ROLES["unsteered"], linewidth=1, linestyle="--")
        axis.set_yticks(range(len(rows)), list(rows))
        axis.invert_yaxis()
        axis.set(xlabel=xlabel)
        return figure
