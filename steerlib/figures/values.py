"""How much values know, along the answers that they value.

Knows estimates and labels; knows nothing about how they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

from matplotlib.figure import Figure

from steerlib.figures.style import BLUE, GREEN, GREY, NARROW, ORANGE, PURPLE, SKY, VERMILION, look, panels
from steerlib.figures.sweeps import curve
from steerlib.metrics import Estimate

#: A target keeps its colour and its marker through the chapters on values.
TONES = {
    "td0": (BLUE, "o"),
    "residual": (VERMILION, "s"),
    "released": (GREEN, "^"),
    "monte-carlo": (SKY, "D"),
    "td-lambda": (ORANGE, "v"),
    "prompt-only": (GREY, "P"),
    "shuffled": (PURPLE, "X"),
}
Curve = Mapping[float, Estimate]


def by_position(
    panels_of: Mapping[str, Sequence[str]],
    curves: Mapping[str, Curve],
    best: Curve,
    *,
    names: Mapping[str, str],
    ylabel: str,
    xlabel: str = "token of the answer that is drawn next",
) -> Figure:
    """What each value knows at each position, below what the true value would know; panels one below the other.

    Args:
        panels_of: panel title -> the curves it shows, by key.
        curves: key -> position -> estimate; keys of `TONES` have colours of their own.
        best: position -> what the true value reaches, drawn as black diamonds with intervals in every panel.
        names: key -> name in the legend.
        ylabel: what is known, with its unit.
        xlabel: what a position is.

    Raises:
        ValueError: if a panel asks for a curve that is not there, or one without a tone.
    """
    for key in (key for keys in panels_of.values() for key in keys):
        if key not in curves or key not in TONES:
            raise ValueError(f"curve: got {key!r}, expected one of {', '.join(k for k in curves if k in TONES)}.")
    with look():
        figure, axes = panels(1, len(panels_of), height=3.0, width=NARROW)
        handles = {}
        for axis, (title, keys) in zip(axes, panels_of.items(), strict=True):
            for key in keys:
                tone, marker = TONES[key]
                curve(axis, list(curves[key]), list(curves[key].values()), label=names[key], color=tone, marker=marker)
            value = [e.value for e in best.values()]
            ends = [[e.value - e.low for e in best.values()], [e.high - e.value for e in best.values()]]
            axis.errorbar(
                list(best), value, yerr=ends, fmt="*", color="black", markersize=9, capsize=3, linestyle="none",
                label="ceiling: rollouts from the state",
            )  # fmt: skip
            axis.axhline(0.0, color=GREY, linewidth=0.8, linestyle=":")
            axis.set(title=title, ylabel=fill(ylabel, 24))
            handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        axes[-1].set_xlabel(xlabel)
        low = min(axis.get_ylim()[0] for axis in axes)
        high = max(axis.get_ylim()[1] for axis in axes)
        for axis in axes:
            axis.set_ylim(low, high)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=9)
        return figure
