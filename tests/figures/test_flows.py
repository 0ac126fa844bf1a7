"""Pictures of flows show each path, each solver, each state and each bin, with what they were given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import ROLES, Plane, before_and_after, flow_paths, reliability, work_precision
from steerlib.metrics import Estimate


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def test_every_state_has_its_path_and_every_name_one_entry() -> None:
    plane = Plane(np.zeros(3), np.eye(3)[0], np.eye(3)[1])
    rng = np.random.default_rng(0)
    path = rng.normal(size=(4, 2, 3))
    (axis,) = flow_paths(plane, {"positive": rng.normal(size=(5, 3))}, {"Euler": path}).axes
    drawn = [points for line in axis.get_lines() if len(points := np.asarray(line.get_xydata())) == 4]
    assert len(drawn) == 2
    for k, line in enumerate(drawn):
        np.testing.assert_allclose(line, path[:, k, :2])
    tones = {line.get_label(): line.get_color() for line in axis.get_lines()}
    assert tones["Euler"] != ROLES["positive"], "a path has a colour of its own"
    legend = axis.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["positive", "Euler", "class mean"]


def test_errors_stand_over_their_work_on_logarithmic_axes() -> None:
    parts = {"toy": {"euler": ([1, 2, 4], [1.0, 0.5, 0.25])}, "plant": {"rk4": ([4, 8], [1e-3, 1e-5])}}
    figure = work_precision(parts, xlabel="looks", ylabel="error")
    assert [(axis.get_xscale(), axis.get_yscale()) for axis in figure.axes] == [("log", "log")] * 2
    np.testing.assert_array_equal(figure.axes[0].get_lines()[0].get_xydata(), [[1, 1.0], [2, 0.5], [4, 0.25]])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["euler", "rk4"]


def test_a_law_is_seen_beside_what_it_was_asked_for() -> None:
    before = np.array([-1.0, 0.0, 2.0])
    figure = before_and_after({"filter": {"negative": (before, np.maximum(before, 1))}}, line=("margin", 1.0))
    (axis,) = figure.axes
    np.testing.assert_array_equal(axis.collections[0].get_offsets(), [[-1, 1], [0, 1], [2, 2]])
    level = next(line for line in axis.get_lines() if line.get_label() == "margin")
    np.testing.assert_array_equal(np.asarray(level.get_ydata()), [1.0, 1.0])
    with pytest.raises(ValueError, match="got 3 before and 2 after"):
        before_and_after({"filter": {"negative": (before, before[:2])}}, line=("margin", 1.0))


def test_bins_have_their_intervals_and_the_diagonal_stands_beside() -> None:
    met = [Estimate(0.2, 0.1, 0.4, 30), Estimate(0.9, 0.7, 1.0, 30)]
    figure = reliability({"means": ([0.0, 1.0], met), "sketch": ([0.3, 0.7], met)}, columns=2)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["means", "sketch"]
    container: Any = figure.axes[1].containers[0]
    np.testing.assert_array_equal(container.lines[0].get_xydata(), [[0.3, 0.2], [0.7, 0.9]])
    segments = container.lines[2][0].get_segments()
    np.testing.assert_allclose(segments[0], [[0.3, 0.1], [0.3, 0.4]])
    diagonal = figure.axes[1].get_lines()[0]
    np.testing.assert_array_equal(np.asarray(diagonal.get_xydata()), [[0, 0], [1, 1]])
