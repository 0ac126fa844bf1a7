"""Curves of values stand at their positions, in tones of their own, below the ceiling."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

from steerlib.figures.values import TONES, by_position
from steerlib.metrics import Estimate

CURVES = {
    "td0": {0: Estimate(0.3, 0.2, 0.4, 5), 8: Estimate(0.5, 0.4, 0.6, 5)},
    "released": {0: Estimate(0.3, 0.2, 0.4, 5), 8: Estimate(-0.2, -0.3, -0.1, 5)},
}
BEST = {0: Estimate(0.4, 0.3, 0.5, 9), 8: Estimate(0.8, 0.7, 0.9, 9)}
NAMES = {"td0": "TD(0)", "released": "released"}


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def test_each_panel_has_its_curves_and_the_ceiling_on_one_scale() -> None:
    panels = {"text": ["td0"], "code": ["released", "td0"]}
    figure = by_position(panels, CURVES, BEST, names=NAMES, ylabel="correlation")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["text", "code"]
    for axis, keys in zip(figure.axes, panels.values(), strict=True):
        drawn = {line.get_label(): line for line in axis.get_lines()}
        for key in keys:
            line = drawn[NAMES[key]]
            np.testing.assert_allclose(line.get_xydata(), [[t, e.value] for t, e in CURVES[key].items()])
            assert colors.same_color(line.get_color(), TONES[key][0]) and line.get_marker() == TONES[key][1]
        (bars,) = axis.containers
        np.testing.assert_allclose(bars[0].get_xydata(), [[0, 0.4], [8, 0.8]])
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["TD(0)", "ceiling: rollouts from the state", "released"]


def test_a_curve_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="got 'residual', expected one of td0, released"):
        by_position({"all": ["residual"]}, CURVES, BEST, names=NAMES, ylabel="correlation")
