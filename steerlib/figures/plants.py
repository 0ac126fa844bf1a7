"""What each method changes on each of several plants, in a shape that a phone can show.

Knows names and estimates; knows nothing about methods, plants or data sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure

from steerlib.figures.style import PALETTE, ROLES, look, panels
from steerlib.metrics import Estimate

#: Told apart without colour, too.
_MARKS = ("o", "s", "^", "D", "v")
_WIDTH = 4.8  # inches: on a screen of 390 points, letters are as large as those of the text
_LETTERS = 24  # of a name on one line, so that names leave room for what is drawn


def effects(parts: Mapping[str, Mapping[str, Mapping[str, Estimate]]], *, xlabel: str) -> Figure:
    """Effects as dots with intervals: a panel for each part, a line for each method, a mark for each plant.

    Panels stand below each other and share their scale. All have the lines of the first; where a method was not run,
    the line is empty.

    Args:
        parts: title of a panel -> method -> plant -> estimate.
        xlabel: what the effect is, with its unit.

    Raises:
        ValueError: no part, a later part with a method that the first has not, or more plants than marks.
    """
    names = list(next(iter(parts.values()), {}))
    plants = list(dict.fromkeys(plant for part in parts.values() for row in part.values() for plant in row))
    strange = sorted({name for part in parts.values() for name in part} - set(names))
    if not names or strange or len(plants) > len(_MARKS):
        raise ValueError(
            f"effects: got {len(names)} methods in the first part, further ones {strange} in others, and "
            f"{len(plants)} plants; expected all methods in the first part, and at most {len(_MARKS)} plants."
        )
    offsets = dict(zip(plants, np.linspace(-0.27, 0.27, len(plants)) if len(plants) > 1 else [0.0], strict=True))
    with look():
        height = 0.5 + max(0.46, 0.16 + 0.11 * len(plants)) * len(names)
        figure, axes = panels(1, len(parts), height=height, width=_WIDTH)
        for axis, (title, part) in zip(axes, parts.items(), strict=True):
            axis.axvline(0, color=ROLES["unsteered"], linewidth=1, linestyle="--")
            for number, plant in enumerate(plants):
                found = [(place, part[name][plant]) for place, name in enumerate(names) if plant in part.get(name, {})]
                axis.errorbar(
                    [e.value for _, e in found],
                    [place + offsets[plant] for place, _ in found],
                    xerr=np.array([[e.value - e.low, e.high - e.value] for _, e in found]).reshape(-1, 2).T,
                    fmt=_MARKS[number], color=PALETTE[number], label=plant, capsize=2, markersize=4.5, linewidth=1.4,
                )  # fmt: skip
            axis.set_yticks(range(len(names)), [fill(name, _LETTERS, break_on_hyphens=False) for name in names])
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.set_title(title, loc="left")
        every = [e for part in parts.values() for row in part.values() for e in row.values()]
        low, high = min(0.0, *(e.low for e in every)), max(0.0, *(e.high for e in every))
        for axis in axes:  # one scale, so that panels can be compared
            axis.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        axes[-1].set(xlabel=xlabel)
        if len(plants) > 1:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8.5)
        return figure
