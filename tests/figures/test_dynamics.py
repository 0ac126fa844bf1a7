"""Figures of the plant as a dynamical system draw what they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import Panel, Plane, over, small_multiples, trajectories
from steerlib.metrics import Estimate


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


ESTIMATES = [Estimate(v, v - 0.1, v + 0.1, 10) for v in (0.2, 0.5, 0.4)]


def legends(figure) -> list[str]:
    """Names in the figure's own legend."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_panels_share_an_axis_and_one_legend() -> None:
    parts = {
        "left": Panel({"target direction": ESTIMATES, "random directions": ESTIMATES}, "KL", log=True),
        "right": Panel({"target direction": ESTIMATES[:2]}, "logits", line=("none", 0.0)),
    }
    figure = over([0, 1, 2], parts, xlabel="block")
    left, right = figure.axes
    assert (left.get_yscale(), right.get_yscale()) == ("log", "linear")
    assert [line.get_label() for line in right.lines] == ["target direction", "none"]
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[0, 0.2], [1, 0.5]])
    assert sorted(legends(figure)) == ["none", "random directions", "target direction"]
    assert list(left.get_xticks()) == [0, 1, 2]


def test_a_single_curve_needs_no_legend() -> None:
    assert legends(over([0.1, 1.0, 2.0], {"": Panel({"only": ESTIMATES}, "y")}, xlabel="x", log_x=True)) == []


def test_a_logarithmic_axis_names_the_whole_numbers_that_were_measured() -> None:
    figure = over([1, 4, 16], {"": Panel({"only": ESTIMATES}, "y", log=True)}, xlabel="samples", log_x=True)
    (axis,) = figure.axes
    figure.canvas.draw()
    assert axis.get_xscale() == "log"
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "4", "16"]
    assert list(axis.xaxis.get_minorticklocs()) == []
    close = over([100, 200, 210], {"": Panel({"only": ESTIMATES}, "y")}, xlabel="x", log_x=True).axes[0]
    assert "210" not in [label.get_text() for label in close.get_xticklabels()], "names would lie on each other"
    between = over([0.1, 1.0, 2.0], {"": Panel({"only": ESTIMATES}, "y")}, xlabel="x", log_x=True).axes[0]
    assert len(between.xaxis.get_minorticklocs()) > 0


def test_trajectories_show_means_of_all_texts_and_lines_of_some() -> None:
    rows = np.arange(12.0).reshape(4, 3)
    figure = trajectories({"positive": rows, "negative": -rows}, {"target direction": ESTIMATES}, shown=2)
    left = figure.axes[0]
    means = [line for line in left.lines if line.get_label() in ("positive", "negative")]
    assert len(left.lines) == 2 * 2 + 2
    np.testing.assert_allclose(means[0].get_ydata(), rows.mean(0))
    np.testing.assert_allclose(means[1].get_ydata(), -rows.mean(0))


def test_small_multiples_project_every_cloud_and_hide_empty_panels() -> None:
    rng = np.random.default_rng(0)
    clouds = {"positive": rng.normal(size=(9, 4)), "negative": rng.normal(size=(7, 4))}
    plane = Plane.of(np.array([1.0, 0, 0, 0]), np.concatenate(list(clouds.values())))
    figure = small_multiples({f"after block {i}": (plane, clouds) for i in range(4)}, columns=3)
    assert [axis.axison for axis in figure.axes] == [True] * 4 + [False] * 2
    np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), plane.project(clouds["positive"]))
    assert legends(figure) == ["positive", "negative", "class mean"]
    for mark in figure.legends[0].legend_handles:
        assert mark.get_alpha() in (None, 1)
