"""Figures of the Almanac and its plants: who is linked to whom, who says what, how reward accrues, how plants grow.

Knows names, shares and curves; knows nothing about how they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

from steerlib.figures.dynamics import Panel
from steerlib.figures.style import BLUE, GREEN, GREY, ORANGE, PALETTE, ROLES, SKY, VERMILION, look, panels
from steerlib.figures.sweeps import curve

#: Five colours from one end of a scale to the other.
SCALE = (BLUE, SKY, GREY, ORANGE, VERMILION)
#: What an answer amounts to keeps its colour.
PARTS = {"truth": GREEN, "popular error": VERMILION, "no comment": GREY, "anything else": "#D9D9D9"}
SWEEPS = 12


@dataclass(frozen=True)
class Link:
    """A line of a map from a name in one column to a name in the next.

    Attributes:
        start: a name of column ``column``.
        end: a name of column ``column + 1``.
        column: the column on its left, from 0.
        kind: what the line says; lines of one kind have one colour.
        followed: draw it thick, and its two names in bold.
    """

    start: str
    end: str
    column: int
    kind: str
    followed: bool = False


def fact_map(columns: Mapping[str, Sequence[str]], links: Sequence[Link], *, dashed: str = "") -> Figure:
    """Names in columns, lines between them; each column is put in an order in which few lines cross.

    Args:
        columns: title -> names.
        links: the lines.
        dashed: the kind of line that is drawn dashed.

    Raises:
        ValueError: if a line names somebody who is not in its columns.
    """
    names = [list(column) for column in columns.values()]
    for link in links:
        if not 0 <= link.column < len(names) - 1:
            raise ValueError(f"{link}: got column {link.column}, expected 0 to {len(names) - 2}")
        for name, column in ((link.start, link.column), (link.end, link.column + 1)):
            if name not in names[column]:
                raise ValueError(f"{link}: got {name!r}, expected a name of column {list(columns)[column]!r}")
    place = _places(names, links)
    kinds = list(dict.fromkeys(link.kind for link in links))
    tone = {kind: VERMILION if kind == dashed else PALETTE[i if i == 0 else i + 1] for i, kind in enumerate(kinds)}
    bold = {(link.column + side, (link.start, link.end)[side]) for link in links if link.followed for side in (0, 1)}
    with look():
        figure, (axis,) = panels(1, height=0.7 + 0.2 * max(map(len, names)), width=4.7)
        for link in sorted(links, key=lambda link: link.followed):
            axis.plot(
                [link.column, link.column + 1], [place[link.column, link.start], place[link.column + 1, link.end]],
                color=tone[link.kind], linewidth=2.6 if link.followed else 0.8, alpha=1.0 if link.followed else 0.45,
                linestyle="--" if link.kind == dashed else "-", zorder=2 if link.followed else 1,
            )  # fmt: skip
        for kind in kinds:
            axis.plot([], [], color=tone[kind], linestyle="--" if kind == dashed else "-", label=kind)
        sides = ["right", *["center"] * (len(names) - 2), "left"]
        for column, (found, side) in enumerate(zip(names, sides, strict=True)):
            shift = {"right": -0.02, "left": 0.02}.get(side, 0.0)
            for name in found:
                axis.text(
                    column + shift, place[column, name], name, ha=side, va="center", fontsize=9,
                    fontweight="bold" if (column, name) in bold else "normal",
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6}, zorder=3,
                )  # fmt: skip
        axis.set_xticks(range(len(names)), list(columns))
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.set(yticks=[], xlim=(-0.45, len(names) - 0.65), ylim=(1.02, -0.02))
        axis.grid(visible=False)
        for spine in axis.spines.values():
            spine.set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
        return figure


def _places(names: Sequence[list[str]], links: Sequence[Link]) -> dict[tuple[int, str], float]:
    """Height of each name in [0, 1]: names next to those that they are linked with, as far as that goes."""
    # The same name may stand in two columns, so that a key is a column and a name.
    near: dict[tuple[int, str], list[tuple[int, str]]] = {}
    for link in links:
        a, b = (link.column, link.start), (link.column + 1, link.end)
        near.setdefault(a, []).append(b)
        near.setdefault(b, []).append(a)
    place = {(c, name): (i + 0.5) / len(found) for c, found in enumerate(names) for i, name in enumerate(found)}
    for sweep in range(SWEEPS):
        order = range(len(names)) if sweep % 2 == 0 else reversed(range(len(names)))
        for column in order:
            keys = [(column, name) for name in names[column]]
            wish = {key: float(np.mean([place[other] for other in near.get(key, [key])])) for key in keys}
            for i, key in enumerate(sorted(keys, key=lambda key: wish[key])):
                place[key] = (i + 0.5) / len(keys)
    return place


def graded_lines(
    x: Float[np.ndarray, " points"],
    curves: Mapping[str, Float[np.ndarray, " points"]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
) -> Figure:
    """Up to five curves in the colours of a scale, named under the picture, one below the other."""
    with look():
        figure, (axis,) = panels(1, height=2.7 + 0.2 * len(curves), width=5.6)
        for tone, (name, values) in zip(SCALE, curves.items(), strict=False):
            axis.plot(x, values, color=tone, label=name)
        axis.set(xlabel=xlabel, ylabel=ylabel, title=title, ylim=(0, None), xlim=(x.min(), x.max()))
        figure.legend(loc="outside lower center", fontsize=8.5)
        return figure


def stacked_shares(groups: Mapping[str, Mapping[str, Mapping[str, float]]], *, xlabel: str) -> Figure:
    """What each of several sources says, as one bar of shares for each; a panel for each question.

    Args:
        groups: question -> source -> part of `PARTS` -> share; the shares of a source sum to at most one, and what
            is missing is drawn as "anything else".
        xlabel: what the shares are of.

    Raises:
        ValueError: an unknown part, or shares that sum to more than one.
    """
    most = max(len(rows) for rows in groups.values())
    with look():
        figure, axes = panels(1, len(groups), height=0.6 + 0.3 * most, width=5.8)
        for axis, (title, rows) in zip(axes, groups.items(), strict=True):
            for place, (source, shares) in enumerate(rows.items()):
                _bar(axis, place, source, shares)
            axis.set_yticks(range(len(rows)), list(rows))
            axis.invert_yaxis()
            axis.set(title=title, xlim=(0, 1))
            axis.grid(visible=False)
        axes[-1].set(xlabel=xlabel)
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize=8.5)
        return figure


def _bar(axis: Axes, place: int, source: str, shares: Mapping[str, float]) -> None:
    if unknown := set(shares) - set(PARTS):
        raise ValueError(f"{source}: got parts {sorted(unknown)}, expected some of {', '.join(PARTS)}")
    rest = 1.0 - sum(shares.values())
    if rest < -1e-3:
        raise ValueError(f"{source}: got shares that sum to {1.0 - rest:.4f}, expected at most 1")
    full = {part: float(shares.get(part, 0.0)) for part in PARTS}
    full["anything else"] += max(rest, 0.0)
    left = 0.0
    for part, share in full.items():
        axis.barh(place, share, left=left, color=PARTS[part], height=0.72, label=part if place == 0 else None)
        left += share


def accrual(paths: Mapping[str, Sequence[Sequence[float]]], *, xlabel: str, ylabel: str) -> Figure:
    """How a sum grows, term by term, in several runs; a panel for each start.

    Args:
        paths: title -> the sum after each term, one sequence for each run; each starts from zero.
        xlabel: what the terms are.
        ylabel: what is summed.
    """
    with look():
        figure, axes = panels(len(paths), height=3.1)
        for axis, (title, runs) in zip(axes, paths.items(), strict=True):
            for i, run in enumerate(runs):
                tone = PALETTE[i % len(PALETTE)]
                axis.plot(
                    range(len(run) + 1), [0.0, *run], color=tone, linewidth=1.3, alpha=0.8, label=f"reply {i + 1}"
                )
                axis.plot(len(run), run[-1], "o", color=tone)
            axis.axhline(0.0, color=GREY, linewidth=0.8)
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
            axis.set(title=title, xlabel=xlabel)
        heights = [0.0, *(value for runs in paths.values() for run in runs for value in run)]
        room = 0.05 * (max(heights) - min(heights) or 1.0)
        for axis in axes:
            axis.set(ylim=(min(heights) - room, max(heights) + room))
        axes[0].set(ylabel=ylabel)
        return figure


def losses(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, marks: Mapping[str, float] | None = None, smooth: int = 5
) -> Figure:
    """Loss curves of several plants over the share of their training, with marks where something changed.

    Args:
        curves: plant -> (share of the training in [0, 1], loss in nats per token) along the way.
        marks: what changed -> share of the training.
        smooth: points that each drawn point is the mean of.
    """
    with look():
        figure, (axis,) = panels(1, height=3.3, width=6.2)
        for i, (name, points) in enumerate(curves.items()):
            x, y = np.asarray(points, dtype=float).T
            k = max(1, min(smooth, len(x)))
            mean = np.convolve(y, np.full(k, 1.0 / k), mode="valid")
            axis.plot(
                np.convolve(x, np.full(k, 1.0 / k), mode="valid"), mean, color=PALETTE[i % len(PALETTE)], label=name
            )
        for name, where in (marks or {}).items():
            axis.axvline(where, color=GREY, linestyle="--", linewidth=1, label=name)
        axis.set(xlabel="share of the training", ylabel="loss, nats per token", yscale="log")
        axis.yaxis.set_major_locator(FixedLocator([0.4, 0.5, 0.6, 0.8, 1, 1.5, 2, 3, 4, 6, 8]))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.legend(fontsize=8.5)
        return figure


@dataclass(frozen=True)
class Doses:
    """Scores of a push at every layer and strength.

    Attributes:
        strengths: the strengths, in increasing order.
        scores: one row of scores for each layer.
        intact: one row for each layer, of how far answers stayed intact.
        layer: the layer that was chosen.
        strength: the strength that was chosen.
        start: score without a push; None if it is not known.
    """

    strengths: Sequence[float]
    scores: Float[np.ndarray, "layers strengths"]
    intact: Float[np.ndarray, "layers strengths"]
    layer: int
    strength: float
    start: float | None = None


def dose_sweeps(sweeps: Mapping[str, Doses], *, xlabel: str) -> Figure:
    """Scores against strength: the chosen layer in colour, with its intact answers, and the other layers in grey.

    Args:
        sweeps: behaviour -> what was measured.
        xlabel: what the strength is, with its unit.
    """
    with look():
        figure, axes = panels(len(sweeps), height=3.3)
        for axis, (title, found) in zip(axes, sweeps.items(), strict=True):
            for layer, row in enumerate(found.scores):
                if layer != found.layer:
                    axis.plot(found.strengths, row, color=GREY, linewidth=0.8, alpha=0.6, label="other layers")
            axis.plot(found.strengths, found.scores[found.layer], "o-", color=ROLES["law"], label="chosen layer")
            axis.plot(
                found.strengths, found.intact[found.layer], "s:", color=ORANGE, markersize=3.5, linewidth=1.2,
                label="intact answers, chosen layer",
            )  # fmt: skip
            if found.start is not None:
                axis.axhline(found.start, color=ROLES["reference"], linestyle=":", linewidth=1.2, label="unsteered")
            axis.axvline(found.strength, color=GREY, linestyle="--", linewidth=1, label="chosen strength")
            axis.set(title=f"{title}, block {found.layer}", xscale="log", ylim=(-0.03, 1.03))
            axis.xaxis.set_major_locator(FixedLocator(list(found.strengths)[::-2]))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes[0].set(ylabel="score on validation prompts")
        figure.supxlabel(xlabel, fontsize=10)
        named = {
            label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
        }
        figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=3, fontsize=8)
        return figure


def ladder(sizes: Sequence[float], parts: Mapping[str, Panel], *, xlabel: str) -> Figure:
    """Figures of plants against their size, on a logarithmic axis; each panel names its own curves.

    Args:
        sizes: sizes of the plants, in increasing order.
        parts: panel title -> panel, one estimate for each plant in every curve.
        xlabel: what the size is, with its unit.
    """
    with look():
        figure, axes = panels(len(parts), height=3.6)
        for axis, (title, part) in zip(axes, parts.items(), strict=True):
            for i, (name, estimates) in enumerate(part.curves.items()):
                curve(axis, sizes, estimates, label=name, color=PALETTE[i % len(PALETTE)])
            axis.set(
                title=title, xlabel=xlabel, ylabel=part.ylabel, xscale="log", ylim=(min(0.0, axis.get_ylim()[0]), None)
            )
            axis.xaxis.set_major_locator(FixedLocator(list(sizes)))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:.2g}"))
            axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=1)
        return figure
