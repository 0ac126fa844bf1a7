"""Figures that compare methods draw what they were given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from steerlib.figures import Band, Front, Trade, fronts, method_sweep, rejection
from steerlib.figures.race import tones_of, undominated
from steerlib.figures.style import GREY
from steerlib.metrics import Estimate


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


def estimates(*values: float) -> list[Estimate]:
    return [Estimate(v, v - 0.05, v + 0.1, 10) for v in values]


STRONG = Front(estimates(0.1, 0.4), estimates(0.5, 0.9))
WEAK = Front(estimates(0.2, 0.6), estimates(0.4, 0.95))
CONTROL = Front(estimates(0.05, 0.1), estimates(0.99, 0.99), control=True)


class TestUndominated:
    """Which points are on a front."""

    def test_by_hand(self) -> None:
        cost, effect = [1.0, 2.0, 2.0, 3.0, 1.0], [0.5, 0.4, 0.9, 0.9, 0.5]
        assert undominated(cost, effect, better="low").tolist() == [True, False, True, False, True]
        assert undominated(cost, effect, better="high").tolist() == [False, False, False, True, False]

    @given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
    def test_every_other_point_is_beaten_by_one_on_the_front(self, points: list[tuple[int, int]]) -> None:
        cost, effect = zip(*points, strict=True)
        kept = undominated(cost, effect, better="low")
        assert kept.any()
        for i, (x, y) in enumerate(points):
            beaten = [a <= x and b >= y and (a, b) != (x, y) for a, b in points]
            assert kept[i] == (not any(beaten))


class TestFronts:
    """Effect against cost."""

    def test_points_carry_both_intervals_and_the_front_leaves_controls_out(self) -> None:
        part = Trade({"strong": STRONG, "weak": WEAK, "random": CONTROL}, "drift", "low", start=(0.0, 0.3))
        figure = fronts({"Drift": part}, ylabel="effect")
        (axis,) = figure.axes
        stairs = next(line for line in axis.lines if line.get_label() == "front")
        np.testing.assert_allclose(stairs.get_xydata(), [[0.1, 0.5], [0.4, 0.9], [0.6, 0.95]])
        assert stairs.get_drawstyle() == "steps-post"
        assert len(axis.containers) == 6
        first = axis.containers[0]
        (across, up) = (bars.get_segments()[0] for bars in first.lines[2])
        np.testing.assert_allclose(across, [[0.05, 0.5], [0.2, 0.5]])
        np.testing.assert_allclose(up, [[0.1, 0.45], [0.1, 0.6]])
        pale = [held.lines[0].get_alpha() for held in axis.containers]
        assert pale == [1.0, 1.0, 0.35, 1.0, 0.35, 0.35], "what is beaten, and every control, is pale"
        assert to_hex(axis.containers[4].lines[0].get_color()) == GREY.lower()
        names = {text.get_text() for text in figure.legends[0].get_texts()}
        assert names == {"front", "strong", "weak", "random", "unsteered"}

    def test_where_more_is_better_the_front_turns_around(self) -> None:
        part = Trade({"strong": STRONG, "weak": WEAK}, "fluency", "high", log=True)
        (axis,) = fronts({"": part}, ylabel="effect").axes
        stairs = next(line for line in axis.lines if line.get_label() == "front")
        np.testing.assert_allclose(stairs.get_xydata(), [[0.6, 0.95]])
        assert stairs.get_drawstyle() == "steps-pre"
        assert axis.get_xscale() == "log"

    def test_a_method_keeps_its_look_in_every_panel(self) -> None:
        first = Trade({"strong": STRONG, "weak": WEAK}, "drift", "low")
        second = Trade({"weak": WEAK}, "fluency", "high")
        figure = fronts({"a": first, "b": second}, ylabel="effect")
        looks = [
            {line.get_label(): (line.get_color(), line.get_marker()) for line in axis.lines}["weak"]
            for axis in figure.axes
        ]
        assert looks[0] == looks[1]

    def test_only_controls_have_no_front(self) -> None:
        (axis,) = fronts({"": Trade({"random": CONTROL}, "drift", "low")}, ylabel="effect").axes
        assert "front" not in [line.get_label() for line in axis.lines]

    def test_lengths_must_agree(self) -> None:
        with pytest.raises(ValueError, match="got 2 costs and 1 effects"):
            Front(estimates(1, 2), estimates(1))
        with pytest.raises(ValueError, match="at least one dose"):
            Front([], [])


def test_thirty_names_are_told_apart_and_controls_are_grey() -> None:
    tones = tones_of([(f"m{i}", False) for i in range(30)] + [("random", True), ("shuffled", True)])
    assert len(set(tones.values())) == 32
    assert {name for name, (tone, _) in tones.items() if tone == GREY} == {"random", "shuffled"}


def test_a_sweep_marks_the_chosen_layer_over_the_controls() -> None:
    draws = [np.linspace(0, 1, 21) + i for i in range(3)]
    figure = method_sweep(
        [1, 2, 4], {"truth": {"one": estimates(0.2, 0.7, 0.4), "two": estimates(0.1, 0.2, 0.3)}}, ylabel="score",
        controls={"truth": Band([1, 2, 4], draws, "random directions")}, chosen={"one": 4}, unsteered=0.25,
    )  # fmt: skip
    axis = figure.axes[0]
    one = next(line for line in axis.lines if line.get_label() == "one")
    np.testing.assert_allclose(one.get_xydata(), [[1, 0.2], [2, 0.7], [4, 0.4]])
    star = next(line for line in axis.lines if line.get_marker() == "*")
    assert star.get_xydata().tolist() == [[4, 0.4]]
    assert star.get_color() == one.get_color()
    band = axis.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (pytest.approx(0.05), pytest.approx(2.95))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["random directions", "one", "two", "unsteered", "chosen on validation"]


def test_a_sweep_over_numbers_of_examples_is_logarithmic_with_a_tick_at_each() -> None:
    axis = method_sweep(
        [4, 40, 400], {"truth": {"one": estimates(0.2, 0.7, 0.4)}}, ylabel="score", xlabel="texts", log=True
    ).axes[0]
    assert axis.get_xscale() == "log" and axis.get_xlabel() == "texts"
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["4", "40", "400"]
    assert list(axis.get_xticks()) == [4, 40, 400] and len(axis.get_xticks(minor=True)) == 0


def test_rejection_draws_the_diagonal_and_every_law() -> None:
    axis = rejection(
        [0, 1, 2], {"push": estimates(0, 1, 2), "feedback": estimates(0, 0.1, 0.1)}, xlabel="w", ylabel="e",
        passed="no rejection",
    ).axes[0]  # fmt: skip
    lines = {line.get_label(): line for line in axis.lines}
    np.testing.assert_allclose(lines["no rejection"].get_xydata(), [[0, 0], [1, 1], [2, 2]])
    np.testing.assert_allclose(lines["feedback"].get_ydata(), [0, 0.1, 0.1])
    assert set(lines["perfect rejection"].get_ydata()) == {0}
