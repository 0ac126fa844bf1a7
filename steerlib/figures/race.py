"""Figures that compare methods: fronts of effect against cost, layer sweeps over controls, error under disturbance.

Knows estimates and names; knows nothing about how they were measured, or which law a name stands for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from steerlib.figures.open_loop import Band
from steerlib.figures.style import GREY, PALETTE, ROLES, WIDTH, look, panels
from steerlib.figures.sweeps import Curves, curve
from steerlib.metrics import Estimate

Better = Literal["high", "low"]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Front:
    """One method at several doses, or at one.

    Attributes:
        cost: one estimate for each dose, on the horizontal axis.
        effect: one for each dose, on the vertical axis.
        control: drawn in grey, and no part of any front.
    """

    cost: Sequence[Estimate]
    effect: Sequence[Estimate]
    control: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        if len(self.cost) != len(self.effect) or not self.cost:
            raise ValueError(
                f"front: got {len(self.cost)} costs and {len(self.effect)} effects, expected one of each for every "
                "dose, and at least one dose."
            )


@dataclass(frozen=True)
class Trade:
    """One panel of fronts.

    Attributes:
        methods: name -> its points.
        xlabel: what the horizontal axis is, with its unit.
        better: which end of the horizontal axis is the good one ("high" for fluency, "low" for drift).
        log: draw the horizontal axis logarithmically.
        start: (cost, effect) of the unsteered plant.
    """

    methods: Mapping[str, Front]
    xlabel: str
    better: Better
    log: bool = False
    start: tuple[float, float] | None = field(default=None)


def undominated(cost: Sequence[float], effect: Sequence[float], *, better: Better) -> Bool[np.ndarray, " points"]:
    """Which points no other point beats: as good on both axes and better on one.

    Args:
        cost: horizontal positions.
        effect: vertical positions; higher is better.
        better: the good end of the horizontal axis.
    """
    sign = 1.0 if better == "high" else -1.0
    points = np.stack([sign * np.asarray(cost, dtype=np.float64), np.asarray(effect, dtype=np.float64)], 1)
    as_good = (points[None] >= points[:, None]).all(-1)
    better_once = (points[None] > points[:, None]).any(-1)
    return np.logical_not(np.any(as_good & better_once, axis=-1))


def fronts(parts: Mapping[str, Trade], *, ylabel: str, height: float = 3.6) -> Figure:
    """Effect against what it costs, one panel for each cost: points with intervals, and the front of all methods.

    Points of one method are joined in the order of their doses. The front is the staircase through the points that
    no other method's point beats; points behind it are pale.

    Args:
        parts: panel title -> panel. A method keeps its colour and mark in all panels.
        ylabel: what the effect is; higher is better.
        height: of the figure, in inches.
    """
    tones = tones_of([(name, front.control) for part in parts.values() for name, front in part.methods.items()])
    with look():
        figure, axes = panels(len(parts), height=height)
        for axis, (title, part) in zip(axes, parts.items(), strict=True):
            _draw_front(axis, part)
            for name, front in part.methods.items():
                _draw_method(axis, part, name, front, *tones[name])
            if part.start is not None:
                axis.plot(*part.start, marker="*", markersize=11, color=ROLES["reference"], linestyle="",
                          label="unsteered", zorder=4)  # fmt: skip
            axis.set(title=title, xlabel=part.xlabel, ylabel=ylabel if axis is axes[0] else "")
            axis.set_xscale("log" if part.log else "linear")
        named: dict[str, Artist] = {}
        for axis in axes:
            named |= dict(zip(*axis.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(list(named.values()), list(named), fontsize=8, loc="outside lower center", ncols=4)
        return figure


def _draw_method(axis: Axes, part: Trade, name: str, front: Front, tone: str, marker: str) -> None:
    x, y = _values(front.cost), _values(front.effect)
    kept = np.zeros(len(x), dtype=bool) if front.control else _on_front(part)[name]
    axis.plot(x, y, color=tone, linewidth=0.8, alpha=0.5)
    for i, (cost, effect) in enumerate(zip(front.cost, front.effect, strict=True)):
        axis.errorbar(
            cost.value, effect.value, xerr=_reach(cost), yerr=_reach(effect), fmt=marker, color=tone,
            alpha=1.0 if kept[i] else 0.35, elinewidth=0.9, markersize=5,
        )  # fmt: skip
    axis.plot([], [], marker=marker, color=tone, linestyle="", label=name)


def _draw_front(axis: Axes, part: Trade) -> None:
    """The staircase of the points that no other beats, controls left out."""
    on = _on_front(part)
    points = [
        (cost.value, effect.value)
        for name, front in part.methods.items()
        for cost, effect, kept in zip(front.cost, front.effect, on.get(name, []), strict=False)
        if kept
    ]
    if points:
        x, y = np.array(sorted(points)).T
        where = "post" if part.better == "low" else "pre"
        axis.step(x, y, where=where, color=ROLES["reference"], linewidth=1.1, linestyle=":", label="front")


def _on_front(part: Trade) -> dict[str, Bool[np.ndarray, " doses"]]:
    """For each method that is no control, which of its points are on the front of all of them."""
    real = {name: front for name, front in part.methods.items() if not front.control}
    if not real:
        return {}
    cost = np.concatenate([_values(front.cost) for front in real.values()])
    effect = np.concatenate([_values(front.effect) for front in real.values()])
    kept = undominated(cost.tolist(), effect.tolist(), better=part.better)
    ends = np.cumsum([len(front.cost) for front in real.values()])[:-1]
    return dict(zip(real, np.split(kept, ends), strict=True))


def tones_of(names: Sequence[tuple[str, bool]]) -> dict[str, tuple[str, str]]:
    """A colour and a mark for each name, controls grey; more names than colours share colours, never both.

    Args:
        names: (name, whether it is a control), in the order in which they are to be told apart.
    """
    out: dict[str, tuple[str, str]] = {}
    for name, control in dict.fromkeys(names):
        place = sum((tone == GREY) == control for tone, _ in out.values())
        if control:
            out[name] = (GREY, MARKERS[place % len(MARKERS)])
        else:
            out[name] = (PALETTE[place % len(PALETTE)], MARKERS[(place + place // len(PALETTE)) % len(MARKERS)])
    return out


def method_sweep(
    layers: Sequence[int],
    groups: Mapping[str, Curves],
    *,
    ylabel: str,
    controls: Mapping[str, Band] | None = None,
    chosen: Mapping[str, int] | None = None,
    unsteered: float | None = None,
    xlabel: str = "layer (block, from 0)",
    log: bool = False,
) -> Figure:
    """A score against the layer at which several methods act, over the band of the negative controls.

    Args:
        layers: blocks, in increasing order.
        groups: panel title -> method -> one estimate for each layer.
        ylabel: name of the score.
        controls: panel title -> what negative controls do at these layers (as `Band.strengths`): a grey band from
            their 5th to their 95th percentile.
        chosen: method -> layer selected on validation, marked by a star on its curve.
        unsteered: score without a law, a dashed line.
        xlabel: what the knob is.
        log: draw the knob logarithmically, with a tick at every value: for numbers of examples.
    """
    tones = tones_of([(name, False) for curves in groups.values() for name in curves])
    with look():
        figure, axes = panels(len(groups), height=3.3, width=WIDTH)
        for axis, (title, curves) in zip(axes, groups.items(), strict=True):
            band = (controls or {}).get(title)
            if band is not None:
                low, high = np.quantile(np.asarray(band.draws), [0.05, 0.95], axis=1)
                axis.fill_between(band.strengths, low, high, color=GREY, alpha=0.25, linewidth=0, label=band.label)
            for name, estimates in curves.items():
                tone, marker = tones[name]
                curve(axis, layers, estimates, label=name, color=tone, marker=marker)
                if chosen and name in chosen:
                    best = estimates[list(layers).index(chosen[name])].value
                    axis.plot(chosen[name], best, marker="*", markersize=13, color=tone, markeredgecolor="white")
            if unsteered is not None:
                axis.axhline(unsteered, color=ROLES["unsteered"], linestyle="--", linewidth=1, label="unsteered")
            axis.set(title=title, xlabel=xlabel, ylabel=ylabel if axis is axes[0] else "")
            if log:
                axis.set_xscale("log")
                axis.xaxis.set_minor_locator(NullLocator())
                axis.set_xticks(list(layers), [str(layer) for layer in layers])
            else:
                axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        handles, names = axes[0].get_legend_handles_labels()
        if chosen:
            handles += axes[0].plot([], [], marker="*", markersize=10, color=GREY, linestyle="")
            names = [*names, "chosen on validation"]
        figure.legend(handles, names, fontsize=8, loc="outside lower center", ncols=4)
        return figure


def rejection(
    sizes: Sequence[float], errors: Mapping[str, Sequence[Estimate]], *, xlabel: str, ylabel: str, passed: str
) -> Figure:
    """Steady-state error against the size of a constant disturbance, for several laws.

    A law that cannot reject a disturbance lies on the diagonal: all of it stays in the state. Perfect rejection is
    the zero line.

    Args:
        sizes: size of the disturbance, in the unit of the error.
        errors: law -> one estimate at each size, of reading minus the reading at size zero.
        xlabel: what the disturbance is, with its unit.
        ylabel: what the error is, with its unit.
        passed: name of the diagonal in the legend, such as "no rejection".
    """
    tones = tones_of([(name, False) for name in errors])
    with look():
        figure, (axis,) = panels(1, height=3.5, width=5.8)
        axis.plot(sizes, sizes, color=ROLES["reference"], linestyle=":", linewidth=1.3, label=passed)
        axis.axhline(0, color=GREY, linewidth=1, linestyle="--", label="perfect rejection")
        for name, estimates in errors.items():
            tone, marker = tones[name]
            curve(axis, sizes, estimates, label=name, color=tone, marker=marker)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        figure.legend(*axis.get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=3)
        return figure


def _values(estimates: Sequence[Estimate]) -> Float[np.ndarray, " points"]:
    return np.array([estimate.value for estimate in estimates])


def _reach(estimate: Estimate) -> list[list[float]]:
    return [[max(0.0, estimate.value - estimate.low)], [max(0.0, estimate.high - estimate.value)]]
