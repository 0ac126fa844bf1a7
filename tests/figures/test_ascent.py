"""Pictures of an ascent show the path, the contours and the settings they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import Plane, ascent_paths, cosines, knobs
from steerlib.metrics import Estimate


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def test_paths_are_projected_and_contours_are_of_the_value_in_the_slice() -> None:
    plane = Plane(np.array([1.0, 2, 3]), np.array([1.0, 0, 0]), np.array([0.0, 1, 0]))
    asked = []

    def value(z: np.ndarray) -> np.ndarray:
        asked.append(z)
        return z[:, 0] - 2 * z[:, 1]

    path = np.array([[1.0, 2, 3], [2, 2, 9], [4, 3, 9]])
    figure = ascent_paths(
        plane, value, {"climb": path}, states=np.array([[0.0, 0, 0], [2, 2, 2]]), xlabel="g", ylabel="off", points=7
    )
    axis = figure.axes[0]
    line = next(line for line in axis.lines if line.get_label() == "climb")
    np.testing.assert_allclose(line.get_xydata(), [[0, 0], [1, 0], [3, 1]])
    (grid,) = asked
    assert grid.shape == (49, 3)
    np.testing.assert_allclose(grid[:, 2], 3, err_msg="the slice goes through its origin")
    assert grid[:, 0].min() < 0, "states are inside of the picture, too"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("g", "off")


def test_each_knob_has_a_panel_its_settings_and_the_one_that_was_chosen() -> None:
    e = Estimate(0.5, 0.4, 0.6, 9)
    figure = knobs(
        {"size": {"reward": {1.0: e, 2.0: e}, "diversity": {2.0: e}}, "steps": {"reward": {3: e}}},
        chosen={"size": 2.0, "steps": 3}, ylabel="score",
    )  # fmt: skip
    first, second = figure.axes
    drawn = {line.get_label(): line for line in first.lines}
    np.testing.assert_allclose(drawn["reward"].get_xdata(), [1, 2])
    np.testing.assert_allclose(drawn["diversity"].get_xdata(), [2])
    np.testing.assert_allclose(drawn["chosen on validation"].get_xdata(), 2.0)
    assert [t.get_text() for t in first.get_xticklabels()] == ["1", "2"]
    assert second.get_xlabel() == "steps"


def test_cosines_stand_beside_what_chance_reaches() -> None:
    figure = cosines({"a": np.array([0.1, 0.1, -0.3])}, chance=(-0.2, 0.2), xlabel="cosine")
    (axis,) = figure.axes
    heights = axis.patches[0].get_xy()[:, 1]
    assert heights.max() == pytest.approx(2 / 3)
    assert "random directions, 95 %" in axis.get_legend_handles_labels()[1]
