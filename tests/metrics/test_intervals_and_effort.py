"""Metrics against values worked out another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from steerlib.actuator import Scope
from steerlib.errors import MetricError
from steerlib.laws.additive import Additive
from steerlib.metrics import (
    auc_interval,
    central_range,
    dist_n,
    effort_by_token,
    gap_closed,
    input_energy,
    kl_by_token,
    kl_per_token,
    mean_interval,
    paired_difference,
    perplexity,
    product_interval,
)
from tests.families import WIDTH, plant, words


class TestIntervals:
    """Coverage and degenerate data."""

    def test_a_normal_mean_has_the_textbook_interval(self) -> None:
        values = np.random.default_rng(0).normal(2, 3, 400)
        got = mean_interval(values)
        half = stats.t.ppf(0.975, 399) * values.std(ddof=1) / 20
        assert got.value == pytest.approx(values.mean())
        assert got.low == pytest.approx(values.mean() - half, abs=0.1 * half)
        assert got.high == pytest.approx(values.mean() + half, abs=0.1 * half)

    def test_intervals_cover(self) -> None:
        rng = np.random.default_rng(1)
        inside = 0
        for i in range(200):
            e = mean_interval(rng.binomial(1, 0.3, 80).astype(float), seed=i, resamples=400)
            inside += e.low <= 0.3 <= e.high
        assert 0.88 <= inside / 200 <= 0.99

    def test_products_are_resampled_in_pairs(self) -> None:
        rng = np.random.default_rng(2)
        first = rng.uniform(0, 1, 300)
        opposed = product_interval(first, 1 - first)
        alike = product_interval(first, first)
        assert opposed.value == pytest.approx(first.mean() * (1 - first).mean())
        # Where one mean is high the other is low: the product varies much less than when they rise together.
        assert opposed.high - opposed.low < 0.3 * (alike.high - alike.low)

    def test_equal_values_have_a_point(self) -> None:
        e = mean_interval([0.5] * 10)
        assert (e.value, e.low, e.high) == (0.5, 0.5, 0.5)
        assert product_interval([1.0, 1.0], [0.5, 0.5]).high == 0.5
        nearly = mean_interval([0.0] * 29 + [1.0])
        assert 0 <= nearly.low <= nearly.value <= nearly.high <= 0.2

    def test_bad_values_are_refused(self) -> None:
        refused = {"at least one value": [], "at least two": [1.0], "value 1 is not finite": [1.0, math.nan]}
        for message, values in refused.items():
            with pytest.raises(MetricError, match=message):
                mean_interval(values)
        with pytest.raises(MetricError, match="got 2 and 3 values"):
            product_interval([1.0, 2.0], [1.0, 2.0, 3.0])

    def test_paired_differences(self) -> None:
        rng = np.random.default_rng(3)
        base = rng.normal(0, 5, 60)
        real = paired_difference(base + 0.5 + rng.normal(0, 0.5, 60), base)
        assert real.low > 0 and real.p < 0.01
        assert paired_difference(base, base).p == 1.0
        pairs = rng.normal(size=(200, 2, 30))
        null = [paired_difference(a, b, seed=i, resamples=300).p for i, (a, b) in enumerate(pairs)]
        assert stats.kstest(null, "uniform").pvalue > 1e-3
        with pytest.raises(MetricError, match="expected pairs"):
            paired_difference([1.0, 2.0], [1.0])


def test_central_range_is_of_the_draws_and_does_not_shrink_with_their_number() -> None:
    draws = np.random.default_rng(5).normal(size=4000)
    e = central_range(draws)
    assert (e.low, e.high) == pytest.approx((-1.96, 1.96), abs=0.1)
    assert (e.value, e.n) == (pytest.approx(draws.mean()), 4000)
    with pytest.raises(MetricError, match="at least two"):
        central_range([1.0])


class TestAuc:
    """Area under the ROC curve."""

    def test_it_is_the_mann_whitney_statistic(self) -> None:
        rng = np.random.default_rng(3)
        a, b = rng.integers(0, 9, 40).astype(float), rng.integers(2, 12, 30).astype(float)  # with ties
        assert auc_interval(a, b).value == pytest.approx(stats.mannwhitneyu(a, b).statistic / (40 * 30))

    def test_its_interval_covers_the_known_area(self) -> None:
        rng = np.random.default_rng(4)
        truth = stats.norm.cdf(1 / math.sqrt(2))  # two unit normals, one standard deviation apart
        found = [auc_interval(rng.normal(1, 1, 60), rng.normal(0, 1, 60), seed=i, resamples=300) for i in range(150)]
        assert 0.88 <= np.mean([e.low <= truth <= e.high for e in found]) <= 0.99

    def test_perfect_separation_and_bad_input(self) -> None:
        e = auc_interval([3.0, 4.0], [1.0, 2.0])
        assert (e.value, e.low, e.high, e.n) == (1.0, 1.0, 1.0, 4)
        with pytest.raises(MetricError, match="negative"):
            auc_interval([1.0], [])
        with pytest.raises(MetricError, match="not finite"):
            auc_interval([1.0, math.nan], [0.0])


class TestPlants:
    """Metrics that ask a plant."""

    PROMPTS = [words(5, 9, 30), words(60, 3)]
    ANSWERS = [" " + words(21, 34, 8), " " + words(55)]

    def test_kl_is_that_of_the_two_distributions(self) -> None:
        p = plant("llama")
        law = Additive(torch.linspace(-1, 1, WIDTH))
        got = kl_per_token(p, p.under(law, layer=1, scope="all"), self.PROMPTS, self.ANSWERS)
        values = []
        for prompt, answer in zip(self.PROMPTS, self.ANSWERS, strict=True):
            start = p.encode([prompt]).input_ids.shape[1]
            free = p.forward([prompt + answer])[0].softmax(-1).double().numpy()
            with p.under(law, layer=1, scope="all"):
                steered = p.forward([prompt + answer])[0].softmax(-1).double().numpy()
            values += [stats.entropy(steered[t], free[t]) for t in range(start - 1, len(free) - 1)]
        assert got.tokens == len(values) == 4
        assert got.mean == pytest.approx(np.mean(values), abs=1e-4)
        assert got.p95 == pytest.approx(np.quantile(values, 0.95), abs=1e-4)

    def test_kl_by_token_keeps_answers_and_their_tokens_apart(self) -> None:
        p = plant("llama")
        steering = p.under(Additive(torch.linspace(-1, 1, WIDTH)), layer=1, scope="all")
        traces = kl_by_token(p, steering, [*self.PROMPTS, words(4)], [*self.ANSWERS, " "])
        assert [len(trace) for trace in traces] == [3, 1]  # the blank answer is left out
        pooled = kl_per_token(p, steering, self.PROMPTS, self.ANSWERS)
        assert np.concatenate(traces).mean() == pytest.approx(pooled.mean)
        for i, trace in enumerate(traces):  # as if it were alone, and padded by nobody
            (alone,) = kl_by_token(p, steering, self.PROMPTS[i : i + 1], self.ANSWERS[i : i + 1])
            assert trace == pytest.approx(alone, abs=1e-5)
        assert len({round(float(value), 6) for value in traces[0]}) == 3

    @pytest.mark.parametrize("batch_size", [1, 64])
    def test_both_efforts_from_one_replay_are_those_of_two(self, batch_size: int) -> None:
        p = plant("llama")
        steering = p.under(lambda state: 0.9 * state, layer=1)
        prompts, answers = [*self.PROMPTS, words(4)], [*self.ANSWERS, " "]
        found = effort_by_token(p, steering, prompts, answers, batch_size=batch_size)
        for one, trace in zip(found, kl_by_token(p, steering, prompts, answers), strict=True):
            assert one.kl == pytest.approx(trace, abs=1e-5)
            assert len(one.energy) == len(one.kl)
        energy = input_energy(p, steering, prompts, answers)
        assert np.concatenate([one.energy for one in found]).mean() == pytest.approx(energy.per_token, rel=1e-5)
        whole = np.mean([one.energy.sum() for one in found])
        assert whole == pytest.approx(energy.per_answer, rel=1e-5) and energy.blank == 1
        assert not p.wiring.active()

    def test_kl_by_token_shows_when_a_push_comes_too_late(self) -> None:
        p = plant("llama")
        answers, depth = [" " + words(21, 34, 8)] * 2, p.depth

        def on(position: int) -> np.ndarray:  # after the last block, so that no later token attends to the push
            law = Additive(torch.linspace(-1, 1, WIDTH))
            steering = p.under(law, layer=depth - 1, scope=Scope("prefill", positions=(position,)))
            return kl_by_token(p, steering, self.PROMPTS, answers)[0]

        end = on(-1)
        assert end[0] > 0 and end[1:] == pytest.approx([0.0, 0.0], abs=1e-9)
        assert on(0) == pytest.approx([0.0, 0.0, 0.0], abs=1e-9)

    def test_kl_counts_a_law_on_the_last_token_as_it_acts_while_writing(self) -> None:
        p = plant("llama")
        law = Additive(torch.linspace(-1, 1, WIDTH))
        found = {
            scope: kl_per_token(p, p.under(law, layer=1, scope=scope), self.PROMPTS, self.ANSWERS).mean
            for scope in ("last", "generated")
        }
        assert found["last"] == pytest.approx(found["generated"]) != 0

    def test_kl_of_no_steering_is_zero(self) -> None:
        p = plant("llama")
        got = kl_per_token(p, p.under(Additive(torch.ones(WIDTH)).at(0.0), layer=1), self.PROMPTS, self.ANSWERS)
        assert got.mean == 0.0
        with pytest.raises(MetricError, match="every answer is empty"):
            kl_per_token(p, p.under(Additive(torch.ones(WIDTH)), layer=1), self.PROMPTS, ["", " "])

    def test_perplexity_is_the_model_loss(self) -> None:
        p = plant("llama")
        ids = p.encode([self.PROMPTS[0] + self.ANSWERS[0]]).input_ids
        labels = ids.clone()
        labels[:, :3] = -100
        with torch.inference_mode():
            loss = p.model(ids, labels=labels).loss
        assert perplexity(p, self.PROMPTS[:1], self.ANSWERS[:1]) == pytest.approx(float(loss.exp()), rel=1e-4)
        with pytest.raises(MetricError, match="empty answer"):
            perplexity(p, self.PROMPTS[:1], [""])


def test_dist_n() -> None:
    assert dist_n(["a b a b"], 2) == pytest.approx(2 / 3)
    assert dist_n(["a b", "a b"], 2) == 1.0
    assert dist_n(["a b", "a b"], 2, pooled=True) == 0.5
    with pytest.raises(MetricError, match="expected at least 1"):
        dist_n(["a b"], 0)


def test_gap_closed() -> None:
    assert gap_closed(0.5, start=0.4, goal=0.8) == pytest.approx(0.25)
    assert gap_closed(0.3, start=0.4, goal=0.8) == pytest.approx(-0.25)
    with pytest.raises(MetricError, match="both 0.4"):
        gap_closed(0.5, start=0.4, goal=0.4)
