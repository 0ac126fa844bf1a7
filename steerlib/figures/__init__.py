"""Every figure of the book, in one style. Functions return a matplotlib figure and never show it."""

from __future__ import annotations

from steerlib.figures.dynamics import Panel, over, small_multiples, trajectories
from steerlib.figures.open_loop import Band, data_efficiency, disturbance, open_loop_response, pushed_clouds, spectrum
from steerlib.figures.plane import Plane, draw
from steerlib.figures.style import PALETTE, ROLES, look, panels
from steerlib.figures.sweeps import curve, dose_response, intervals, layer_sweep
from steerlib.figures.wiring import placement, scope_grid

__all__ = [
    "PALETTE",
    "ROLES",
    "Band",
    "Panel",
    "Plane",
    "curve",
    "data_efficiency",
    "disturbance",
    "dose_response",
    "draw",
    "intervals",
    "layer_sweep",
    "look",
    "open_loop_response",
    "over",
    "panels",
    "placement",
    "pushed_clouds",
    "scope_grid",
    "small_multiples",
    "spectrum",
    "trajectories",
]
