"""The structure of a matplotlib figure: panels, curves, labels, and a hash of the rounded data.

Knows matplotlib's artists; knows nothing of what is plotted. A library upgrade can drop half a figure
without any error: comparing structures notices it, comparing pixels would cry wolf.
"""

from __future__ import annotations

import hashlib

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from steerlib.experiment.records import Artist, AxesRecord, FigureRecord

DIGITS = 3


def _label(text: object) -> str:
    """A legend label; matplotlib's own default labels start with an underscore and mean "none"."""
    label = str(text)
    return "" if label.startswith("_") else label


def _digest(values: np.ndarray) -> str:
    """Hash of an array rounded to `DIGITS` digits of its largest magnitude, so that noise far below it is ignored."""
    array = np.asarray(np.ma.filled(np.ma.asarray(values, dtype=float), np.nan), dtype=float)
    finite = np.abs(array[np.isfinite(array)])
    scale = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    rounded = np.round(array / scale, DIGITS) + 0.0  # + 0.0 turns -0.0 into 0.0
    head = f"{array.shape} {scale:.{DIGITS - 1}e} ".encode()
    return hashlib.sha256(head + rounded.tobytes()).hexdigest()[:16]


def _finite(points: np.ndarray) -> int:
    """How many points are drawn: matplotlib leaves out, without a word, those that are not finite."""
    return int(np.isfinite(np.asarray(points, dtype=float)).all(axis=1).sum()) if len(points) else 0


def _title(axes: Axes) -> str:
    """The title, wherever it stands: the house style puts it on the left, matplotlib looks in the middle."""
    return next((text for place in ("left", "center", "right") if (text := axes.get_title(loc=place))), "")


def _artists(axes: Axes) -> tuple[Artist, ...]:
    found: list[Artist] = []
    for line in axes.lines:
        points = np.column_stack([np.asarray(line.get_xdata(orig=False)), np.asarray(line.get_ydata(orig=False))])
        found.append(Artist(kind="line", label=_label(line.get_label()), points=_finite(points), data=_digest(points)))
    for item in axes.collections:
        offsets = np.asarray(item.get_offsets(), dtype=float)
        paths = [np.asarray(path.vertices, dtype=float) for path in item.get_paths()]
        # A scatter is its offsets (its paths are markers); a filled band or contour is its paths.
        points = offsets if len(offsets) > 1 or not paths else np.concatenate(paths)
        found.append(
            Artist(kind="collection", label=_label(item.get_label()), points=_finite(points), data=_digest(points))
        )
    for bars in (c for c in axes.containers if isinstance(c, BarContainer)):
        sizes = np.array([[bar.get_x(), bar.get_width(), bar.get_height()] for bar in bars], dtype=float)
        found.append(Artist(kind="bars", label=_label(bars.get_label()), points=_finite(sizes), data=_digest(sizes)))
    for image in axes.images:
        pixels = np.asarray(image.get_array(), dtype=float)
        found.append(Artist(kind="image", label=_label(image.get_label()), points=pixels.size, data=_digest(pixels)))
    return tuple(found)


def figure_record(figure: Figure, *, alt: str) -> FigureRecord:
    """Describe a figure: what a reader would miss if it were gone."""
    panels = []
    for axes in figure.axes:
        legend = axes.get_legend()
        panels.append(
            AxesRecord(
                title=_title(axes),
                xlabel=axes.get_xlabel(),
                ylabel=axes.get_ylabel(),
                scales=(axes.get_xscale(), axes.get_yscale()),
                legend=tuple(text.get_text() for text in legend.get_texts()) if legend else (),
                artists=_artists(axes),
            )
        )
    return FigureRecord(alt=alt, axes=tuple(panels))
