"""Figures of search at decoding time: what a method does to the logits, against what the tokens are worth.

Knows numbers for tokens; knows nothing about plants or decoders.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from steerlib.figures.race import MARKERS
from steerlib.figures.style import GREY, PALETTE, look, panels


def logit_shifts(
    worth: Float[np.ndarray, " tokens"],
    shifts: Mapping[str, Float[np.ndarray, " shifted"]],
    probabilities: Float[np.ndarray, " tokens"],
    *,
    xlabel: str,
    ylabel: str,
) -> Figure:
    """Shift of each candidate's logit against its worth, at one state; the area of a mark grows with probability.

    Args:
        worth: of each token.
        shifts: method -> shift of each token's logit.
        probabilities: of each token, before the shift.
        xlabel: what worth is.
        ylabel: what the shift is.

    Raises:
        ValueError: if there is not one number for each token.
    """
    for name, shift in {**shifts, "probabilities": probabilities}.items():
        if shift.shape != worth.shape:
            raise ValueError(f"logit_shifts: {name} has shape {shift.shape}, expected one for each of {worth.shape}.")
    with look():
        figure, (axis,) = panels(1, height=3.2, width=5.8)
        axis.axhline(0, color=GREY, linewidth=1, linestyle="--")
        for i, (name, shift) in enumerate(shifts.items()):
            axis.scatter(
                worth, shift, s=20 + 400 * probabilities, color=PALETTE[i], marker=MARKERS[i], alpha=0.6, linewidth=0,
                label=name,
            )  # fmt: skip
        axis.set(xlabel=xlabel, ylabel=ylabel)
        legend = figure.legend(*axis.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3)
        for handle in legend.legend_handles:
            handle.set_sizes([40.0])  # type: ignore[union-attr]
        return figure
