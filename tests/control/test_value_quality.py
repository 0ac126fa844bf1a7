"""Quality of values whose relation to the rewards is made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from steerlib.control.linear_values import walk
from steerlib.control.value_quality import calibration, ceiling, quality_by_position, value_error, value_errors
from steerlib.errors import MetricError

NAN = math.nan


def test_the_true_value_is_calibrated_everywhere_and_knows_more_and_more() -> None:
    """V = S_t + P of a walk of T steps from 0, every path once: correlation is sqrt((t + 1) / (T + 1)), slope 1."""
    features, _, rewards = walk(5)
    values = features[..., 0] + features[..., 1]
    found = quality_by_position(values, rewards)
    assert [q.position for q in found] == list(range(6))
    for t, q in enumerate(found):
        assert q.n == len(rewards) == 128
        assert q.correlation == pytest.approx(math.sqrt((t + 1) / 6))
        assert (q.slope, q.intercept) == pytest.approx((1, 0))
        assert q.error == pytest.approx(5 - t)
        assert q.low < q.correlation < q.high or t == 5
    assert (found[5].low, found[5].high) == pytest.approx((1, 1))
    half, doubled = quality_by_position(values / 2 + 1, rewards), quality_by_position(2 * values, rewards)
    assert (half[3].slope, half[3].intercept) == pytest.approx((2, -2)) and doubled[3].slope == pytest.approx(0.5)
    assert half[3].correlation == pytest.approx(found[3].correlation)


def test_positions_from_either_end() -> None:
    values = torch.tensor([[1.0, 2.0, NAN], [3.0, NAN, NAN], [4.0, 5.0, 6.0], [7.0, 8.0, NAN], [9.0, 9.5, NAN]])
    rewards = torch.tensor([1.0, 0.0, 2.0, 4.0, 3.0])
    start = quality_by_position(values, rewards)
    assert [(q.position, q.n) for q in start] == [(0, 5), (1, 4), (2, 1)]
    assert start[0].correlation == pytest.approx(np.corrcoef([1, 3, 4, 7, 9], rewards)[0, 1])
    assert start[1].error == pytest.approx(np.mean([1, 9, 16, 6.5**2]))
    assert math.isnan(start[2].correlation) and start[2].error == 16
    end = quality_by_position(values, rewards, counted="end")
    assert [(q.position, q.n) for q in end] == [(-3, 1), (-2, 4), (-1, 5)]
    assert end[2].correlation == pytest.approx(np.corrcoef([2, 3, 6, 8, 9.5], rewards)[0, 1])
    assert end[0].error == 4


def test_a_constant_value_has_no_correlation() -> None:
    (found,) = quality_by_position(torch.full((9, 1), 0.3), torch.arange(9.0))
    assert math.isnan(found.correlation) and math.isnan(found.slope) and found.error > 0


def test_the_interval_is_fisher_s() -> None:
    chance = np.random.default_rng(0)
    v = chance.normal(size=28)
    r = v + chance.normal(size=28)
    (found,) = quality_by_position(torch.tensor(v)[:, None], torch.tensor(r))
    middle = np.arctanh(np.corrcoef(v, r)[0, 1])
    assert (found.low, found.high) == pytest.approx((np.tanh(middle - 1.959964 / 5), np.tanh(middle + 1.959964 / 5)))


def test_calibration_in_bins() -> None:
    values = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0])
    low, high = calibration(values, 10 * values, bins=2)
    assert (low.value, low.reward, low.n, low.error) == pytest.approx((2, 20, 3, 10 / math.sqrt(3)))
    assert (high.value, high.reward, high.n) == (4.5, 45, 2)
    assert [b.value for b in calibration(values, values, bins=99)] == [1, 2, 3, 4, 5]


def test_refusals() -> None:
    with pytest.raises(MetricError, match=r"values of shape \(2, 3\) and rewards of shape \(3,\)"):
        quality_by_position(torch.zeros(2, 3), torch.zeros(3))
    with pytest.raises(MetricError, match="calibration: got .*expected two equal, non-empty vectors"):
        calibration(torch.zeros(0), torch.zeros(0))


def _continued(*, spread: float, within: float, samples: int, n: int = 4000) -> tuple[torch.Tensor, ...]:
    """True values, means over continuations and their errors, for normal values and rewards."""
    chance = torch.Generator().manual_seed(5)
    true = spread * torch.randn(n, generator=chance).double()
    drawn = true[:, None] + within * torch.randn(n, samples, generator=chance).double()
    return true, drawn.mean(1), drawn.std(1) / math.sqrt(samples)


@pytest.mark.parametrize("samples", [3, 40])
def test_the_ceiling_is_the_correlation_of_the_true_value_however_few_continuations_there_are(samples: int) -> None:
    _, mean, error = _continued(spread=0.6, within=0.8, samples=samples)
    found = ceiling(mean, error, samples=samples, resamples=200)
    assert found.value == pytest.approx(0.6, abs=0.03)
    assert 0.005 < found.high - found.low < 0.06 and found.low < found.value < found.high
    raw = float(mean.std() / math.sqrt(0.36 + 0.64))
    assert samples > 3 or raw > 0.7, "the scatter of the means must be taken off, or this would pass without"


def test_the_ceiling_is_zero_where_states_say_nothing_and_one_where_they_say_all() -> None:
    _, mean, error = _continued(spread=0.0, within=1.0, samples=10)
    assert ceiling(mean, error, samples=10, resamples=50).value < 0.1
    assert ceiling(torch.arange(9.0), torch.zeros(9), samples=5, resamples=50).value == pytest.approx(1.0)
    assert ceiling(torch.ones(9), torch.zeros(9), samples=5, resamples=50).value == 0.0


def test_the_true_value_has_no_error_and_another_its_distance() -> None:
    true, mean, error = _continued(spread=0.6, within=0.8, samples=4)
    owners = torch.arange(len(true)) // 4
    assert value_error(true, mean, error, owners).value == pytest.approx(0.0, abs=0.01)
    assert value_error(true + 0.5, mean, error, owners).value == pytest.approx(0.25, abs=0.02)
    assert value_error(true, mean, torch.zeros_like(error), owners).value > 0.1, "the scatter counts, if not taken off"


def test_every_answer_counts_alike() -> None:
    values, owners = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([7, 7, 7, 2])
    each = value_errors(values, torch.zeros(4), torch.zeros(4), owners)
    assert each.tolist() == [0.0, 1.0]
    assert value_error(values, torch.zeros(4), torch.zeros(4), owners).value == pytest.approx(0.5)


def test_vectors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(MetricError, match=r"value_error: got shapes .*\(3,\).* expected equal"):
        value_errors(torch.zeros(4), torch.zeros(3), torch.zeros(4), torch.zeros(4))
    with pytest.raises(MetricError, match="got 3 states of 5 continuations, expected 4"):
        ceiling(torch.zeros(3), torch.zeros(3), samples=5)
