"""Variants of one method: what is drawn is what was given, group by group, on one scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import ablations
from steerlib.metrics import Estimate

GROUPS = {
    "features": {"wide": Estimate(0.1, 0.0, 0.3, 9), "narrow": Estimate(-0.4, -0.5, -0.2, 9)},
    "labels": {"shuffled": Estimate(-1.0, -1.2, -0.9, 9)},
}


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def drawn(axis: Any) -> dict[str, tuple[float, list[float], str]]:
    """Variant -> value, ends of its interval, colour."""
    found = {}
    for box in axis.containers:
        line, _, (bars,) = box.lines
        ends = np.asarray(bars.get_segments()[0])[:, 0].tolist()
        found[str(box.get_label())] = (float(line.get_xdata()[0]), ends, str(line.get_color()))
    return found


def test_every_variant_stands_in_its_group_with_its_interval() -> None:
    figure = ablations(GROUPS, xlabel="difference", controls=["shuffled"])
    top, bottom = figure.axes
    assert [axis.get_title(loc="left") for axis in figure.axes] == list(GROUPS)
    assert [label.get_text() for label in top.get_yticklabels()] == ["wide", "narrow"]
    assert top.get_ylim()[0] > top.get_ylim()[1], "the first stands on top"
    assert drawn(top)["narrow"][0] == -0.4 and np.allclose(drawn(top)["narrow"][1], [-0.5, -0.2])
    assert top.get_xlim() == bottom.get_xlim() and top.get_xlim()[0] < -1.2 < 0.3 < top.get_xlim()[1]
    assert (top.get_xlabel(), bottom.get_xlabel()) == ("", "difference")
    assert drawn(top)["wide"][2] == drawn(top)["narrow"][2] != drawn(bottom)["shuffled"][2]
    assert figure.get_size_inches()[0] < 5


def test_a_group_is_as_high_as_it_has_variants() -> None:
    figure = ablations(GROUPS, xlabel="difference")
    figure.draw_without_rendering()
    top, bottom = (axis.get_position().height for axis in figure.axes)
    assert top > bottom


def test_long_names_are_broken_between_words() -> None:
    name = "polynomial features of states as they are"
    (label,) = ablations({"all": {name: GROUPS["features"]["wide"]}}, xlabel="x").axes[0].get_yticklabels()
    lines = label.get_text().split("\n")
    assert " ".join(lines) == name and len(lines) > 1 and max(map(len, lines)) <= 26


@pytest.mark.parametrize("groups", [{}, {"features": {}}])
def test_bad_input(groups: dict[str, dict[str, Estimate]]) -> None:
    with pytest.raises(ValueError, match="expected at least one"):
        ablations(groups, xlabel="x")
