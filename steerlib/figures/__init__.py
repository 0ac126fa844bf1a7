"""Every figure of the book, in one style. Functions return a matplotlib figure and never show it."""

from __future__ import annotations

from steerlib.figures.ablations import ablations
from steerlib.figures.almanac import (
    Doses,
    Link,
    accrual,
    dose_sweeps,
    fact_map,
    graded_lines,
    ladder,
    losses,
    stacked_shares,
)
from steerlib.figures.ascent import ascent_paths, cosines, knobs
from steerlib.figures.audit import Reach, forest
from steerlib.figures.barriers import Knob, barrier_paths, knobs_and_costs
from steerlib.figures.courses import course_map
from steerlib.figures.dynamics import Panel, over, small_multiples, trajectories
from steerlib.figures.feedback import error_paths, missed_and_spent
from steerlib.figures.flows import before_and_after, flow_paths, reliability, work_precision
from steerlib.figures.knob_maps import KnobMap, knob_maps
from steerlib.figures.maps import angle_response, gate, head_map, moved, transport
from steerlib.figures.narrow import NARROW, narrow
from steerlib.figures.open_loop import Band, data_efficiency, disturbance, open_loop_response, pushed_clouds, spectrum
from steerlib.figures.plane import Plane, draw
from steerlib.figures.plants import effects
from steerlib.figures.race import Front, Trade, fronts, method_sweep, rejection
from steerlib.figures.readings import reading_and_moving
from steerlib.figures.search import logit_shifts, more_for_time
from steerlib.figures.spheres import measured_and_predicted, reached, sphere_paths
from steerlib.figures.style import PALETTE, ROLES, look, panels
from steerlib.figures.sweeps import curve, dose_response, exactly, intervals, layer_sweep
from steerlib.figures.values import by_position
from steerlib.figures.wiring import placement, scope_grid

__all__ = [
    "PALETTE",
    "ROLES",
    "Band",
    "Doses",
    "Front",
    "Knob",
    "KnobMap",
    "Link",
    "NARROW",
    "Panel",
    "Plane",
    "Reach",
    "Trade",
    "ablations",
    "accrual",
    "angle_response",
    "before_and_after",
    "barrier_paths",
    "by_position",
    "ascent_paths",
    "cosines",
    "course_map",
    "curve",
    "data_efficiency",
    "disturbance",
    "dose_response",
    "dose_sweeps",
    "draw",
    "error_paths",
    "effects",
    "exactly",
    "fact_map",
    "flow_paths",
    "forest",
    "fronts",
    "gate",
    "graded_lines",
    "head_map",
    "intervals",
    "knob_maps",
    "knobs",
    "knobs_and_costs",
    "ladder",
    "layer_sweep",
    "logit_shifts",
    "narrow",
    "look",
    "losses",
    "measured_and_predicted",
    "method_sweep",
    "missed_and_spent",
    "more_for_time",
    "moved",
    "open_loop_response",
    "over",
    "panels",
    "placement",
    "pushed_clouds",
    "reached",
    "reading_and_moving",
    "rejection",
    "reliability",
    "scope_grid",
    "small_multiples",
    "spectrum",
    "sphere_paths",
    "stacked_shares",
    "trajectories",
    "transport",
    "work_precision",
]
