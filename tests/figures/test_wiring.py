"""Figures of actuators draw what they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import placement, scope_grid


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def test_scope_grids_are_drawn_as_they_are_with_the_end_of_the_prompt() -> None:
    grids = {"with cache": {"last": np.array([[0, 1, -1], [-1, -1, 1]]), "all": np.array([[1, 1, -1], [-1, -1, 1]])}}
    figure = scope_grid(grids, prompt_length=2)
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["last, with cache", "all, with cache"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), grids["with cache"]["last"])
    assert figure.axes[0].lines[0].get_xdata()[0] == 1.5
    assert figure.axes[0].images[0].get_clim() == (-1, 1), "an all-untouched grid must not be drawn as steered"


def test_placement_is_symmetric_about_zero_and_says_every_number_without_a_negative_zero() -> None:
    grid = np.array([[0.5, -0.001], [-2.0, 1.0]])
    figure = placement({"at the choice": grid, "at the end": -grid / 2}, unit="logits", ticks=[0, 4])
    first = figure.axes[0]
    assert first.images[0].get_clim() == (-2.0, 2.0)
    assert sorted(text.get_text() for text in first.texts) == sorted(["+0.50", "+0.00", "-2.00", "+1.00"])
    assert [label.get_text() for label in first.get_xticklabels()] == ["0", "4"]
    assert first.texts[2].get_position() == (0, 1), "rows are measured, columns are pushed"
