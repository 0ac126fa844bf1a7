"""Tests between methods: known answers, known errors of the first kind, known power."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from steerlib.errors import MetricError
from steerlib.metrics import (
    detectable_effect,
    false_discovery,
    grid_interval,
    holm,
    paired_grid_difference,
)

P = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_a_worked_case_of_holm() -> None:
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    with pytest.raises(MetricError, match="expected probabilities"):
        holm([0.5, 1.2])


@given(P)
def test_holm_lies_between_nothing_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p)) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= -1e-15).all()
    assert (false_discovery(p) <= adjusted + 1e-12).all(), "false discovery is the milder promise"


def test_seeds_are_drawn_too() -> None:
    # All the spread is between seeds: prompts alone would claim certainty.
    values = np.repeat([[0.2], [0.4], [0.6], [0.8]], 50, axis=1)
    found = grid_interval(values)
    assert found.value == pytest.approx(0.5)
    assert found.high - found.low > 0.3
    assert grid_interval(values[:1]).high == pytest.approx(0.2), "one seed: only prompts are drawn"


def test_with_one_seed_the_interval_is_that_of_the_mean_over_prompts() -> None:
    row = np.random.default_rng(0).random(200)
    found = grid_interval(row[None])
    half = 1.96 * row.std() / np.sqrt(200)
    assert found.low == pytest.approx(row.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(row.mean() + half, abs=0.15 * half)


def test_grids_cover_the_mean_they_were_drawn_from() -> None:
    rng, inside = np.random.default_rng(3), 0
    for trial in range(150):
        values = rng.normal(0, 1, (6, 1)) * 0.5 + rng.normal(0, 1, (1, 40)) + rng.normal(0, 1, (6, 40))
        found = grid_interval(values, seed=trial, resamples=300)
        inside += found.low <= 0 <= found.high
    assert inside / 150 > 0.88


def test_a_paired_effect_is_found_where_an_unpaired_one_would_drown() -> None:
    rng = np.random.default_rng(0)
    control = rng.normal(0, 1, (5, 80)) * 0.1 + rng.normal(0, 5, (1, 80))
    found = paired_grid_difference(control + 0.1, control)
    assert found.value == pytest.approx(0.1)
    assert found.low > 0 and found.p < 0.01
    none = paired_grid_difference(control, control)
    assert (none.value, none.p) == (0.0, 1.0)
    with pytest.raises(MetricError, match=r"got shapes \(5, 80\) and \(4, 80\)"):
        paired_grid_difference(control, control[:4])
    with pytest.raises(MetricError, match="seed 1, prompt 2 is not finite"):
        grid_interval(np.where(np.arange(12).reshape(3, 4) == 6, np.nan, 1.0))
    with pytest.raises(MetricError, match=r"expected \(seeds, prompts\)"):
        grid_interval(np.ones(5))


def test_the_detectable_effect_is_detected_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    sample = rng.normal(0, 2, 60)
    effect = detectable_effect(sample / sample.std(ddof=1) * 2, power=0.8)
    found = np.mean([stats.ttest_1samp(rng.normal(effect, 2, 60), 0).pvalue < 0.05 for _ in range(1500)])
    assert found == pytest.approx(0.8, abs=0.03)
    assert detectable_effect(sample, power=0.95) > detectable_effect(sample, power=0.5)
    for wrong, message in (((0.0, 0.8), "expected both between 0 and 1"), ((0.05, 1.0), "expected both")):
        with pytest.raises(MetricError, match=message):
            detectable_effect(sample, level=wrong[0], power=wrong[1])
    with pytest.raises(MetricError, match="got one difference"):
        detectable_effect([1.0])
