"""Calibration: known curves are inverted, and what cannot be reached is said."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlib.errors import MetricError
from steerlib.experiment.calibrate import Status, calibrate, cost_of
from steerlib.laws.additive import Additive
from steerlib.metrics import input_energy
from tests.families import WIDTH, plant


def bernoulli_kl(strength):
    """KL of a coin with logit a * strength from a fair one, in closed form: a plant with one bit to say."""
    p = 1 / (1 + math.exp(-0.8 * strength))
    return p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)) if 0 < p < 1 else math.log(2)


@given(st.floats(0.05, 40.0), st.floats(0.5, 3.0), st.floats(1e-3, 1e3))
def test_power_laws_are_inverted(scale, power, target):
    found = calibrate(lambda s: scale * abs(s) ** power, target, most=60)
    assert found.reached and found.cost == pytest.approx(target, rel=0.02)
    assert found.strength == pytest.approx((target / scale) ** (1 / power), rel=0.05)


@settings(max_examples=40)
@given(st.floats(0.001, 0.6))
def test_divergence_of_a_coin_is_inverted_in_a_handful_of_evaluations(target):
    found = calibrate(bernoulli_kl, target)
    assert found.reached and len(found.tried) <= 12
    assert bernoulli_kl(found.strength) == pytest.approx(target, rel=0.021)


def test_a_law_that_saturates_says_so_and_keeps_what_was_measured():
    found = calibrate(bernoulli_kl, 0.9)  # a coin has at most ln 2 = 0.69
    assert found.status is Status.UNREACHABLE and not found.reached
    assert found.cost == pytest.approx(math.log(2), rel=0.02)
    assert "The law saturates" in found.message and len(found.tried) >= 3


def test_a_setpoint_is_refused():
    found = calibrate(lambda s: (s - 3) ** 2, 4.5, start=0.5)
    assert found.status is Status.NOT_MONOTONE and "not a setpoint" in found.message


def test_a_plant_that_breaks_before_the_budget():
    found = calibrate(lambda s: s if s < 3 else float("nan"), 5.0, most=60)
    assert found.status is Status.BREAKS and found.strength == pytest.approx(3.0, rel=0.03)
    reached = calibrate(lambda s: s if s < 3 else float("nan"), 2.5)
    assert reached.reached, "what breaks further up does no harm"


def test_no_effect_at_all():
    found = calibrate(lambda s: 0.0, 0.1)  # noqa: ARG005
    assert found.status is Status.UNREACHABLE and found.cost == 0.0
    assert len(found.tried) == 8 and "nothing of 0.1 is spent up to a multiplier of 128" in found.message


@pytest.mark.parametrize("start", [1.0, -0.5, 100.0])
def test_a_deadband_is_left_before_the_law_is_called_saturated(start):
    found = calibrate(lambda s: max(0.0, abs(s) - 4), 1.0, start=start)
    assert found.reached and found.strength == pytest.approx(math.copysign(5.0, start), rel=0.01)


def test_a_law_that_saturates_beyond_a_deadband_still_says_so():
    found = calibrate(lambda s: 0.4 if s > 4 else 0.0, 1.0)
    assert found.status is Status.UNREACHABLE and "The law saturates" in found.message
    assert [s for s, _ in found.tried] == [1, 2, 4, 8, 16], "a plateau that costs something ends at once"


def test_a_deadband_is_searched_no_further_than_the_cap():
    found = calibrate(lambda s: 0.0, 0.1, most=3)  # noqa: ARG005
    assert found.status is Status.TOO_FEW and len(found.tried) == 3


def test_small_falls_are_chance_and_large_ones_are_not():
    wiggle = calibrate(lambda s: s * (1 + 0.02 * math.sin(40 * s)), 6.0)
    assert wiggle.reached
    swings = calibrate(lambda s: s * (1 + 0.9 * math.sin(1.1 * s)), 60.0)
    assert swings.status is Status.NOT_MONOTONE


def test_the_cap_is_kept_and_nothing_is_spent_on_nothing():
    calls = []

    def cost(s):
        calls.append(s)
        return s**2

    found = calibrate(cost, 1e6, most=3)
    assert found.status is Status.TOO_FEW and len(calls) == 3 and "allow more than 3" in found.message
    calls.clear()
    assert calibrate(cost, 0.0).strength == 0.0 and calls == []


def test_a_law_may_be_used_against_its_direction():
    found = calibrate(lambda s: 2 * s**2, 8.0, start=-0.5)
    assert found.reached and found.strength == pytest.approx(-2.0, rel=0.02)
    assert all(s < 0 for s, _ in found.tried)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": -1.0}, "got a budget of -1.0"),
        ({"target": math.nan}, "got a budget of nan"),
        ({"target": 1.0, "start": 0.0}, "expected a start that is not 0"),
        ({"target": 1.0, "tolerance": 0.0}, "a tolerance between 0 and 1"),
        ({"target": 1.0, "most": 1}, "at least 2 evaluations"),
    ],
)
def test_budgets_without_meaning_are_refused(arguments, message):
    with pytest.raises(MetricError, match=message):
        calibrate(lambda s: s, **arguments)


PROMPTS = ["w3 w4 w5", "w6 w7", "w8 w9 w10"]


def test_energy_on_a_plant_is_reached_where_the_formula_says():
    lm = plant("llama")
    vector = torch.linspace(-1, 1, WIDTH)
    cost = cost_of(lm, Additive(vector), PROMPTS, budget="energy", layer=1, max_new_tokens=4)
    found = calibrate(cost, 2.0)
    assert found.reached
    assert found.strength == pytest.approx(math.sqrt(2.0 / float(vector.double().pow(2).sum())), rel=0.02)
    spent = input_energy(lm, lm.under(Additive(vector, strength=found.strength), layer=1), PROMPTS, [" w4"] * 3)
    assert spent.per_token == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize("answers", ["steered", "unsteered"])
def test_divergence_on_a_plant_is_spent_and_two_directions_are_made_equal(answers):
    lm = plant("llama")
    generator = torch.Generator().manual_seed(0)
    spent = []
    for _ in range(2):
        law = Additive(torch.randn(WIDTH, generator=generator))
        cost = cost_of(lm, law, PROMPTS * 4, layer=1, max_new_tokens=4, answers=answers)
        found = calibrate(cost, 0.05, start=0.1, tolerance=0.05)
        assert found.reached, found.message
        spent.append(cost(found.strength))
    assert spent == pytest.approx([0.05, 0.05], rel=0.06)


def test_costs_without_meaning_are_refused():
    lm, law = plant("llama"), Additive(torch.ones(WIDTH))
    with pytest.raises(MetricError, match="got no prompt"):
        cost_of(lm, law, [])
    with pytest.raises(MetricError, match="'perplexity' on steered ones"):
        cost_of(lm, law, PROMPTS, budget="perplexity", answers="unsteered")
    with pytest.raises(MetricError, match="got budget='time'"):
        cost_of(lm, law, PROMPTS, budget="time")  # type: ignore[arg-type]
    with pytest.raises(MetricError, match="read by another plant than the steered one, and got none"):
        cost_of(lm, law, PROMPTS, budget="perplexity")
    with pytest.raises(MetricError, match="got a reader for a budget of 'kl', which needs none"):
        cost_of(lm, law, PROMPTS, reader=plant("gpt2"))
    with pytest.raises(MetricError, match="'random-llama-0' has the weights of the steered plant"):
        cost_of(lm, law, PROMPTS, budget="perplexity", reader=plant("llama"))


def test_perplexity_is_how_much_harder_another_plant_finds_the_answers():
    lm, reader, law = plant("llama"), plant("llama", seed=1), Additive(torch.ones(WIDTH))
    cost = cost_of(lm, law, PROMPTS, budget="perplexity", reader=reader, layer=1, max_new_tokens=3)
    assert cost(0.0) == 0.0
    free = lm.generate(PROMPTS, max_new_tokens=3, seed=0).texts
    measured = []
    for strength in (-1.0, 0.3, 1.0, 3.0):
        with lm.under(law.at(strength), layer=1):
            steered = lm.generate(PROMPTS, max_new_tokens=3, seed=0).texts
        # Mean negative log probability of a token: one word is one token here.
        nats = [
            -float(reader.logprobs(PROMPTS, texts).sum()) / sum(len(text.split()) for text in texts)
            for texts in (steered, free)
        ]
        measured.append((cost(strength), max(math.exp(nats[0] - nats[1]) - 1, 0.0)))
    assert [found for found, _ in measured] == pytest.approx([expected for _, expected in measured], rel=1e-4)
    assert max(expected for _, expected in measured) > 0.01


def saying(monkeypatch, lm, steered, free=" w7 w8"):
    """Let the plant answer each prompt with `free`, and with `steered` (one for each prompt) under a law beyond 1."""
    made = type(lm).generate

    def generate(self, prompts, **options):
        found = made(self, prompts, **options)
        strengths = [float(layer.strength) for layer in acting]
        texts = steered if any(s > 1 for s in strengths) else [free] * len(prompts)
        return replace(found, texts=list(texts))

    acting = []
    under = type(lm).under

    def noted(self, law, **options):
        acting[:] = [law]
        return under(self, law, **options)

    monkeypatch.setattr(type(lm), "generate", generate)
    monkeypatch.setattr(type(lm), "under", noted)


@pytest.mark.parametrize("budget", ["kl", "energy"])
def test_a_plant_that_is_left_with_nothing_to_say_is_broken(monkeypatch, budget):
    lm = plant("llama")
    saying(monkeypatch, lm, ["", " ", ""])
    cost = cost_of(lm, Additive(torch.ones(WIDTH)), PROMPTS, budget=budget, layer=1, max_new_tokens=3)
    assert math.isfinite(cost(0.5)) and cost(0.5) > 0 and math.isinf(cost(2.0))
    found = calibrate(cost, 1e6, start=0.5, most=30)
    assert found.status is Status.BREAKS and "its answers are empty" in found.message
    assert 0 < found.strength <= 1


def test_a_plant_that_every_multiplier_breaks_is_said_to_break():
    found = calibrate(lambda s: math.inf, 1.0, most=4)  # noqa: ARG005
    assert (found.status, found.strength, found.cost) == (Status.BREAKS, 0.0, 0.0)


def test_perplexity_is_not_that_of_the_few_answers_that_are_left(monkeypatch):
    lm, prompts = plant("llama"), PROMPTS * 7  # 21 prompts, of which two may fall silent
    options = {"budget": "perplexity", "reader": plant("llama", seed=1), "layer": 1, "max_new_tokens": 3}
    for silent, broken in ((2, False), (3, True), (21, True)):
        with monkeypatch.context() as patch:
            # What is left is as fluent as before, so that it costs nothing: only the silence can be seen.
            saying(patch, lm, [""] * silent + [" w7 w8"] * (21 - silent))
            found = cost_of(lm, Additive(torch.ones(WIDTH)), prompts, **options)(2.0)
        assert found == (math.inf if broken else 0.0)


def test_a_plant_that_says_nothing_by_itself_is_refused(monkeypatch):
    lm = plant("llama")
    saying(monkeypatch, lm, [" w4"] * 3, free="")
    with pytest.raises(MetricError, match="every answer of the unsteered plant is empty"):
        cost_of(lm, Additive(torch.ones(WIDTH)), PROMPTS)


# ---- guesses and digits --------------------------------------------------------------------------


def counted(function):
    calls = []

    def cost(strength):
        calls.append(strength)
        return function(strength)

    return cost, calls


def test_a_right_guess_of_the_power_meets_the_budget_at_once():
    cost, calls = counted(lambda s: 0.3 * s**2)
    found = calibrate(cost, 0.1, start=0.7, power=2.0)
    assert found.reached and found.strength == pytest.approx(math.sqrt(1 / 3)) and len(calls) == 2
    plain, more = counted(lambda s: 0.3 * s**2)
    calibrate(plain, 0.1, start=0.7)
    assert len(more) > 2


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0, 6.0])
def test_a_wrong_guess_finds_the_budget_all_the_same(power):
    found = calibrate(lambda s: 0.3 * abs(s) ** power, 0.1, start=-0.5, power=2.0, most=30)
    assert found.reached and found.strength == pytest.approx(-((1 / 3) ** (1 / power)), rel=0.05)


def test_checks_are_made_beside_guesses():
    saturated = calibrate(lambda s: 0.095 * s / (s + 0.001), 0.1, power=2.0, most=30)
    assert saturated.status is Status.UNREACHABLE
    silent = calibrate(lambda s: 0.0, 0.1, power=2.0, most=30)  # noqa: ARG005
    assert silent.status is Status.UNREACHABLE
    falling = calibrate(lambda s: (s - 3) ** 2, 4.5, start=0.5, power=2.0)
    assert falling.status is Status.NOT_MONOTONE
    broken = calibrate(lambda s: math.inf, 0.1, power=2.0, most=5)  # noqa: ARG005
    assert broken.status is Status.BREAKS


def test_multipliers_have_the_digits_that_were_asked_for():
    cost, calls = counted(lambda s: 0.3 * abs(s) ** 1.7)
    found = calibrate(cost, 0.1, start=0.123456, digits=3, most=30)
    assert found.reached and calls == [float(f"{s:.3g}") for s in calls] and len(set(calls)) == len(calls)
    assert found.cost == cost(found.strength), "what is reported is what is spent"


def test_where_no_multiplier_of_so_few_digits_is_close_enough_it_ends():
    cost, calls = counted(lambda s: 0.3 * s**2)
    found = calibrate(cost, 0.1, digits=2, tolerance=1e-9, most=1000)
    assert found.status is Status.TOO_FEW and len(calls) < 40 and found.cost <= 0.1


@pytest.mark.parametrize("arguments", [{"power": 0.0}, {"power": -1.0}, {"digits": 1}])
def test_guesses_and_digits_without_a_meaning_are_refused(arguments):
    with pytest.raises(MetricError, match="expected a positive power, and at least 2 digits"):
        calibrate(lambda s: s, 0.1, **arguments)
