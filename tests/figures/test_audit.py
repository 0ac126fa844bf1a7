"""The forest of published comparisons draws what it was given, and refuses what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import Reach, forest

SURE = Reach(5.0, (4.0, 6.0), (1.0, 9.0), "sure")
OPEN = Reach(1.0, (0.5, 1.5), (-3.0, 5.0), "open")


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def drawn(**groups: dict[str, Reach]):  # noqa: ANN201
    return forest(groups, standings=("sure", "open", "lost"), xlabel="points", bars=("least", "most"))


def test_each_comparison_has_two_bars_and_a_point_on_its_line() -> None:
    (axis,) = drawn(first={"a": SURE}, second={"b": OPEN}).axes
    labels = axis.get_yticklabels()
    assert [label.get_text() for label in labels] == ["first", "a", "second", "b"]
    assert [label.get_fontweight() == "bold" for label in labels] == [True, False, True, False], "headings stand out"
    for reach, place in zip((SURE, OPEN), axis.get_yticks()[1::2], strict=True):
        ends = {
            tuple(np.asarray(line.get_xdata()).tolist())
            for line in axis.lines
            if np.asarray(line.get_ydata()).tolist()[:1] == [place]
        }
        assert {reach.wide, reach.narrow, (reach.value,)} <= ends
    assert axis.get_ylim()[0] > axis.get_ylim()[1], "the first stands on top"


def test_standings_differ_in_colour_and_mark_and_the_legend_has_those_in_use() -> None:
    figure = drawn(all={"a": SURE, "b": OPEN})
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["sure", "open", "least", "most"]
    points = [line for line in figure.axes[0].lines if np.size(line.get_xdata()) == 1]
    assert len({str(p.get_marker()) for p in points}) == len({str(p.get_color()) for p in points}) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drawn(), "got 0 comparisons"),
        (lambda: drawn(all={"a": Reach(0, (0, 0), (0, 0), "other")}), "unknown ones \\['other'\\]"),
        (lambda: Reach(5.0, (4.0, 6.0), (4.5, 9.0), "sure"), "inside of the next"),
        (lambda: Reach(7.0, (4.0, 6.0), (1.0, 9.0), "sure"), "inside of the next"),
    ],
)
def test_bad_input(call, message: str) -> None:  # noqa: ANN001
    with pytest.raises(ValueError, match=message):
        call()
