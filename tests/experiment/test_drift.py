"""What counts as drift: each rule seen from both sides of its edge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlib.experiment.drift import (
    ABSOLUTE,
    RELATIVE,
    Difference,
    compare,
    figure_differences,
    tolerance_of,
)
from steerlib.experiment.records import Check, FigureRecord, PageRecord, Provenance, Value
from steerlib.experiment.structure import figure_record


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    plt.switch_backend("agg")
    yield
    plt.close("all")


def value(number: float, low: float | None = None, high: float | None = None, **more: Any) -> Value:
    shown = f"{number:.0f}" if number.is_integer() and low is None else f"{number:.6f}"
    return Value(value=number, low=low, high=high, **{"shown": shown, **more})


def page(**fields: Any) -> PageRecord:
    return PageRecord(
        **{"page": "11_x", "profile": "tiny", "plant": "toy", "seeds": (0, 1), "started": "now", **fields}
    )


def differences(new: PageRecord, old: PageRecord) -> list[Difference]:
    return compare(new, old, {})


def moved(new: Value, old: Value, *, name: str = "score") -> list[Difference]:
    return differences(page(values={name: new}), page(values={name: old}))


@pytest.mark.parametrize(
    ("name", "recorded", "tolerance"),
    [
        ("n.prompts", value(84.0), "count"),
        ("share", value(1.0, shown="1.00"), "number"),
        ("share", value(20.0, shown="20 %", unit="%"), "count"),
        ("score", value(0.5), "number"),
        ("score", value(0.5, 0.4, 0.6), "interval"),
        ("score", value(1.0, 1.0, 1.0), "interval"),
        ("scoring", value(0.5, unit="s"), "machine"),
        ("scoring", value(0.5, 0.4, 0.6, unit="ms"), "machine"),
        ("scoring", value(12.0, unit="MB"), "machine"),
        ("scoring", value(12.0, unit="tokens/s"), "machine"),
        ("scoring", value(12.0, unit="s/token"), "machine"),
        ("time.ratio", value(12.0), "machine"),
        ("push", value(12.0, unit="logits/layer", shown="12.0 logits/layer"), "number"),
        ("sometimes", value(12.5, unit="share"), "number"),
    ],
)
def test_the_class_of_a_tolerance(name: str, recorded: Value, tolerance: str) -> None:
    assert tolerance_of(name, recorded) == tolerance


def test_a_page_agrees_with_itself() -> None:
    record = page(
        values={"a": value(0.5, 0.4, 0.6), "b": value(7.0)},
        texts={"c": "x"},
        figures={"f": draw()},
        checks={"d": check("reproduced")},
    )
    assert differences(record, record) == []


@pytest.mark.parametrize("old", [0.3, -0.3, 700.0001, 0.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_number_may_move_by_its_tolerance_only(old: float, sign: int) -> None:
    before = value(old, shown="0.300000")
    room = max(ABSOLUTE, RELATIVE * abs(old))
    assert moved(value(old + sign * 0.99 * room), before) == []
    (found,) = moved(value(old + sign * 1.01 * room), before)
    assert found.drift
    assert found.where == "value score"
    assert f"{old:.6g}" in found.what


def test_a_count_may_not_move_at_all() -> None:
    assert moved(value(10_000.0), value(10_000.0)) == []
    (found,) = moved(value(10_001.0), value(10_000.0))  # 1e-4: inside the tolerance of a number
    assert found == Difference("value score", "was 10000 and is now 10001; expected 10000, exactly")


@pytest.mark.parametrize(("new", "drift"), [(0.59, False), (0.53, False), (0.635, False), (0.65, True), (0.42, True)])
def test_an_estimate_stays_in_its_stretched_interval(new: float, drift: bool) -> None:
    old = value(0.5, 0.45, 0.6)  # stretched: 0.429 to 0.641
    found = moved(value(new, new - 0.05, new + 0.1), old)
    assert bool(found) == drift
    assert all("expected 0.42" in item.what for item in found)


@pytest.mark.parametrize(
    ("old", "shown", "stays", "moves"),
    [
        (-0.5507, "-0.55", -0.5595, -0.5615),
        (0.9646, "1.0", 0.8700, 0.8600),
        (73.58, "73.6 %", 73.67, 73.70),
        (2.5e-5, "2.5e-05", 1.2e-4, 1.4e-4),
        (0.25, "a quarter", 0.2502, 0.2504),
    ],
)
def test_a_number_may_move_by_one_of_its_last_printed_digit(old, shown, stays, moves) -> None:
    assert not moved(value(stays), value(old, shown=shown))
    assert moved(value(moves), value(old, shown=shown))[0].drift


def test_printed_digits_do_not_widen_a_count_or_an_interval() -> None:
    assert moved(value(13.0, shown="13"), value(12.0, shown="12"))
    assert moved(value(0.95, 0.90, 0.99), value(0.5, 0.4, 0.6, shown="1"))


@given(st.floats(-5, 5), st.floats(0, 3), st.floats(0, 3))
def test_the_reference_itself_is_never_drift(number: float, below: float, above: float) -> None:
    recorded = value(number, number - below, number + above)
    assert moved(recorded, recorded) == []


def test_chance_alone_passes_about_19_times_in_20_and_a_real_shift_does_not() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 4000))
    half = 1.959964

    def share(shift: float) -> float:
        passed = [
            not moved(value(b + shift, b + shift - half, b + shift + half), value(a, a - half, a + half))
            for a, b in zip(first, second, strict=True)
        ]
        return float(np.mean(passed))

    assert share(0.0) == pytest.approx(0.95, abs=0.012)
    assert share(6.0) < 0.02


@pytest.mark.parametrize(
    ("new", "what"),
    [
        (value(0.5, 0.495, 0.505, n=9), "its interval had the width 0.2 and now has 0.01"),
        (value(0.5, 0.2, 0.8, n=9), "its interval had the width 0.2 and now has 0.6"),
        (value(0.5, n=9), "its interval has vanished"),
        (value(0.5, 0.4, 0.6, n=8), "its number of observations was 9 and is now 8"),
        (value(0.5, 0.4, 0.6, n=9, unit="%"), "its unit was '' and is now '%'"),
    ],
)
def test_the_form_of_a_value_counts(new: Value, what: str) -> None:
    (found,) = moved(new, value(0.5, 0.4, 0.6, n=9))
    assert found.drift
    assert what in found.what


def test_an_interval_of_no_width_leaves_room_for_the_last_digits() -> None:
    assert moved(value(1 - 1e-6, 1 - 1e-6, 1.0), value(1.0, 1.0, 1.0)) == []
    assert moved(value(0.98, 0.97, 1.0), value(1.0, 1.0, 1.0))[0].drift


def test_time_is_never_compared_and_its_absence_is_seen() -> None:
    old = value(0.5, unit="s")
    assert moved(value(500.0, unit="s"), old) == []
    assert moved(value(500.0), value(0.5), name="time.ratio") == []
    (gone,) = differences(page(), page(values={"scoring": old}))
    assert gone.drift
    assert "has vanished" in gone.what


def test_the_class_that_the_reference_names_wins() -> None:
    new, old = page(values={"ratio": value(9.5)}), page(values={"ratio": value(0.5)})
    assert compare(new, old, {"ratio": "number"})[0].drift
    assert compare(new, old, {"ratio": "machine"}) == []


def test_what_is_new_is_said_and_what_is_gone_is_drift() -> None:
    whole = page(values={"v": value(0.5)}, texts={"t": "x"}, figures={"f": draw()}, checks={"c": check("contradicted")})
    gone, new = differences(page(), whole), differences(whole, page())
    assert [d.where for d in gone] == ["value v", "text t", "figure f", "claim c"]
    assert all(d.drift for d in gone)
    assert [d.where for d in new] == ["value v", "figure f", "claim c"]
    assert not any(d.drift for d in new)


def test_other_words_are_said_and_other_seeds_are_drift() -> None:
    (words,) = differences(page(texts={"t": "y"}), page(texts={"t": "x"}))
    assert not words.drift
    (seeds,) = differences(page(seeds=(0,)), page())
    assert seeds == Difference("run", "the seeds were 0, 1 and are now 0")


def check(verdict: Any, estimate: float | None = None, **more: Any) -> Check:
    return Check(claim="c", verdict=verdict, estimate=estimate, **more)


def checked(new: Check, old: Check) -> list[Difference]:
    return differences(page(checks={"c": new}), page(checks={"c": old}))


def test_a_changed_verdict_is_drift_in_either_direction() -> None:
    (found,) = checked(check("not reproduced"), check("reproduced"))
    assert found == Difference("claim c", "was reproduced and is now not reproduced")
    assert checked(check("reproduced"), check("not reproduced"))[0].drift
    assert checked(check("contradicted", 0.1), check("contradicted", 0.1)) == []


def test_the_estimate_of_a_check_is_a_value_where_it_has_an_interval() -> None:
    old = check("reproduced", 0.3, low=0.28, high=0.32, n=84)
    assert checked(check("reproduced", 0.31, low=0.29, high=0.33, n=84), old) == []
    assert checked(check("reproduced", 0.4, low=0.38, high=0.42, n=84), old)[0].drift
    assert checked(check("reproduced", 0.3, low=0.28, high=0.32, n=12), old)[0].drift
    # What rounding left of an identity may be ten times as much elsewhere; its verdict is its test.
    assert checked(check("reproduced", 3e-7), check("reproduced", 2e-8)) == []


def test_what_became_of_a_claim_about_time_is_said() -> None:
    def timed(new: Check) -> list[Difference]:
        old = check("reproduced", 0.09, low=0.04, high=0.15)
        name = "recontrol.t1.time.control-costs-more"
        return differences(page(checks={name: new}), page(checks={name: old}))

    for new in (check("not reproduced", 0.01, low=-0.04, high=0.05), check("reproduced", 0.4, low=0.3, high=0.5)):
        (found,) = timed(new)
        assert not found.drift and "time" in found.where
    missing = differences(page(), page(checks={"recontrol.t1.time.control-costs-more": check("reproduced")}))
    assert [one.drift for one in missing] == [True], "a claim that is no longer checked is missed"


def provenance(device: str) -> Provenance:
    return Provenance(
        commit="c", dirty=False, lock="l", device=device, dtype="float32", weights="w", platform="p", versions={}
    )


def test_on_another_device_values_may_differ_and_conclusions_may_not() -> None:
    old = page(values={"v": value(0.5)}, checks={"c": check("reproduced")}, provenance=provenance("cpu"))
    new = page(values={"v": value(0.6)}, checks={"c": check("contradicted")}, provenance=provenance("cuda:0"))
    moved_value, verdict = differences(new, old)
    assert not moved_value.drift
    assert "measured on cuda, the reference on cpu" in moved_value.what
    assert verdict.drift
    same = new.model_copy(update={"provenance": provenance("cpu")})
    assert [d.drift for d in differences(same, old)] == [True, True]


STYLES = ("full", "half", "nan", "few", "redrawn", "unlabelled", "linear", "renamed", "more")


def draw(style: str = "full") -> FigureRecord:
    """Two panels: four lines with a legend, of which a style may take something away; and a scatter."""
    figure, (left, right) = plt.subplots(1, 2)
    x = np.linspace(0, 1, 20)
    for index in range(2 if style == "half" else 5 if style == "more" else 4):
        y = x ** (index + 1)
        if style == "nan" and index == 1:
            y = np.full_like(y, np.nan)
        if style == "redrawn":
            y = 1.5 * y
        keep = 5 if style == "few" and index == 0 else 20
        left.plot(x[:keep], y[:keep], label=f"dose {index}")
    left.plot(x, x)
    left.set_yscale("linear" if style == "linear" else "log")
    left.set_title("Renamed" if style == "renamed" else "Response")
    left.set_xlabel("" if style == "unlabelled" else "strength")
    left.legend()
    right.scatter(x, x, label="points")
    return figure_record(figure, alt="alt")


@pytest.mark.parametrize(
    ("style", "what"),
    [
        ("half", "panel 1 (Response) lost 2 legend entries: dose 2, dose 3"),
        ("half", "panel 1 (Response) lost 2 of 5 lines: dose 2, dose 3"),
        ("nan", "panel 1 (Response) shows 0 of 20 points of line 'dose 1'"),
        ("few", "panel 1 (Response) shows 5 of 20 points of line 'dose 0'"),
        ("unlabelled", "panel 1 (Response) lost its x label 'strength'"),
        ("linear", "panel 1 (Response) has another y scale: it was log and is now linear"),
    ],
)
def test_what_a_figure_lost_is_drift(style: str, what: str) -> None:
    found = dict(figure_differences(draw(style), draw()))
    assert found.get(what) is True, found


@pytest.mark.parametrize(
    ("style", "what"),
    [
        ("redrawn", "panel 1 (Response) draws other data in 4 of 5 elements"),
        ("renamed", "panel 1 (Response) has another title: it was 'Response' and is now 'Renamed'"),
        ("more", "panel 1 (Response) gained 1 line: dose 4"),
    ],
)
def test_what_a_figure_gained_or_redrew_is_said(style: str, what: str) -> None:
    found = dict(figure_differences(draw(style), draw()))
    assert found.get(what) is False, found
    assert not any(found.values())


def test_half_of_a_figures_lines_are_missed_in_the_page() -> None:
    found = differences(page(figures={"doses": draw("half")}), page(figures={"doses": draw()}))
    assert Difference("figure doses", "panel 1 (Response) lost 2 of 5 lines: dose 2, dose 3") in found


def test_a_line_without_a_label_and_a_whole_panel_are_missed() -> None:
    figure, axes = plt.subplots()
    axes.plot([0, 1], [0, 1])
    two = plt.subplots(1, 2)[0]
    one, pair = figure_record(figure, alt="alt"), figure_record(two, alt="alt")
    axes.lines[0].remove()
    assert list(figure_differences(figure_record(figure, alt="alt"), one)) == [("panel 1 lost 1 of 1 line", True)]
    assert list(figure_differences(one, pair)) == [("had 2 panels and now has 1", True)]
    assert list(figure_differences(pair, one)) == [("had 1 panel and now has 2", False)]


@given(st.sampled_from(STYLES), st.sampled_from(STYLES))
def test_every_change_of_a_figure_is_told(new: str, old: str) -> None:
    assert bool(list(figure_differences(DRAWN[new], DRAWN[old]))) == (new != old)


plt.switch_backend("agg")
DRAWN = {style: draw(style) for style in STYLES}
plt.close("all")
