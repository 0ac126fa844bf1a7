"""Pictures of feedback show each path and each law, with what they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import error_paths, missed_and_spent


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def test_paths_are_drawn_as_they_are_and_numbered_once() -> None:
    paths = {"unsteered": np.array([[3.0, 0], [3, 1], [4, 4]]), "q = 1": np.array([[3.0, 0], [1, 0], [0.5, 0.5]])}
    (axis,) = error_paths(paths, xlabel="first", ylabel="second").axes
    drawn = {line.get_label(): line.get_xydata() for line in axis.get_lines()}
    for name, path in paths.items():
        np.testing.assert_array_equal(drawn[name], path)
    numbers = {note.get_text(): note.xy for note in axis.texts}
    assert set(numbers) == {"0", "1", "2"} and tuple(numbers["2"]) == (0.5, 0.5)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("first", "second")


def test_a_law_that_knows_more_is_dashed_and_axes_are_logarithmic() -> None:
    curves = {"A-LQR": ([1.0, 10.0], [2.0, 0.2]), "tracker": ([1.0, 5.0], [1.0, 0.1])}
    figure = missed_and_spent(curves, xlabel="spent", ylabel="missed", dashed=("tracker",))
    (axis,) = figure.axes
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    lines = {line.get_label(): line for line in axis.get_lines()}
    for name, (spent, missed) in curves.items():
        np.testing.assert_array_equal(lines[name].get_xydata(), np.stack([spent, missed], axis=1))
    assert (lines["A-LQR"].get_linestyle(), lines["tracker"].get_linestyle()) == ("-", "--")
    assert lines["A-LQR"].get_color() != lines["tracker"].get_color()
    figure.canvas.draw()
    assert not any("times" in tick.get_text() for tick in axis.get_xticklabels(which="both"))
