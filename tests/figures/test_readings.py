"""Directions stand where they read and move."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures.readings import reading_and_moving
from steerlib.metrics import Estimate

POINTS = {
    "mean": (Estimate(0.9, 0.8, 1.0, 10), Estimate(0.3, 0.2, 0.5, 10)),
    "random": (Estimate(0.5, 0.4, 0.6, 10), Estimate(-0.1, -0.2, 0.1, 10)),
}


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def test_points_stand_at_reading_and_effect_with_their_intervals() -> None:
    figure = reading_and_moving(POINTS, ylabel="gain", controls=("random",))
    (axis,) = figure.axes
    drawn = {bars.get_label(): bars for bars in axis.containers}
    assert set(drawn) == set(POINTS)
    for name, (reading, effect) in POINTS.items():
        line, _, (across, up) = drawn[name]
        np.testing.assert_allclose(line.get_xydata(), [[reading.value, effect.value]])
        np.testing.assert_allclose(across.get_segments()[0][:, 0], [reading.low, reading.high])
        np.testing.assert_allclose(up.get_segments()[0][:, 1], [effect.low, effect.high])
        assert (line.get_markerfacecolor() == "white") == (name == "random"), "controls are hollow"
    assert axis.get_ylabel() == "gain"


def test_a_control_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="'shuffled', expected some of mean, random"):
        reading_and_moving(POINTS, ylabel="gain", controls=("shuffled",))
