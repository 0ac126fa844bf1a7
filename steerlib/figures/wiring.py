"""Figures of actuators and sensors: which tokens a scope touches, and where measuring and pushing pay.

Knows grids of numbers; knows nothing about how they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from steerlib.figures.style import BLUE, WIDTH, look, panels

ABSENT, UNTOUCHED, STEERED = -1, 0, 1


def scope_grid(grids: Mapping[str, Mapping[str, Int[np.ndarray, "passes positions"]]], *, prompt_length: int) -> Figure:
    """Which positions were changed in which forward pass: a row of panels for each way of running.

    Args:
        grids: way of running -> scope -> grid of ABSENT (not in this pass), UNTOUCHED and STEERED.
        prompt_length: tokens of the prompt; a line marks its end.
    """
    shades = ListedColormap(["#FFFFFF", "#D9D9D9", BLUE])
    columns = len(next(iter(grids.values())))
    with look():
        figure, axes = panels(columns, len(grids), height=1.75, width=WIDTH)
        for row, (way, scopes) in enumerate(grids.items()):
            for column, (scope, grid) in enumerate(scopes.items()):
                axis = axes[row * columns + column]
                axis.imshow(grid, cmap=shades, vmin=ABSENT, vmax=STEERED, aspect="auto", interpolation="nearest")
                axis.set_xticks(np.arange(-0.5, grid.shape[1]), minor=True)
                axis.set_yticks(np.arange(-0.5, grid.shape[0]), minor=True)
                axis.grid(which="minor", color="white", linewidth=1)
                axis.grid(which="major", visible=False)
                axis.tick_params(which="minor", length=0)
                axis.axvline(prompt_length - 0.5, color="black", linewidth=1.2)
                axis.set_title(f"{scope}, {way}", fontsize=8.5)
                axis.set_yticks(range(grid.shape[0]))
                axis.tick_params(labelsize=7)
        figure.supxlabel("position in the text (the line ends the prompt)", fontsize=9)
        figure.supylabel("forward pass", fontsize=9)
        return figure


def placement(
    grids: Mapping[str, Float[np.ndarray, "measured pushed"]], *, unit: str, ticks: Sequence[int] | None = None
) -> Figure:
    """Effect of a direction measured at one layer and pushed at another; one panel for each way of measuring.

    Args:
        grids: way of measuring -> effect, rows are layers of measurement, columns layers of the push.
        unit: what the numbers are.
        ticks: layer numbers, where not all layers are shown.
    """
    limit = max(float(np.abs(grid).max()) for grid in grids.values())
    with look():
        figure, axes = panels(len(grids), height=3.3)
        for axis, (title, grid) in zip(axes, grids.items(), strict=True):
            axis.imshow(grid, cmap="PuOr_r", vmin=-limit, vmax=limit)
            for (i, j), value in np.ndenumerate(grid):
                dark = abs(value) > 0.6 * limit
                axis.text(
                    j, i, f"{value:+z.2f}", ha="center", va="center", fontsize=6.5, color="white" if dark else "black"
                )
            places = list(range(len(grid)))
            axis.set_xticks(places, [str(place) for place in ticks or places])
            axis.set_yticks(places, [str(place) for place in ticks or places])
            axis.grid(visible=False)
            axis.set(title=title, xlabel="pushed after block", ylabel="measured after block")
        figure.colorbar(axes[0].images[0], ax=axes, label=unit, shrink=0.85)
        return figure
