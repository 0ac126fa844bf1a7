"""Maps of a score over two knobs, with a line through settings that are one and the same law.

Knows arrays and labels; knows nothing about what the knobs turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from steerlib.figures.style import look, panels


@dataclass(frozen=True)
class KnobMap:
    """A score at every pair of two knobs.

    Attributes:
        values: one row for each place on the vertical axis, from below.
        x: settings of the horizontal knob.
        y: settings of the vertical one.
        xlabel: what the horizontal knob is.
        ylabel: what the vertical one is.
        line: (x, y) settings to join by a line, each of them on the map; none for no line.
    """

    values: Float[np.ndarray, "rows columns"]
    x: Sequence[float]
    y: Sequence[float]
    xlabel: str
    ylabel: str
    line: Sequence[tuple[float, float]] = ()


def knob_maps(parts: Mapping[str, KnobMap], *, label: str, unsteered: float) -> Figure:
    """Maps that share their colours, whose middle is the unsteered score.

    Args:
        parts: title of a panel -> map.
        label: what the colour means.
        unsteered: the score without a law.

    Raises:
        ValueError: if a map has another shape than its knobs, or a line leaves its map.
    """
    for title, part in parts.items():
        _check(title, part)
    reach = max(0.01, *(float(np.abs(part.values - unsteered).max()) for part in parts.values()))
    columns = min(2, len(parts))
    with look():
        figure, axes = panels(columns, -(-len(parts) // columns), height=3.0)
        for axis in axes[len(parts) :]:
            axis.remove()
        image = None
        for axis, (title, part) in zip(axes, parts.items(), strict=False):
            image = axis.imshow(
                part.values, cmap="PuOr", vmin=unsteered - reach, vmax=unsteered + reach, origin="lower", aspect="auto"
            )
            _numbers(axis, part.values, unsteered, reach)
            if part.line:
                places = [(list(part.x).index(x), list(part.y).index(y)) for x, y in part.line]
                axis.plot(
                    *zip(*places, strict=True), color="black", marker="o", markersize=3, label="one law", zorder=3
                )
            axis.set(title=title, xlabel=part.xlabel, ylabel=part.ylabel)
            axis.set_xticks(range(len(part.x)), [f"{x:g}" for x in part.x])
            axis.set_yticks(range(len(part.y)), [f"{y:g}" for y in part.y])
            axis.grid(visible=False)
        if image is not None:
            figure.colorbar(image, ax=axes[: len(parts)], label=label, shrink=0.7)
        return figure


def _numbers(axis: Axes, values: np.ndarray, middle: float, reach: float) -> None:
    """The score in every field, a little above its middle, where a line does not run through it."""
    for (row, column), value in np.ndenumerate(values):
        dark = abs(value - middle) > 0.6 * reach
        axis.text(
            column, row + 0.22, f"{value:.2f}", ha="center", va="center", fontsize=7, color="white" if dark else "black"
        )


def _check(title: str, part: KnobMap) -> None:
    if part.values.shape != (len(part.y), len(part.x)):
        raise ValueError(
            f"{title}: got values of shape {part.values.shape}, expected ({len(part.y)}, {len(part.x)}): a row for "
            "each setting of the vertical knob."
        )
    if off := [point for point in part.line if point[0] not in part.x or point[1] not in part.y]:
        raise ValueError(f"{title}: the line goes through {off[0]}, which is not on the map.")
