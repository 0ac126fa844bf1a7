"""Maps over two knobs show every score where it belongs, in colours whose middle is the unsteered plant."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import KnobMap, knob_maps


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def made(**change) -> KnobMap:
    values = {"values": np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.9]]), "x": (1, 10, 100), "y": (0.1, 1)}
    return KnobMap(**{**values, "xlabel": "r", "ylabel": "q", **change})


def test_each_score_is_written_in_its_field_and_the_line_joins_its_settings() -> None:
    figure = knob_maps({"ratios": made(line=((1, 0.1), (10, 1))), "plain": made()}, label="True", unsteered=0.4)
    first, second, bar = figure.axes
    written = {(round(t.get_position()[0]), round(t.get_position()[1])): t.get_text() for t in first.texts}
    assert written[0, 0] == "0.10" and written[2, 1] == "0.90" and written[2, 0] == "0.30"
    (line,) = first.get_lines()
    np.testing.assert_array_equal(line.get_xydata(), [[0, 0], [1, 1]])
    assert [t.get_text() for t in first.get_xticklabels()] == ["1", "10", "100"] and not second.get_lines()
    low, high = first.images[0].get_clim()
    assert (low + high) / 2 == pytest.approx(0.4) and high == pytest.approx(0.9)
    assert second.images[0].get_clim() == (low, high) and bar.get_ylabel() == "True"


def test_three_maps_leave_no_empty_axes() -> None:
    figure = knob_maps({name: made() for name in "abc"}, label="True", unsteered=0.4)
    assert [axis.get_title(loc="left") or axis.get_title() for axis in figure.axes[:3]] == ["a", "b", "c"]
    assert len(figure.axes) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [({"y": (1, 2, 3)}, r"shape \(2, 3\), expected \(3, 3\)"), ({"line": ((1, 0.5),)}, r"\(1, 0.5\), which is not on")],
)
def test_maps_that_do_not_fit_are_refused(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        knob_maps({"map": made(**change)}, label="True", unsteered=0.4)
