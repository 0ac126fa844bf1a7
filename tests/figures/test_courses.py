"""The map of methods by courses shows every effect in its place."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from steerlib.figures import course_map


@pytest.fixture(autouse=True)
def _close_figures():  # noqa: ANN202
    yield
    plt.close("all")


EFFECTS = {
    "push": {"truth": {"one": 0.3, "two": -0.1}, "civility": {"one": 0.2}},
    "gate": {"truth": {"one": 0.05}, "civility": {"one": -0.4}},
}
MARKS = {"one": "1", "two": "2"}


def columns(axis):
    """Colours of every column, by the middle of its place."""
    found = {}
    for mesh in axis.collections:
        corners = mesh.get_coordinates()
        found[float(corners[0, :, 0].mean())] = np.ma.filled(mesh.get_array(), np.nan).ravel()
    return found


def test_every_effect_is_where_its_names_say() -> None:
    axis = course_map(EFFECTS, label="change", marks=MARKS).axes[0]
    by_place, ticks = columns(axis), dict(zip(axis.get_xticks(), axis.get_xticklabels(), strict=True))
    assert [ticks[x].get_text() for x in sorted(by_place)] == ["1", "2", "1"], "truth on both, civility on one"
    truth_one, truth_two, civility = (by_place[x] for x in sorted(by_place))
    np.testing.assert_array_equal(truth_one, [0.3, 0.05])
    np.testing.assert_array_equal(truth_two, [-0.1, np.nan])
    np.testing.assert_array_equal(civility, [0.2, -0.4])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["push", "gate"]
    assert axis.get_ylim()[0] > axis.get_ylim()[1], "the first method is at the top"


def test_no_change_has_the_middle_colour_in_every_column() -> None:
    axis = course_map(EFFECTS, label="change", marks=MARKS).axes[0]
    assert {mesh.get_clim() for mesh in axis.collections} == {(-0.4, 0.4)}


def test_stars_and_dashes() -> None:
    axis = course_map(EFFECTS, stars={("push", "civility", "one")}, label="change", marks=MARKS).axes[0]
    said = {text.get_position(): text.get_text() for text in axis.texts if text.get_text() in "★–" and text.get_text()}
    places = sorted(columns(axis))
    assert said == {(places[2], 0): "★", (places[1], 1): "–"}


def test_behaviours_are_set_apart_and_named_in_the_middle() -> None:
    axis = course_map(EFFECTS, label="change", marks=MARKS).axes[0]
    places = sorted(columns(axis))
    assert np.diff(places).tolist() == [1.0, 1.5]
    named = {text.get_text(): text.xy[0] for text in axis.texts if text.get_text() in ("truth", "civility")}
    assert named == {"truth": np.mean(places[:2]), "civility": places[2]}


@pytest.mark.parametrize(
    ("effects", "stars", "marks", "said"),
    [
        ({"push": {}}, (), MARKS, "got 0 courses"),
        (EFFECTS, {("gate", "truth", "two")}, MARKS, "stars without an effect at .'gate', 'truth', 'two'."),
        (EFFECTS, (), {"one": "1"}, "without letters .'two'"),
    ],
)
def test_what_does_not_belong_together(effects, stars, marks, said) -> None:
    with pytest.raises(ValueError, match=said.replace(".'", r"[\[(]+'").replace("'.", r"'")):
        course_map(effects, stars=stars, label="change", marks=marks)
