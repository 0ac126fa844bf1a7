"""Pictures of climbs show every path, count who ends inside, and put each knob over its own cost."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import Knob, barrier_paths, exactly, knobs_and_costs


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def test_every_path_is_drawn_and_those_that_end_inside_are_counted() -> None:
    values = np.array([[-2.0, -1.0, -1.0], [-1.0, 0.5, -0.8], [0.0, 2.0, -0.5]])
    figure = barrier_paths({"law": values, "random": -values[:2]}, length=6.0, xlabel="t", ylabel="h")
    left, right = figure.axes
    thin = [line for line in left.get_lines() if line.get_linewidth() < 1]
    drawn = np.stack([np.asarray(line.get_ydata()) for line in thin], axis=1)
    np.testing.assert_array_equal(drawn, values)
    (median,) = [line for line in left.get_lines() if line.get_label() == "median"]
    np.testing.assert_array_equal(median.get_ydata(), [-1.0, -0.8, 0.0])
    assert "2 of 3 end inside" in left.get_title(loc="left"), "a state on the border is inside"
    assert "2 of 3 end inside" in right.get_title(loc="left")
    assert [list(axis.get_lines()[0].get_xdata()) for axis in (left, right)] == [[0, 3, 6], [0, 6]]
    assert left.get_ylim() == right.get_ylim() and left.get_ylim()[0] < -2
    with pytest.raises(ValueError, match="law: got no states"):
        barrier_paths({"law": values[:, :0]}, length=1.0, xlabel="t", ylabel="h")
    with pytest.raises(ValueError, match="length: got 0"):
        barrier_paths({"law": values}, length=0.0, xlabel="t", ylabel="h")


def test_a_knob_has_its_scores_above_and_its_cost_below() -> None:
    steps = Knob([1, 10, 20], {"law": exactly([0.1, 0.2, 0.3])}, [1e-3, 1e-2, 1e-1], chosen=10)
    length = Knob([0.1, 0.8], {"law": exactly([0.5, 0.4])}, [0.1, 1.0], chosen=0.1, log=True)
    figure = knobs_and_costs({"steps": steps, "T": length}, spent="nats", reference=("unsteered", 0.25))
    first, second, cost, other = figure.axes
    np.testing.assert_array_equal(first.get_lines()[0].get_ydata(), [0.1, 0.2, 0.3])
    np.testing.assert_array_equal(cost.get_lines()[0].get_xdata(), [1, 10, 20])
    np.testing.assert_array_equal(cost.get_lines()[0].get_ydata(), steps.spent)
    assert (cost.get_yscale(), first.get_xscale(), second.get_xscale()) == ("log", "linear", "log")
    assert (cost.get_xlabel(), other.get_xlabel(), cost.get_ylabel()) == ("steps", "T", "nats")
    assert [line.get_xdata()[0] for line in other.get_lines()[1:]] == [0.1]
