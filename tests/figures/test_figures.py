"""Figures draw what they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import Plane, dose_response, draw, exactly, intervals, layer_sweep
from steerlib.figures.sweeps import colour
from steerlib.metrics import Estimate


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


ESTIMATES = [Estimate(v, v - 0.1, v + 0.1, 10) for v in (0.2, 0.5, 0.4)]


class TestPlane:
    """The slice behind the running picture."""

    def test_axes_are_the_direction_and_the_largest_rest(self) -> None:
        rng = np.random.default_rng(0)
        states = rng.normal(size=(400, 5)) * np.array([1, 4, 0.5, 0.5, 0.5])
        plane = Plane.of(np.array([2.0, 0, 0, 0, 0]), states)
        np.testing.assert_allclose(plane.target, [1, 0, 0, 0, 0])
        assert abs(plane.off[1]) > 0.99
        assert plane.off @ plane.target == pytest.approx(0, abs=1e-12)
        moved = plane.project(states + 3 * plane.target) - plane.project(states)
        np.testing.assert_allclose(moved, np.tile([3.0, 0.0], (400, 1)), atol=1e-12)

    def test_no_direction_or_no_spread(self) -> None:
        with pytest.raises(ValueError, match="zero vector"):
            Plane.of(np.zeros(3), np.eye(3))
        with pytest.raises(ValueError, match="do not vary"):
            Plane.of(np.array([1.0, 0]), np.array([[0.0, 1.0], [5.0, 1.0]]))

    def test_the_picture_shows_every_cloud(self) -> None:
        states = np.random.default_rng(0).normal(size=(30, 4))
        plane = Plane.of(np.ones(4), states)
        figure = draw(
            plane, {"positive": states, "negative": -states}, arrows={"law": (states[0], states[1])}, boundary=0.0
        )
        axis = figure.axes[0]
        assert [len(c.get_offsets()) for c in axis.collections] == [30, 30]
        assert {t.get_text() for t in axis.get_legend().get_texts()} == {"positive", "negative", "law", "class mean"}


def test_curves_carry_values_and_intervals() -> None:
    figure = dose_response(
        [0, 1, 2], {"A": {"law": ESTIMATES, "random": ESTIMATES}, "B": {"law": ESTIMATES}}, xlabel="s"
    )
    first = figure.axes[0]
    np.testing.assert_allclose(first.lines[0].get_ydata(), [0.2, 0.5, 0.4])
    band = first.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(0.1)
    assert band[:, 1].max() == pytest.approx(0.6)
    assert [a.get_title(loc="left") for a in figure.axes] == ["A", "B"]
    sweep = layer_sweep({"A": {"law": ESTIMATES}})
    np.testing.assert_allclose(sweep.axes[0].lines[0].get_xdata(), [0, 1, 2])
    rows = intervals({"law": ESTIMATES[0], "random": ESTIMATES[1]}, xlabel="x", zero=0.0)
    assert [t.get_text() for t in rows.axes[0].get_yticklabels()] == ["law", "random"]


def test_many_curves_have_their_names_above_a_layer_sweep() -> None:
    few = layer_sweep({"A": {f"law {i}": ESTIMATES for i in range(4)}})
    assert len(few.axes[0].get_legend().get_texts()) == 4 and not few.legends
    many = layer_sweep({"A": {f"law {i}": ESTIMATES for i in range(5)}})
    assert many.axes[0].get_legend() is None
    (legend,) = many.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"law {i}" for i in range(5)]
    many.canvas.draw()
    assert legend.get_window_extent().y0 >= many.axes[0].get_window_extent().y1, "above the curves, not on them"


def test_names_below_a_panel_lie_over_no_curve() -> None:
    groups = {"A": {"law": ESTIMATES, "random": ESTIMATES}, "B": {"state times 2": ESTIMATES}}
    figure = layer_sweep(groups, below=True)
    figure.canvas.draw()
    for axes, curves in zip(figure.axes, groups.values(), strict=True):
        legend = axes.get_legend()
        assert [text.get_text() for text in legend.get_texts()] == list(curves), "each panel has its own names"
        assert legend.get_window_extent().y1 <= axes.get_window_extent().y0
        assert legend.get_window_extent().y0 >= 0, "and they are on the page"
    assert not figure.legends


def test_names_of_a_plane_lie_over_no_state_and_arrows_differ() -> None:
    plane = Plane(np.zeros(2), np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    states = np.array([[0.0, 0], [1, 1]])
    clouds = dict.fromkeys(("positive", "negative", "steered", "elsewhere"), states)
    figure = draw(plane, clouds, arrows={"law": tuple(states), "probe": tuple(states)})
    figure.canvas.draw()
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend.get_window_extent().y0 >= 0 and legend.get_window_extent().y1 <= axes.get_window_extent().y0
    tones = {
        text.get_text(): line.get_color()
        for text, line in zip(legend.get_texts()[-3:], legend.get_lines()[-3:], strict=True)
    }
    assert tones["law"] != tones["probe"] == colour("elsewhere", 3), "an arrow has the colour of where it leads"


def test_things_keep_their_colour() -> None:
    assert colour("random direction") == colour("random, 95th percentile") != colour("law")
    assert colour("something", 0) != colour("something else", 1)


def test_exact_numbers_are_their_own_intervals() -> None:
    estimates = exactly(v / 2 for v in (1, 3))
    assert estimates == [Estimate(0.5, 0.5, 0.5, 0), Estimate(1.5, 1.5, 1.5, 0)]
    figure = dose_response([1.0, 2.0], {"panel": {"curve": estimates}}, xlabel="x")
    (band,) = figure.axes[0].collections
    assert band.get_paths()[0].get_extents().y1 == 1.5, "a band of no width"
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [0.5, 1.5])
