"""Every figure of the book, in one style. Functions return a matplotlib figure and never show it."""

from __future__ import annotations

from steerlib.figures.plane import Plane, draw
from steerlib.figures.style import PALETTE, ROLES, look, panels
from steerlib.figures.sweeps import curve, dose_response, intervals, layer_sweep

__all__ = [
    "PALETTE",
    "ROLES",
    "Plane",
    "curve",
    "dose_response",
    "draw",
    "intervals",
    "layer_sweep",
    "look",
    "panels",
]
