"""Pictures of climbs: a barrier along the paths of many states, and what the two knobs of a climb buy and cost.

Knows arrays and estimates; knows nothing about barriers, solvers or plants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from steerlib.figures.style import BLACK, GREY, WIDTH, look, panels
from steerlib.figures.sweeps import colour, curve
from steerlib.metrics import Estimate


def barrier_paths(
    climbs: Mapping[str, Float[np.ndarray, "points states"]],
    *,
    length: float,
    xlabel: str,
    ylabel: str,
    columns: int = 3,
) -> Figure:
    """The value of one barrier along the paths of many states, one panel for each way to move them.

    A thin line for each state, a thick one for the median, and the border of the desirable region dashed. The title
    says how many end inside.

    Args:
        climbs: way -> values of the same barrier, at points that lie evenly on the path; ways may have more or fewer.
        length: of every path, on the horizontal axis.
        xlabel: meaning of the horizontal axis.
        ylabel: meaning of the vertical one.
        columns: panels in a row.

    Raises:
        ValueError: for a way without states, or a length that is not positive.
    """
    if empty := [name for name, values in climbs.items() if not values.size]:
        raise ValueError(f"{empty[0]}: got no states, expected at least one.")
    if not length > 0:
        raise ValueError(f"length: got {length}, expected a positive number.")
    rows = -(-len(climbs) // columns)
    with look():
        figure, axes = panels(min(columns, len(climbs)), rows, height=2.9, width=WIDTH)
        for i, (axis, (name, values)) in enumerate(zip(axes, climbs.items(), strict=False)):
            tint, time = colour(name, i), np.linspace(0, length, len(values))
            axis.plot(time, values, color=tint, linewidth=0.6, alpha=0.3)
            axis.plot(time, np.median(values, axis=1), color=BLACK, linewidth=2.2, label="median")
            axis.axhline(0, color=GREY, linestyle="--", linewidth=1, label="border")
            inside = int((values[-1] >= 0).sum())
            axis.set_title(f"{name}\n{inside} of {values.shape[1]} end inside", fontsize=9)
            axis.set_xlabel(xlabel, fontsize=9)
        for axis in axes[len(climbs) :]:
            axis.set_axis_off()
        low = min(float(values.min()) for values in climbs.values())
        high = max(float(values.max()) for values in climbs.values())
        room = 0.05 * (high - low)
        for axis in axes:
            axis.set_ylim(min(low, 0) - room, max(high, 0) + room)
        axes[0].set_ylabel(ylabel)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
        return figure


@dataclass(frozen=True)
class Knob:
    """What turning one knob does.

    Attributes:
        places: settings of the knob.
        scores: name -> one estimate for each setting.
        spent: what each setting costs.
        chosen: the setting that the other knobs were turned at.
        log: draw the knob logarithmically.
    """

    places: Sequence[float]
    scores: Mapping[str, Sequence[Estimate]]
    spent: Sequence[float]
    chosen: float
    log: bool = False


def knobs_and_costs(
    knobs: Mapping[str, Knob], *, spent: str, reference: tuple[str, float] | None = None, ylabel: str = "score"
) -> Figure:
    """One column for each knob: scores above, what they cost below on a logarithmic axis.

    Args:
        knobs: meaning of the knob -> what it does.
        spent: what a cost is, with its unit.
        reference: (name, value) of a horizontal line among the scores.
        ylabel: what a score is.
    """
    with look():
        figure, axes = panels(len(knobs), 2, height=2.4, width=WIDTH)
        above, below = axes[: len(knobs)], axes[len(knobs) :]
        for top, bottom, (name, knob) in zip(above, below, knobs.items(), strict=True):
            for i, (score, estimates) in enumerate(knob.scores.items()):
                curve(top, knob.places, estimates, label=score, color=colour(score, i))
            if reference is not None:
                top.axhline(reference[1], color=GREY, linestyle=":", linewidth=1.3, label=reference[0])
            bottom.plot(knob.places, knob.spent, marker="o", color=BLACK)
            for axis in (top, bottom):
                axis.axvline(knob.chosen, color=GREY, linestyle="--", linewidth=1)
                axis.set_xscale("log" if knob.log else "linear")
                axis.set_xticks(list(knob.places), [f"{place:g}" for place in knob.places])
                axis.minorticks_off()
            bottom.set(xlabel=name, yscale="log")
        above[0].set_ylabel(ylabel)
        below[0].set_ylabel(spent)
        handles, labels = above[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
        return figure
