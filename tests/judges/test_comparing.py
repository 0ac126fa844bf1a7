"""Agreement: worked tables, what chance does, and how often an interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest

from steerlib.errors import MetricError
from steerlib.judges import Judgement, agreement, ranking


def judged(scores, *, name="j", missing=()):
    values = np.array(scores, dtype=float)
    values[list(missing)] = np.nan
    return Judgement(values, dict.fromkeys(missing, "gone"), name, "1")


def table(no_no, no_yes, yes_no, yes_yes):
    first = [0.0] * (no_no + no_yes) + [1.0] * (yes_no + yes_yes)
    second = [0.0] * no_no + [1.0] * no_yes + [0.0] * yes_no + [1.0] * yes_yes
    return judged(first), judged(second)


def test_a_worked_table():
    found = agreement(*table(15, 5, 10, 20))
    # same: 35 of 50; chance: 0.6 * 0.5 + 0.4 * 0.5
    assert found.same.value == pytest.approx(0.7)
    assert found.kappa.value == pytest.approx((0.7 - 0.5) / 0.5)
    assert found.yes == pytest.approx((0.6, 0.5)) and found.kappa.n == 50 and found.left_out == 0
    assert found.kappa.low < 0.4 < found.kappa.high


def test_the_same_the_opposite_and_the_one_who_always_agrees():
    assert agreement(*table(20, 0, 0, 20)).kappa.value == 1.0
    assert agreement(*table(0, 20, 20, 0)).kappa.value == -1.0
    flatterer = agreement(*table(0, 10, 0, 30))
    assert flatterer.same.value == 0.75 and flatterer.kappa.value == 0.0


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    shares, inside = np.array([0.4, 0.1, 0.1, 0.4]), 0
    for seed in range(200):
        counts = rng.multinomial(120, shares)
        found = agreement(*table(*counts), seed=seed, resamples=400).kappa
        inside += found.low <= 0.6 <= found.high
    assert 0.90 <= inside / 200 <= 0.98


def test_gaps_are_left_out_and_counted():
    first, second = table(15, 5, 10, 20)
    whole = agreement(first, second)
    more = agreement(
        judged([*first.scores, 1.0, 1.0], missing=(50,)), judged([*second.scores, 0.0, 0.0], missing=(51,))
    )
    assert (more.kappa, more.left_out) == (whole.kappa, 2)


def test_judges_with_scales_of_their_own():
    rewards = judged([-3.0, -1.0, 2.0, 5.0] * 5)
    labels = judged([0.0, 0.0, 1.0, 1.0] * 5)
    assert agreement(rewards, labels, threshold=(0.0, 0.5)).kappa.value == 1.0
    assert agreement(rewards, labels, threshold=(3.0, 0.5)).kappa.value == pytest.approx(0.5)
    assert ranking(rewards, labels).value == 1.0
    assert ranking(judged([5.0, -1.0, 2.0, -3.0] * 5), labels).value == pytest.approx(0.25)


def test_what_has_no_answer_is_said():
    yes = judged([1.0] * 10, name="flatterer")
    with pytest.raises(MetricError, match="flatterer says yes to 10 of 10 answers.*too one-sided"):
        agreement(yes, yes)
    with pytest.raises(MetricError, match="too one-sided"):
        agreement(*table(40, 0, 0, 1))  # a third of the resamples hold no yes
    with pytest.raises(MetricError, match="got 10 and 50 answers"):
        agreement(yes, table(15, 5, 10, 20)[0])
    with pytest.raises(MetricError, match="1 of 2 answers are judged by both"):
        agreement(judged([1.0, 0.0], missing=(0,)), judged([1.0, 0.0]))
    with pytest.raises(MetricError, match="flatterer calls 10 of 10 answers good"):
        ranking(judged(range(10)), yes)
