"""Effects of methods on plants: what is drawn is what was given, in a width that a phone can show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import effects
from steerlib.metrics import Estimate

BOTH = {"push": {"a": Estimate(0.2, 0.1, 0.4, 9), "b": Estimate(-1.0, -2.0, -0.5, 9)}}
ONE = {"ask": {"b": Estimate(0.5, 0.4, 0.7, 9)}}


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def boxes(axis: Any) -> list[Any]:
    """What `errorbar` drew, one for each plant."""
    return list(axis.containers)


def test_every_estimate_stands_on_the_line_of_its_method_with_its_interval() -> None:
    figure = effects({"first": BOTH | ONE, "second": ONE}, xlabel="change")
    top, bottom = figure.axes
    assert [label.get_text() for label in bottom.get_yticklabels()] == ["push", "ask"], "panels share their lines"
    assert (top.get_xlabel(), bottom.get_xlabel()) == ("", "change")
    assert top.get_xlim() == bottom.get_xlim() and top.get_xlim()[0] < -2.0 < 0.7 < top.get_xlim()[1], "one scale"
    marks: dict[str, Any] = {str(box.get_label()): box for box in boxes(top)}
    assert list(marks) == ["a", "b"]
    line, _, (bars,) = marks["b"].lines
    assert line.get_xdata().tolist() == [-1.0, 0.5] and np.asarray(line.get_ydata(), dtype=float).round().tolist() == [
        0,
        1,
    ]
    ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
    assert np.allclose(ends, [[-2.0, -0.5], [0.4, 0.7]])
    (none, one) = (box.lines[0].get_xdata().size for box in boxes(bottom))
    assert (none, one) == (0, 1), "where nothing was run, nothing is drawn"


def test_plants_differ_in_colour_mark_and_height_and_stand_in_the_legend() -> None:
    figure = effects({"all": BOTH}, xlabel="change")
    lines = [box.lines[0] for box in boxes(figure.axes[0])]
    for property_ in ("get_color", "get_marker"):
        assert len({str(getattr(line, property_)()) for line in lines}) == 2
    assert lines[0].get_ydata()[0] < lines[1].get_ydata()[0]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert figure.get_size_inches()[0] < 5
    assert not effects({"all": ONE}, xlabel="change").legends


def test_long_names_are_broken_between_words() -> None:
    name = "the same on a value of shuffled rewards"
    (label,) = effects({"all": {name: ONE["ask"]}}, xlabel="change").axes[0].get_yticklabels()
    lines = label.get_text().split("\n")
    assert " ".join(lines) == name and max(map(len, lines)) <= 24 and len(lines) > 1


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "got 0 methods"),
        ({"first": BOTH, "second": ONE}, r"further ones \['ask'\]"),
        ({"all": {"push": {str(n): Estimate(0.0, 0.0, 0.0, 1) for n in range(6)}}}, "and 6 plants"),
    ],
)
def test_bad_input(parts, message: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=message):
        effects(parts, xlabel="change")
