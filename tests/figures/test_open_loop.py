"""Figures of open-loop control draw what they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import (
    Band,
    Plane,
    data_efficiency,
    disturbance,
    draw,
    open_loop_response,
    pushed_clouds,
    spectrum,
)
from steerlib.metrics import Estimate


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


ESTIMATES = [Estimate(v, v - 0.1, v + 0.1, 10) for v in (0.2, 0.5, 0.4)]


def test_response_shows_law_controls_and_ceiling() -> None:
    draws = [[0.0, 0.5, 1.0], [0.2] * 3, list(np.linspace(0, 1, 21))]
    bands = {"A": [Band([-1, 0, 1], draws, "random directions")]}
    figure = open_loop_response(
        [-1, 0, 1], {"A": ESTIMATES, "B": ESTIMATES}, {}, label="law", xlabel="dose", chosen=1.0
    )
    assert [axis.get_ylabel() for axis in figure.axes] == ["A", "B"]
    assert figure.axes[1].get_xlabel() == "dose"
    ragged = pytest.raises(ValueError, match="inhomogeneous")
    with ragged:
        open_loop_response([-1, 0, 1], {"A": ESTIMATES}, bands, label="law", xlabel="dose", chosen=1.0)
    even = {"A": [Band([-1, 0, 1], [np.linspace(0, 1, 21) + i for i in range(3)], "random directions")]}
    figure = open_loop_response(
        [-1, 0, 1], {"A": ESTIMATES}, even, label="law", xlabel="dose", chosen=1.0, reference={"A": ("prompted", 0.9)}
    )
    axis = figure.axes[0]
    band = axis.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.05)  # 5th percentile of the first row, 95th of the last
    assert band[:, 1].max() == pytest.approx(2.95)
    labels = axis.get_legend_handles_labels()[1]
    assert {"random directions", "law", "prompted", "chosen on validation"} <= set(labels)
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.5, 1.5, 2.5])  # mean of the controls


def test_pushed_clouds_mark_every_mean() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(40, 5))
    push = np.array([2.0, 0, 0, 0, 0])
    plane = Plane.of(push, states)
    clouds = {"negative": states, "steered": states + push}
    figure = pushed_clouds(plane, clouds, arrow=(states.mean(0), states.mean(0) + push), label="law", title="t")
    top, bottom = figure.axes
    means = [plane.project(cloud)[:, 0].mean() for cloud in clouds.values()]
    dashed = [line.get_xdata()[0] for line in bottom.lines]
    np.testing.assert_allclose(dashed, means)
    assert dashed[1] - dashed[0] == pytest.approx(2.0)
    first, second = top.lines[0].get_ydata(), top.lines[2].get_ydata()
    np.testing.assert_allclose(first, second, atol=1e-9)  # the same shape, elsewhere


def test_points_can_be_made_large() -> None:
    states = np.random.default_rng(0).normal(size=(3, 2))
    figure = draw(Plane(np.zeros(2), np.eye(2)[0], np.eye(2)[1]), {"positive": states}, size=70)
    assert figure.axes[0].collections[0].get_sizes().tolist() == [70]


def test_spectrum_is_sorted_and_compared() -> None:
    axis = spectrum(np.array([1.0, 100.0, 10.0]), mean=37.0).axes[0]
    assert axis.get_yscale() == "log"
    assert axis.lines[0].get_ydata().tolist() == [100.0, 10.0, 1.0]
    assert set(axis.lines[1].get_ydata()) == {37.0}


def test_data_efficiency_draws_fits_median_and_theory() -> None:
    axis = data_efficiency([2, 8], [np.array([40.0, 60.0, 50.0]), np.array([25.0])], [45.0, 22.0], xlabel="n").axes[0]
    by_label = {line.get_label(): line for line in axis.lines}
    assert by_label["median of fits"].get_ydata().tolist() == [50.0, 25.0]
    assert by_label["theory"].get_ydata().tolist() == [45.0, 22.0]
    assert by_label["one fit"].get_ydata().tolist() == [40.0, 60.0, 50.0]
    assert axis.get_xscale() == "log"


def test_disturbance_has_reading_and_behaviour() -> None:
    readings = {"unsteered": [3.0, 2.0, 1.0], "feedback": [4.0, 4.0, 4.0]}
    scores = {name: ESTIMATES for name in readings}
    figure = disturbance([0, 1, 2], readings, scores, setpoint=4.0, xlabel="w", ylabel="score")
    left, right = figure.axes
    assert left.lines[0].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert set(left.lines[-1].get_ydata()) == {4.0}
    assert right.get_ylabel() == "score"
