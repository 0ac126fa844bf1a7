"""How a number is written and a figure drawn, so that both survive in the built book.

Knows decimals, SVG and PNG; knows nothing of notebooks or records.
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

SVG_LIMIT = 200_000  # bytes; above it (many points) a PNG is smaller and draws faster
PNG_DPI = 160


def shown_text(value: float, ends: tuple[float, float] | None, *, digits: int | None, exact: bool) -> tuple[str, str]:
    """The bare value and the value with its interval, as text with one number of decimals."""
    if exact:
        return f"{value:.0f}", f"{value:.0f}"
    if digits is None:
        width = (ends[1] - ends[0]) / 2 if ends else 0.0
        if width > 0:  # as many decimals as show the half-width to one digit, two where it starts with a 1
            exponent = math.floor(math.log10(width))
            digits = max(0, -exponent + (1 if width < 1.5 * 10.0**exponent else 0))
        elif value == 0 or 1e-4 <= abs(value) < 1e6:
            digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
        else:
            return f"{value:.2e}", f"{value:.2e}"
    bare = f"{value:z.{digits}f}"  # z: a small negative number is printed as 0.00, not as -0.00
    return bare, bare if ends is None else f"{bare} [{ends[0]:z.{digits}f}, {ends[1]:z.{digits}f}]"


def render(figure: Figure) -> tuple[str, str, dict[str, int]]:
    """A figure as (mime type, data, size metadata): SVG, which is crisp at any width, or PNG when that is heavy."""
    style: Any = {"svg.hashsalt": "steerlib", "svg.fonttype": "path"}  # equal figures give equal files
    look: dict[str, Any] = {"bbox_inches": "tight", "facecolor": "white"}  # a white card, also in dark mode
    with plt.rc_context(style):
        vector = io.StringIO()
        figure.savefig(vector, format="svg", metadata={"Date": None}, **look)
    if len(vector.getvalue().encode()) <= SVG_LIMIT:
        return "image/svg+xml", vector.getvalue(), {}
    raster = io.BytesIO()
    figure.savefig(raster, format="png", dpi=PNG_DPI, **look)
    width = int.from_bytes(raster.getvalue()[16:20], "big")  # of the PNG header
    return "image/png", base64.b64encode(raster.getvalue()).decode(), {"width": round(width * 96 / PNG_DPI)}
