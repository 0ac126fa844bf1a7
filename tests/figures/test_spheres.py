"""Pictures of heights on the sphere show each path where it went, and each point against what it could reach."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import measured_and_predicted, reached, sphere_paths


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def test_paths_are_drawn_on_the_disc_and_their_heights_beside_it() -> None:
    def height(x: np.ndarray) -> np.ndarray:
        return x[:, 0] ** 2 + 0.2 * x[:, 0] - 1

    times = [0.0, 1.0, 2.0]
    angles = np.array([0.1, 0.6, 1.2])
    path = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], 1)
    disc, curves = sphere_paths(height, {"steered": path, "other": -path}, times=times).axes[:2]
    lines = {line.get_label(): line.get_xydata() for line in disc.get_lines()}
    np.testing.assert_array_equal(lines["steered"], path[:, :2])
    heights = {line.get_label(): line.get_xydata() for line in curves.get_lines()}
    np.testing.assert_allclose(np.asarray(heights["other"]), np.stack([times, height(-path)], 1))
    held = disc.collections[0].get_array()
    assert held is not None
    drawn = np.ma.filled(held, np.nan).ravel()
    assert np.isnan(drawn[0]), "a corner is off the sphere"
    assert drawn[len(drawn) // 2] == pytest.approx(-1.0), "the middle is the pole"


def test_points_stand_where_they_came_to_and_the_diagonal_spans_them_all() -> None:
    clouds = {"euler": ([0.0, 1.0], [-0.5, 0.9]), "geodesic": ([0.0, 2.0], [0.0, 1.5])}
    (axis,) = reached(clouds, xlabel="most", ylabel="reached", zero=None).axes
    lines = {line.get_label(): line.get_xydata() for line in axis.get_lines()}
    for name, pair in clouds.items():
        np.testing.assert_array_equal(lines[name], np.stack(pair, 1))
    np.testing.assert_array_equal(lines["all that could be"], [[-0.5, -0.5], [2.0, 2.0]])
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("most", "reached")
    assert len(reached(clouds, xlabel="a", ylabel="b").axes[0].get_lines()) == len(clouds) + 3


def test_what_a_formula_says_is_dashed_over_what_was_measured() -> None:
    figure = measured_and_predicted(
        [0.1, 0.2, 0.4], {"gap": [1.0, 2.0, 4.0]}, {"said": [1.1, 2.0, 4.0]}, xlabel="x", ylabel="y", log=True
    )
    (axis,) = figure.axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    np.testing.assert_array_equal(lines["gap"].get_xydata(), [[0.1, 1], [0.2, 2], [0.4, 4]])
    np.testing.assert_array_equal(lines["said"].get_xydata(), [[0.1, 1.1], [0.2, 2], [0.4, 4]])
    assert (lines["gap"].get_linestyle(), lines["gap"].get_marker()) == ("-", "o")
    assert lines["said"].get_linestyle() != "-"
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    figure.canvas.draw()
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0.1", "0.2", "0.4"]
    flat = measured_and_predicted([0.0, 1.0], {"a": [1.0, 2.0]}, {}, xlabel="x", ylabel="y", dots=False).axes[0]
    assert flat.get_xscale() == "linear" and flat.get_lines()[0].get_marker() in ("", "None", None)
