"""What answers amount to: each definition against another way to compute it, and against its rivals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlib.errors import MetricError
from steerlib.metrics import (
    attack_success,
    expected_maximum_toxicity,
    prevalence,
    refused,
    reward_quantile,
    toxic_share,
    true_and_informative,
    truth_times_info,
    unrefused,
    win_rate,
)


def test_product_of_means_and_mean_of_and_differ_by_the_covariance() -> None:
    rng = np.random.default_rng(0)
    true, info = rng.integers(2, size=(2, 400)).astype(float)
    info = np.maximum(info, true)  # what is true is informative here
    both, product = true_and_informative(true, info), truth_times_info(true, info)
    covariance = np.mean(true * info) - true.mean() * info.mean()
    assert both.value - product.value == pytest.approx(covariance)
    assert covariance > 0.05
    assert both.low < both.value < both.high


def test_a_plant_that_always_declines_has_no_product() -> None:
    assert truth_times_info(np.ones(20), np.zeros(20)).value == 0.0
    assert true_and_informative(np.ones(20), np.zeros(20)).value == 0.0
    with pytest.raises(MetricError, match="got 3 and 2 values, expected pairs"):
        true_and_informative([1, 0, 1], [1, 0])


@pytest.mark.parametrize(
    ("true", "informative", "message"),
    [
        ([0.7], [0.8], r"got 0\.7 as true of answer 0, expected 0 or 1.*Truth\.masses\(questions\)\[\"truth\"\]"),
        ([1, 0], [1, 0.5], r"got 0\.5 as informative of answer 1, expected 0 or 1.*not averaged over seeds"),
        ([2, 0], [1, 0], "got 2 as true of answer 0"),
        ([0, 1], [-1, 0], "got -1 as informative of answer 0"),
    ],
)
def test_no_and_is_made_up_from_probabilities(true, informative, message) -> None:
    with pytest.raises(MetricError, match=message):
        true_and_informative(true, informative)


def test_verdicts_may_be_numbers_or_booleans() -> None:
    true, informative = np.array([True, True, False, True]), [1.0, 0.0, 1.0, 1]
    assert true_and_informative(true, informative).value == 0.5


@given(st.integers(1, 6), st.integers(0, 10_000))
def test_expected_maximum_against_all_subsets(k: int, seed: int) -> None:
    table = np.random.default_rng(seed).random((3, 6))
    expected = np.mean([[max(subset) for subset in itertools.combinations(row, k)] for row in table])
    assert expected_maximum_toxicity(table, k=k).value == pytest.approx(expected)


def test_expected_maximum_and_share_of_prompts() -> None:
    table = np.array([[0.1, 0.9], [0.2, 0.3]])
    assert expected_maximum_toxicity(table).value == pytest.approx(0.6)
    assert toxic_share(table).value == pytest.approx(0.5)
    assert toxic_share(table, threshold=0.95).value == 0.0
    with pytest.raises(MetricError, match="got k = 3, expected 1 to 2"):
        expected_maximum_toxicity(table, k=3)
    with pytest.raises(MetricError, match=r"got shape \(2,\), expected \(prompts, samples\)"):
        toxic_share(np.array([0.1, 0.2]))
    with pytest.raises(MetricError, match="prompt 1 has a value that is not finite"):
        toxic_share(np.array([[0.1], [np.nan]]))


def test_ties_lose_count_half_or_are_dropped() -> None:
    ours, theirs = np.array([2.0, 1.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0, 1.0])
    assert win_rate(ours, theirs).value == 0.25
    assert win_rate(ours, theirs, ties="half").value == 0.5
    assert win_rate(ours, theirs, ties="dropped").value == 0.5
    assert win_rate(ours + 1, theirs, ties="dropped").value == 1.0


def test_a_judge_that_always_ties_decides_nothing() -> None:
    same = np.ones(8)
    assert win_rate(same, same).value == 0.0
    assert win_rate(same, same, ties="half").value == 0.5
    with pytest.raises(MetricError, match="every prompt is a tie"):
        win_rate(same, same, ties="dropped")
    with pytest.raises(MetricError, match="expected 'lose', 'half' or 'dropped'"):
        win_rate(same, same, ties="win")  # type: ignore[arg-type]


def test_swapping_the_sides_turns_the_win_rate_round() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(5, size=(2, 200)).astype(float)
    half = win_rate(a, b, ties="half").value
    assert half + win_rate(b, a, ties="half").value == pytest.approx(1.0)
    assert win_rate(a, b).value + win_rate(b, a).value == pytest.approx(1.0 - np.mean(a == b))


def test_the_ninetieth_percentile() -> None:
    found = reward_quantile(np.arange(101.0))
    assert found.value == pytest.approx(90.0)
    assert found.low < 90 < found.high
    with pytest.raises(MetricError, match="expected 0 to 1"):
        reward_quantile([1.0, 2.0], 90)


def test_refusals_by_phrase_and_how_they_are_fooled() -> None:
    texts = [
        "I\u2019m sorry, I can\u2019t do that.",
        "Sure. First, I cannot stress this enough, oil the door.",
        "",
        "No.",
    ]
    assert refused(texts).tolist() == [1.0, 1.0, 0.0, 0.0], "the second helps, the fourth refuses in other words"
    assert refused(["Never, not for gold."], phrases=("never",)).tolist() == [1.0]


def test_silence_neither_refuses_nor_helps() -> None:
    texts = ["Sure.", "", " \n", "I’m sorry, no.", "The weather is fine."]
    assert unrefused(texts).tolist() == [1.0, 0.0, 0.0, 0.0, 1.0], "the last helps with nothing: a judge would tell"
    assert refused(texts).tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert unrefused(["Never."], phrases=("never",)).tolist() == [0.0]


def test_shares_of_judged_answers() -> None:
    assert attack_success([1, 0, 0, 0]).value == 0.25
    assert prevalence([1, 1, 0, 0]).value == 0.5
    for share in (attack_success, prevalence):
        with pytest.raises(MetricError, match="expected at least one value"):
            share([])
