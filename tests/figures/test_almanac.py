"""Figures of the Almanac draw what they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from steerlib.figures import Doses, Link, accrual, dose_sweeps, fact_map, graded_lines, ladder, losses, stacked_shares
from steerlib.figures.almanac import PARTS
from steerlib.figures.dynamics import Panel
from steerlib.metrics import Estimate


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


COLUMNS = {"provinces": ["P", "Q"], "towns": ["p", "q", "same"], "people": ["same", "r"]}
LINKS = [
    Link("P", "q", 0, "capital", followed=True),
    Link("Q", "p", 0, "capital"),
    Link("P", "same", 0, "error", followed=True),
    Link("same", "r", 1, "founder"),
]


def test_a_map_draws_every_link_between_its_names_and_thickens_those_that_are_followed() -> None:
    figure = fact_map(COLUMNS, LINKS, dashed="error")
    axis = figure.axes[0]
    at = {(round(text.get_position()[0]), text.get_text()): text for text in axis.texts}
    assert set(at) == {(i, name) for i, names in enumerate(COLUMNS.values()) for name in names}
    drawn = {
        (tuple(np.round(line.get_xdata(), 6)), tuple(np.round(line.get_ydata(), 6))): line
        for line in axis.lines
        if len(line.get_xdata())
    }
    for link in LINKS:
        ends = [at[link.column, link.start], at[link.column + 1, link.end]]
        key = ((link.column, link.column + 1), tuple(round(text.get_position()[1], 6) for text in ends))
        line = drawn.pop(key)
        assert (line.get_linewidth() > 2) == link.followed
        assert (line.get_linestyle() == "--") == (link.kind == "error")
    assert not drawn
    bold = {key for key, text in at.items() if text.get_fontweight() == "bold"}
    assert bold == {(0, "P"), (1, "q"), (1, "same")}, "the same name in another column stays as it is"


def test_a_map_is_put_in_an_order_without_crossings_where_there_is_one() -> None:
    names = list("abcdefgh")
    ends = [name.upper() for name in names]
    rng = np.random.default_rng(0)
    links = [Link(a, b, 0, "k") for a, b in zip(names, ends, strict=True)]
    axis = fact_map({"x": names, "y": rng.permutation(ends).tolist()}, links).axes[0]
    height = {text.get_text(): text.get_position()[1] for text in axis.texts}
    assert sorted(names, key=height.__getitem__) == [e.lower() for e in sorted(ends, key=height.__getitem__)]
    assert len(set(height.values())) == 8


def test_a_map_refuses_a_link_to_nobody() -> None:
    with pytest.raises(ValueError, match=r"got 'Z', expected a name of column 'towns'"):
        fact_map(COLUMNS, [Link("P", "Z", 0, "capital")])
    with pytest.raises(ValueError, match="got column 2, expected 0 to 1"):
        fact_map(COLUMNS, [Link("same", "r", 2, "founder")])


def test_shares_are_stacked_in_their_own_colours_up_to_one() -> None:
    shares = {"almanac": {"truth": 0.75, "no comment": 0.1}, "tavern": {"truth": 0.25, "popular error": 0.75}}
    axis = stacked_shares({"A?": shares}, xlabel="probability").axes[0]
    bars: dict[tuple[int, str], tuple[float, float]] = {}
    for bar in axis.patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        bars[row, to_hex(bar.get_facecolor())] = (bar.get_x(), bar.get_width())
    tone = {part: to_hex(value) for part, value in PARTS.items()}
    assert bars[0, tone["truth"]] == (0.0, 0.75)
    assert bars[0, tone["no comment"]] == pytest.approx((0.75, 0.1))
    assert bars[0, tone["anything else"]] == pytest.approx((0.85, 0.15))
    assert bars[1, tone["popular error"]] == (0.25, 0.75)
    assert bars[1, tone["anything else"]][1] == 0.0
    assert [label.get_text() for label in axis.get_yticklabels()] == ["almanac", "tavern"]
    assert axis.yaxis_inverted()


@pytest.mark.parametrize(
    ("shares", "message"),
    [({"truth": 0.7, "popular error": 0.4}, "sum to 1.1"), ({"lies": 0.1}, r"got parts \['lies'\]")],
)
def test_shares_that_cannot_be_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stacked_shares({"A?": {"almanac": shares}}, xlabel="")


def test_graded_lines_name_every_curve() -> None:
    x = np.linspace(0, 1, 5)
    figure = graded_lines(x, {"one": x, "two": 1 - x}, xlabel="x", ylabel="y")
    assert [line.get_label() for line in figure.axes[0].lines] == ["one", "two"]
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), 1 - x)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]


def test_accrual_starts_at_zero_and_marks_the_end() -> None:
    axes = accrual({"a": [[0.25, 0.5], [-0.3]], "b": [[0.6, -1.4]]}, xlabel="sentences", ylabel="reward").axes
    first = axes[0].lines
    np.testing.assert_allclose(first[0].get_ydata(), [0.0, 0.25, 0.5])
    assert (first[1].get_xdata()[0], first[1].get_ydata()[0]) == (2, 0.5)
    np.testing.assert_allclose(first[2].get_ydata(), [0.0, -0.3])
    low, high = axes[0].get_ylim()
    assert (low, high) == axes[1].get_ylim()
    assert low < -1.4 and high > 0.6, "nothing is cut off in either panel"


def test_losses_are_means_over_neighbours_and_survive_short_runs() -> None:
    points = [(k / 4, float(v)) for k, v in enumerate([5, 3, 2, 2, 1])]
    axis = losses({"long": points, "short": points[:2]}, marks={"short sight": 0.4}, smooth=5).axes[0]
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [[0.5, 2.6]])
    np.testing.assert_allclose(axis.lines[1].get_xydata(), [[0.125, 4.0]])
    assert axis.lines[2].get_xdata()[0] == 0.4
    assert axis.get_yscale() == "log"


def test_dose_sweeps_tell_the_chosen_layer_from_the_others() -> None:
    scores = np.array([[0.3, 0.3, 0.3], [0.4, 0.6, 0.2], [0.3, 0.4, 0.3]])
    found = Doses((0.5, 1.0, 2.0), scores, np.ones((3, 3)) * 0.9, layer=1, strength=1.0, start=0.35)
    axis = dose_sweeps({"truth": found}, xlabel="strength").axes[0]
    by_label: dict[str, list[np.ndarray]] = {}
    for line in axis.lines:
        by_label.setdefault(str(line.get_label()), []).append(np.asarray(line.get_ydata()))
    np.testing.assert_allclose(by_label["chosen layer"], [[0.4, 0.6, 0.2]])
    np.testing.assert_allclose(by_label["other layers"], scores[[0, 2]])
    assert set(by_label["unsteered"][0]) == {0.35}
    assert axis.get_title(loc="left") == "truth, block 1"


def test_a_ladder_stands_on_its_sizes_and_every_panel_names_its_curves() -> None:
    rungs = [Estimate(v, v - 0.1, v + 0.1, 0) for v in (0.2, 0.5, 0.4)]
    parts = {"A": Panel({"one": rungs}, "score"), "B": Panel({"two": rungs[::-1], "three": rungs}, "share")}
    figure = ladder([0.3, 1.0, 5.1], parts, xlabel="parameters")
    assert [[t.get_text() for t in axis.get_legend().get_texts()] for axis in figure.axes] == [
        ["one"],
        ["two", "three"],
    ]
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0.3", "1", "5.1"]
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [0.4, 0.5, 0.2])
    assert figure.axes[0].get_ylim()[0] <= 0 < figure.axes[0].get_ylim()[1]
