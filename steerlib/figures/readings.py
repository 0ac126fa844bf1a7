"""What a direction reads against what it moves.

Knows estimates and labels; knows nothing about how they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from steerlib.figures.race import tones_of
from steerlib.figures.style import GREY, look, panels
from steerlib.metrics import Estimate


def reading_and_moving(
    points: Mapping[str, tuple[Estimate, Estimate]], *, ylabel: str, controls: tuple[str, ...] = ()
) -> Figure:
    """Directions as points: how well each tells two classes apart, and what a push along it does.

    Args:
        points: direction -> (AUC of its reading, effect of the push).
        ylabel: what the effect is, with the condition under which pushes are compared.
        controls: names of the directions that should do nothing, drawn hollow.

    Raises:
        ValueError: if a control is not among the points.
    """
    strange = [name for name in controls if name not in points]
    if strange:
        raise ValueError(f"controls: got {strange[0]!r}, expected some of {', '.join(points)}.")
    tones = tones_of([(name, name in controls) for name in points])
    with look():
        figure, (axis,) = panels(1, height=3.6, width=6.2)
        axis.axvline(0.5, color=GREY, linestyle=":", linewidth=1.2, label="reads nothing")
        axis.axhline(0.0, color=GREY, linestyle="--", linewidth=1.2, label="moves nothing")
        for name, (reading, effect) in points.items():
            tone, marker = tones[name]
            axis.errorbar(
                reading.value, effect.value, fmt=marker, color=tone, label=name, capsize=3, markersize=7,
                markerfacecolor="white" if name in controls else tone,
                xerr=[[reading.value - reading.low], [reading.high - reading.value]],
                yerr=[[effect.value - effect.low], [effect.high - effect.value]],
            )  # fmt: skip
        axis.set(xlabel="reading: AUC on held-out texts", ylabel=ylabel)
        figure.legend(*axis.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3)
        return figure
