"""TruthFlow: what it finds from a question, when it looks, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from steerlib.actuator import Pass
from steerlib.control.flow import integrate
from steerlib.errors import ContrastError, LawError
from steerlib.forest import Forest
from steerlib.laws.additive import Additive
from steerlib.laws.answers import Answers
from steerlib.laws.base import Contrast
from steerlib.laws.truthflow import TruthFlow
from steerlib.plant import Plant
from tests.families import WIDTH, plant, words

SIZE = 6
#: Positive eigenvalues: the paths from a question to its correction do not meet.
MATRIX = torch.diag(torch.tensor([1.0, 0.5, 2.0, 1.5, 1.0, 0.7])) + 0.1
SHIFT = torch.arange(SIZE) - 2.0


def queries(n: int, seed: int) -> Tensor:
    """Questions many times as long as their corrections, away from the origin."""
    return 10 * torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed)) + 20


def corrections(query: Tensor) -> Tensor:
    return (query - 20) / 10 @ MATRIX.T + SHIFT


def answers(n: int = 400, seed: int = 0) -> Answers:
    query = queries(n, seed)
    wrong = torch.randn(n, SIZE, generator=torch.Generator().manual_seed(seed + 1))
    return Answers(query, wrong + corrections(query), wrong)


@pytest.fixture(scope="module")
def fitted() -> TruthFlow:
    return TruthFlow(updates=800, rate=3e-3, depth=2).fit_answers(answers())


@pytest.fixture(scope="module")
def wide() -> TruthFlow:
    """A law of the width of the random plants, whose corrections depend on the question."""
    generator = torch.Generator().manual_seed(4)
    query, right, wrong = (k * torch.randn(60, WIDTH, generator=generator) for k in (1.0, 3.0, 0.1))
    return TruthFlow(updates=60).fit_answers(Answers(query, right + query, wrong))


class TestWhatItFinds:
    def test_a_known_function_of_the_question_is_recovered(self, fitted: TruthFlow) -> None:
        new = queries(300, seed=7)
        wanted = corrections(new)
        error = (fitted.input(new) - wanted).square().mean()
        assert error < 0.05 * (wanted - SHIFT).square().mean(), "a constant push leaves all of it"

    def test_constant_corrections_make_it_the_difference_of_means(self) -> None:
        query = queries(50, seed=1)
        wrong = torch.randn(50, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        law = TruthFlow(updates=5).fit_answers(Answers(query, wrong.float() + SHIFT, wrong.float()))
        assert law.axes.shape == (1, SIZE)
        torch.testing.assert_close(law(query), query + SHIFT, atol=1e-4, rtol=0)
        torch.testing.assert_close(law.at(1.5)(query), query + 1.5 * SHIFT, atol=1e-4, rtol=0)

    def test_it_stays_within_the_leading_axes_of_the_corrections(self) -> None:
        found = answers()
        law = TruthFlow(k=2, updates=20).fit_answers(found)
        axes = torch.linalg.svd(found.correction).Vh[:2]
        push = law.input(queries(20, seed=3))
        torch.testing.assert_close(push @ axes.T @ axes, push, atol=1e-4, rtol=1e-4)
        assert torch.linalg.matrix_rank(push) == 2

    def test_one_end_of_the_flow_is_the_question_itself_without_scaling(self) -> None:
        law = TruthFlow(updates=20, scaled=False, k=SIZE, steps=3, solver="midpoint").fit_answers(answers())
        state = queries(4, seed=5)
        torch.testing.assert_close(law.input(state), integrate(law.velocity, state, steps=3, solver="midpoint"))

    def test_shuffled_answers_take_the_correction_away(self) -> None:
        kept = answers()
        law = TruthFlow(updates=100).fit_answers(kept.shuffled(seed=0))
        assert (law.input(kept.query).mean(0) - SHIFT).norm() > 0.8 * SHIFT.float().norm()

    def test_seeds_decide_and_nothing_else(self) -> None:
        laws = [TruthFlow(updates=10, seed=s).fit_answers(answers(60)) for s in (0, 0, 1)]
        state = queries(9, seed=6)
        assert torch.equal(laws[0](state), laws[1](state)) and not torch.equal(laws[0](state), laws[2](state))

    @pytest.mark.parametrize("n", [1, 3])
    def test_fewer_questions_than_features(self, n: int) -> None:
        law = TruthFlow(updates=10).fit_answers(answers(n))
        assert len(law.axes) == n and torch.isfinite(law(queries(5, seed=2))).all()

    def test_states_recorded_under_inference_mode(self) -> None:
        with torch.inference_mode():
            law = TruthFlow(updates=5).fit_answers(answers(20))
        assert not any(buffer.is_inference() for name, buffer in law.named_buffers() if name != "strength")


PROMPTS = [words(5, 9, 30, 41), words(60, 3), words(11, 12, 13)]
TAILS = [" " + words(*tail) for tail in ((21, 34, 55), (22, 34), (21, 35, 56))]


def scores(p: Plant, law: Any = None, *, scope: str = "generated", layer: int = 1) -> Tensor:
    if law is None:
        return p.logprobs(PROMPTS, TAILS)
    with p.under(law, layer=layer, scope=scope):
        return p.logprobs(PROMPTS, TAILS)


class TestWhenItLooks:
    def test_once_at_the_end_of_each_prompt(self, wide: TruthFlow) -> None:
        """What it adds is the push found from the state at the last prompt token, for every token of the answer."""
        p = plant("llama")
        seen: list[Tensor] = []
        with p.under(lambda state: seen.append(state.clone()) or state, layer=1, scope="all"):
            for prompt in PROMPTS:
                p.forward([prompt])
        expected = []
        for prompt, tail, state in zip(PROMPTS, TAILS, seen, strict=True):
            with p.under(Additive(wide.input(state[0, -1])), layer=1):
                expected.append(p.logprobs([prompt], [tail]))
        found = scores(p, wide)
        torch.testing.assert_close(found, torch.cat(expected), atol=1e-4, rtol=1e-4)
        assert (found - scores(p)).abs().min() > 0.01
        pushes = torch.stack([wide.input(state[0, -1]) for state in seen])
        assert (pushes[0] - pushes[1]).norm() > 0.1 * pushes[0].norm(), "each question has its own"

    @pytest.mark.parametrize("scope", ["generated", "all", "last"])
    def test_trees_rows_and_generation_agree(self, wide: TruthFlow, scope: str) -> None:
        p = plant("llama")
        rows = scores(p, wide, scope=scope)
        with p.under(wide, layer=1, scope=scope):
            torch.testing.assert_close(Forest.of(p, PROMPTS, TAILS).logprobs(p), rows, atol=1e-4, rtol=1e-4)
            # Without a cache "last" means less: see `steerlib.actuator.Scope`.
            caches = ("dynamic", "static") if scope == "last" else ("dynamic", "static", "none")
            kept = {p.generate(PROMPTS, max_new_tokens=6, seed=1, cache=cache).tokens for cache in caches}
        assert len(kept) == 1
        assert kept != {p.generate(PROMPTS, max_new_tokens=6, seed=1).tokens}

    def test_zero_strength_is_no_law_bit_for_bit(self, wide: TruthFlow) -> None:
        p = plant("llama")
        assert torch.equal(scores(p, copy.deepcopy(wide).at(0.0)), scores(p))

    def test_it_must_have_seen_the_prompts(self, wide: TruthFlow) -> None:
        law = copy.deepcopy(wide)
        state, later = torch.zeros(2, 3, WIDTH), Pass(decoding=True)
        with pytest.raises(LawError, match="continues 2 answers after no prompt"):
            law.during(state[:, :1], later)
        law.during(state, Pass())
        law.during(state[:, :1], later)
        with pytest.raises(LawError, match="continues 1 answers after 2 prompts"):
            law.during(state[:1, :1], later)
        with pytest.raises(LawError, match="after no prompt"):
            copy.deepcopy(law).during(state[:, :1], later)

    def test_compiles_in_one_graph(self, wide: TruthFlow) -> None:
        law, count = copy.deepcopy(wide), CompileCounter()
        state = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
        run = torch.compile(law, backend=count, fullgraph=True)
        for strength in (1.0, 0.3):
            law.at(strength)
            torch.testing.assert_close(run(state), law(state), atol=1e-4, rtol=1e-4)
        assert count.frame_count == 1
        assert not law(state).requires_grad and not list(law.parameters())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, wide: TruthFlow, dtype: torch.dtype) -> None:
        law, state = copy.deepcopy(wide), torch.randn(2, 3, WIDTH).to(dtype)
        assert law(state).dtype == law.during(state, Pass()).dtype == dtype
        torch.testing.assert_close(law(state).float(), law(state.float()), rtol=2e-2, atol=5e-2)
        assert torch.isfinite(law.at(1e6).during(state, Pass())).all(), "clamped to the largest number of the type"


class TestFilesAndRefusals:
    def test_round_trip(self, wide: TruthFlow, tmp_path: Path) -> None:
        p = plant("llama")
        scores(p, wide)  # what it has seen of these prompts is no part of the law
        path = wide.save(tmp_path / "law.safetensors")
        again = TruthFlow.load(path)
        assert torch.equal(scores(p, again), scores(p, wide))
        assert again.options() == wide.options()
        other = TruthFlow(k=3, scaled=False, depth=2, steps=4, solver="midpoint", updates=3).fit_answers(answers(20))
        back = TruthFlow.load(other.save(path))
        assert back.options() == other.options()
        assert torch.equal(back(queries(3, seed=0)), other(queries(3, seed=0)))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"k": 0}, "k: got 0, expected at least 1"),
            ({"depth": 0}, "depth: got 0"),
            ({"updates": 0}, "updates: got 0"),
            ({"steps": 0}, "steps: got 0"),
            ({"solver": "rk9"}, "solver: got 'rk9', expected 'euler' or 'midpoint'"),
            ({"rate": 0.0}, "rate: got 0.0"),
            ({"held_out": -0.1}, "held_out: got -0.1"),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(LawError, match=message):
            TruthFlow(**options)

    def test_two_classes_do_not_do(self) -> None:
        with pytest.raises(ContrastError, match="got 2 positive and 3 negative states, expected questions"):
            TruthFlow().fit(Contrast(torch.ones(2, 4), torch.zeros(3, 4)))

    def test_answers_that_are_the_same(self) -> None:
        with pytest.raises(LawError, match="corrections that are all zero"):
            TruthFlow().fit_answers(Answers(queries(4, 0), queries(4, 1), queries(4, 1)))

    def test_unfitted_or_of_another_width(self, fitted: TruthFlow) -> None:
        with pytest.raises(LawError, match="holds no flow: it is not fitted"):
            TruthFlow()(torch.zeros(1, 3))
        with pytest.raises(LawError, match="a flow of width 6; the state has width 3"):
            fitted(torch.zeros(1, 3))
