"""Many methods on many courses in one picture: a colour for every effect, a star where it stands out.

Knows names and numbers; knows nothing about how they were measured, or what standing out means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from matplotlib.figure import Figure

from steerlib.figures.style import GREY, WIDTH, look, panels

#: Method -> behaviour -> plant -> effect; where a method did not run there is nothing.
Effects = Mapping[str, Mapping[str, Mapping[str, float]]]


def course_map(
    effects: Effects, *, stars: Collection[tuple[str, str, str]] = (), label: str, marks: Mapping[str, str]
) -> Figure:
    """A grid of methods by courses, columns grouped by behaviour; purple is better than unsteered, orange worse.

    Args:
        effects: all courses that were run, those of the first method giving the order. A cell without an effect has a
            grey dash.
        stars: (method, behaviour, plant) that get one.
        label: what the colour means, with its unit.
        marks: plant -> the letters that stand for it above its columns.

    Raises:
        ValueError: no course, a star where no effect is, or a plant without letters.
    """
    courses = list(dict.fromkeys((b, p) for row in effects.values() for b, found in row.items() for p in found))
    order = list(dict.fromkeys(behaviour for behaviour, _ in courses))
    plants = list(dict.fromkeys(plant for _, plant in courses))
    columns = [(b, p) for b in order for p in plants if (b, p) in courses]
    bare = [star for star in stars if star[2] not in effects.get(star[0], {}).get(star[1], {})]
    nameless = [plant for plant in plants if plant not in marks]
    if not columns or bare or nameless:
        raise ValueError(
            f"course_map: got {len(columns)} courses, stars without an effect at {bare[:1]}, and plants without "
            f"letters {nameless}; expected a course, and none of either."
        )
    # A gap of half a column parts behaviours.
    places = [k + 0.5 * order.index(b) for k, (b, _) in enumerate(columns)]
    values = np.array([[effects[m].get(b, {}).get(p, np.nan) for b, p in columns] for m in effects])
    reach = max(float(np.nanmax(np.abs(values))), 0.01)
    with look():
        figure, (axis,) = panels(1, height=1.4 + 0.24 * len(effects), width=WIDTH)
        for k, x in enumerate(places):
            edges = ([x - 0.5, x + 0.5], np.arange(len(effects) + 1) - 0.5)
            mesh = axis.pcolormesh(
                *edges, np.ma.masked_invalid(values[:, k : k + 1]), cmap="PuOr", vmin=-reach, vmax=reach,
                edgecolors="white", linewidth=0.6,
            )  # fmt: skip
            for row, method in enumerate(effects):
                starred = (method, *columns[k]) in stars
                said = "★" if starred else "–" if np.isnan(values[row, k]) else ""
                dark = starred and abs(values[row, k]) > 0.6 * reach
                tint = GREY if said == "–" else "white" if dark else "black"
                axis.text(x, row, said, ha="center", va="center", fontsize=9, color=tint, fontfamily="DejaVu Sans")
        axis.set_ylim(len(effects) - 0.5, -0.5)
        axis.set_yticks(range(len(effects)), list(effects), fontsize=8.5)
        axis.set_xticks(places, [marks[plant] for _, plant in columns], fontsize=8.5)
        axis.xaxis.tick_top()
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        axis.grid(visible=False)
        for behaviour in order:
            own = [x for x, (b, _) in zip(places, columns, strict=True) if b == behaviour]
            axis.annotate(
                behaviour, (float(np.mean(own)), 1), xycoords=("data", "axes fraction"), xytext=(0, 18),
                textcoords="offset points", ha="center", fontsize=9, fontweight="bold", annotation_clip=False,
            )  # fmt: skip
        figure.colorbar(mesh, ax=axis, label=label, location="bottom", shrink=0.6, pad=0.02, aspect=40)
        return figure
