"""Energy, perplexity by name, coherence, drift and the list of metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steerlib.errors import MetricError
from steerlib.laws.additive import Additive
from steerlib.metrics import (
    METRICS,
    Ends,
    coherence,
    coherence_each,
    decoding_time,
    drift,
    input_energy,
    kl_by_token,
    kl_per_token,
    metric_named,
    perplexity,
)
from tests.families import WIDTH, plant

PROMPTS, ANSWERS = ["w3 w4 w5", "w6 w7"], [" w8 w9 w10", " w11"]


@pytest.fixture(scope="module")
def lm():
    return plant("llama")


def test_energy_of_a_constant_push_is_its_squared_length(lm) -> None:
    vector = torch.arange(WIDTH, dtype=torch.float32) / 10
    found = input_energy(lm, lm.under(Additive(vector, strength=2.0), layer=1), PROMPTS, ANSWERS)
    size = float((2 * vector).double().pow(2).sum())
    # Each answer token is decided at the token before it: three and one.
    assert found.tokens == 4
    assert found.per_token == pytest.approx(size, rel=1e-5)
    assert found.per_answer == pytest.approx(2 * size, rel=1e-5)
    assert found.relative > 0


def test_energy_counts_only_the_tokens_of_the_scope(lm) -> None:
    law = Additive(torch.ones(WIDTH), strength=1.0)
    everywhere = input_energy(lm, lm.under(law, layer=1, scope="all"), PROMPTS, ANSWERS)
    prefill = input_energy(lm, lm.under(law, layer=1, scope="prefill"), PROMPTS, ANSWERS)
    assert everywhere.per_answer == pytest.approx(2 * WIDTH, rel=1e-5)
    assert prefill.per_answer == pytest.approx(WIDTH, rel=1e-5), "the last prompt token alone decides with the push"


def test_energy_of_feedback_is_what_it_added_and_nothing_stays_attached(lm) -> None:
    def halve(state):  # takes away half of every state
        return 0.5 * state

    found = input_energy(lm, lm.under(halve, layer=0), PROMPTS, ANSWERS)
    assert found.relative == pytest.approx(0.5, rel=1e-5)
    assert not lm.wiring.active()
    zero = input_energy(lm, lm.under(Additive(torch.ones(WIDTH), strength=0.0), layer=0), PROMPTS, ANSWERS)
    assert (zero.per_token, zero.relative) == (0.0, 0.0)
    with pytest.raises(MetricError, match="every answer is empty"):
        input_energy(lm, lm.under(halve, layer=0), PROMPTS, ["", " "])


def test_perplexity_by_hand_in_all_four_ways(lm) -> None:
    nll = {"completion": [], "whole": []}
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        ids = lm.encode([prompt + answer]).input_ids
        logs = lm.forward(lm.encode([prompt + answer]))[0].log_softmax(-1)
        each = -logs[:-1].gather(1, ids[0, 1:, None])[:, 0].double().numpy()
        nll["whole"].append(each)
        nll["completion"].append(each[-len(answer.split()) :])
    for of, rows in nll.items():
        tokens = np.exp(np.concatenate(rows).mean())
        texts = np.mean([np.exp(row.mean()) for row in rows])
        assert perplexity(lm, PROMPTS, ANSWERS, of=of) == pytest.approx(tokens, rel=1e-4)
        assert perplexity(lm, PROMPTS, ANSWERS, of=of, average="texts") == pytest.approx(texts, rel=1e-4)
    with pytest.raises(MetricError, match="expected of 'completion' or 'whole'"):
        perplexity(lm, PROMPTS, ANSWERS, of="prompt")  # type: ignore[arg-type]
    with pytest.raises(MetricError, match="got no answer"):
        perplexity(lm, [], [])


@pytest.mark.parametrize("metric", ["perplexity", "kl_per_token", "kl_by_token", "input_energy"])
def test_lists_that_do_not_belong_together_are_refused(lm, metric) -> None:
    def measure(prompts, answers):
        if metric == "perplexity":
            return perplexity(lm, prompts, answers)
        acting = lm.under(Additive(torch.ones(WIDTH)), layer=1)
        named = {"kl_per_token": kl_per_token, "kl_by_token": kl_by_token, "input_energy": input_energy}
        return named[metric](lm, acting, prompts, answers)

    for prompts, answers in ((PROMPTS, ANSWERS[:1]), (PROMPTS[:1], ANSWERS), ([], ANSWERS), (PROMPTS, [])):
        message = f"{metric}: got {len(prompts)} prompts and {len(answers)} answers, expected one prompt for each.*Fix"
        with pytest.raises(MetricError, match=message):
            measure(prompts, answers)
    with pytest.raises(MetricError, match=f"{metric}: got one string as prompts, expected a list.*Fix"):
        measure("w3", ANSWERS)
    with pytest.raises(MetricError, match=f"{metric}: got one string as answers"):
        measure(PROMPTS, " w3")


def test_speed_counts_what_was_written(lm) -> None:
    found = decoding_time(lm, PROMPTS, tokens=4, repeats=2)
    assert 0 < found.seconds <= found.slowest
    assert 2 <= found.tokens <= 2 * 2 * 4
    with pytest.raises(MetricError, match="expected one or more"):
        decoding_time(lm, [], tokens=4)


def embed(texts):
    """Counts of two letters."""
    return np.array([[text.count("a"), text.count("b")] for text in texts], dtype=float)


def test_coherence_is_a_cosine() -> None:
    each = coherence_each(embed, ["a", "ab", "aa"], ["aa", "a", "b"])
    assert each == pytest.approx([1.0, np.sqrt(0.5), 0.0])
    assert coherence(embed, ["a", "a"], ["a", ""]) == pytest.approx(0.5), "an empty answer counts as 0"
    assert np.isnan(coherence_each(embed, ["a", "a"], ["a", ""])[1]), "and is a stated missing value"


def test_coherence_refuses_what_has_none() -> None:
    with pytest.raises(MetricError, match="embedding is zero"):
        coherence(embed, ["a"], ["c"])
    with pytest.raises(MetricError, match="not empty"):
        coherence(embed, ["a"], [" "])
    with pytest.raises(MetricError, match="got 1 prompts and 2 answers"):
        coherence(embed, ["a"], ["a", "b"])


def test_drift_is_measured_in_each_behaviours_own_gap() -> None:
    ends = {"truth": Ends(0.4, 0.8), "toxicity": Ends(0.7, 0.9), "refusal": Ends(0.5, 1.0)}
    found = drift("truth", ends, {"truth": 0.6, "toxicity": 0.65, "refusal": 0.55})
    assert found.shares == pytest.approx({"truth": 0.5, "toxicity": -0.25, "refusal": 0.1})
    assert (found.largest, found.worst, found.relative) == ("toxicity", pytest.approx(0.25), pytest.approx(0.5))
    still = drift("truth", ends, {"truth": 0.4, "toxicity": 0.7, "refusal": 0.6})
    assert still.relative == float("inf"), "no effect of its own, and a side effect"


def test_drift_refuses_what_it_cannot_compare() -> None:
    ends = {"truth": Ends(0.4, 0.8), "toxicity": Ends(0.7, 0.7)}
    with pytest.raises(MetricError, match="toxicity has the same score 0.7 at both ends"):
        drift("truth", ends, {"truth": 0.5, "toxicity": 0.7})
    with pytest.raises(MetricError, match="the law's own among them"):
        drift("refusal", ends, {"truth": 0.5, "toxicity": 0.7})
    with pytest.raises(MetricError, match="expected others beside it"):
        drift("truth", {"truth": Ends(0, 1)}, {"truth": 0.5})


def test_unknown_metrics_are_told_their_neighbours() -> None:
    assert metric_named("txi").better == "higher"
    with pytest.raises(MetricError, match="Did you mean toxicity"):
        metric_named("toxicty")
    assert all(name == info.name and info.meaning for name, info in METRICS.items())
