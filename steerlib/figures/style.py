"""One look for every figure: palette, sizes, panels.

Knows matplotlib; knows nothing about plants or laws. The palette is Okabe and Ito's, which people with the common
kinds of colour blindness can tell apart; it is the palette of the book's pages too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, BLACK, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#000000", "#7A7A7A"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)

# A thing keeps its colour through the book.
ROLES = {
    "positive": GREEN,
    "negative": VERMILION,
    "unsteered": GREY,
    "steered": BLUE,
    "law": BLUE,
    "random": ORANGE,
    "shuffled": PURPLE,
    "reference": BLACK,
}

WIDTH = 7.2  # inches; a page's text column
NARROW = 4.8  # inches; drawn so, letters can still be read where a phone shows the figure 350 pixels wide
_RC: Any = {  # matplotlib's stub asks for its own key type
    "figure.dpi": 120,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "svg.fonttype": "path",
    "figure.constrained_layout.use": True,
}


@contextmanager
def look() -> Iterator[None]:
    """Draw inside the house style without changing matplotlib's own settings."""
    with sns.axes_style("ticks"), mpl.rc_context(_RC):
        yield


def panels(columns: int = 1, rows: int = 1, *, height: float = 2.9, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure of a page's width with rows x columns axes, as a flat list. Call inside `look()`."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height * rows), squeeze=False)
    return figure, list(axes.flat)
