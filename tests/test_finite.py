"""A law that is too strong for the precision is refused by name, and nobody waits for that before the end."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlib.errors import NotFiniteError
from steerlib.experiment.calibrate import Status, calibrate, cost_of
from steerlib.finite import Watch, check_logits, check_logprobs
from steerlib.forest import Forest, Tree, _score, reads_trees
from steerlib.laws.additive import Additive
from steerlib.metrics import kl_by_token, kl_per_token
from steerlib.plant import Plant
from steerlib.tasks.base import Pair
from steerlib.tasks.decisions import Decisions
from tests.families import WIDTH, model, plant, tokenizer, words
from tests.laws.test_contracts import Count

PROMPTS = [words(7, 9, 30, 41), words(60, 13), words(11, 13, 14)]
ANSWERS = [" " + words(21, 34)] * 3
STRONG = 1e30


def half(dtype: torch.dtype = torch.float16) -> Plant:
    """A plant whose own numbers stay in the range of half precision, and whose last block adds about a hundred."""
    small = model("llama")
    with torch.no_grad():
        for weight in small.parameters():
            weight.mul_(0.5)
        small.model.layers[-1].mlp.down_proj.weight.mul_(1000.0)
    return Plant.from_model(small.to(dtype), tokenizer(), name="half")  # type: ignore[arg-type]


def push() -> Additive:
    return Additive(torch.randn(WIDTH, generator=torch.Generator().manual_seed(3)))


class TestTooStrong:
    @pytest.mark.parametrize("cache", ["dynamic", "static", "none"])
    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_an_answer_is_not_made_of_no_numbers(self, cache: Any, temperature: float) -> None:
        p, law = half(), push().at(STRONG)
        with (
            p.under(law, layer=1),
            pytest.raises(
                NotFiniteError, match=r"3 of 3 answers, from token 0 on.*Additive of strength 1e\+30 at resid"
            ),
        ):
            p.generate(PROMPTS, max_new_tokens=4, seed=0, temperature=temperature, cache=cache)

    def test_the_message_names_what_is_attached_and_the_precision(self) -> None:
        p = half()
        with p.under(push(), layer=0), p.under(push().at(STRONG), layer=1), pytest.raises(NotFiniteError) as caught:
            p.generate(PROMPTS, max_new_tokens=1, seed=0)
        said = str(caught.value)
        assert "Additive of strength 1 at resid_post of layer 0 and Additive of strength 1e+30 at resid_post of" in said
        assert "float16 (largest 6.55e+04)" in said and "a smaller strength" in said

    def test_a_function_has_no_strength(self) -> None:
        p = half()
        with p.under(lambda z: z * math.nan, layer=1), pytest.raises(NotFiniteError, match="under a function at resid"):
            p.generate(PROMPTS, max_new_tokens=1, seed=0)

    def test_without_a_law_it_is_the_plant(self) -> None:
        broken = model("llama")
        with torch.no_grad():
            broken.lm_head.weight[5] = math.nan
        with pytest.raises(NotFiniteError, match="no law is attached.*the plant itself"):
            Plant.from_model(broken, tokenizer()).generate(PROMPTS, max_new_tokens=1, seed=0)

    def test_log_probabilities(self) -> None:
        p = half()
        assert p.logprobs(PROMPTS, ANSWERS).isfinite().all()
        with p.under(push().at(STRONG), layer=1), pytest.raises(NotFiniteError, match=r"3 of 3 texts.*strength 1e\+30"):
            p.logprobs(PROMPTS, ANSWERS)

    def test_a_forest(self) -> None:
        p = plant("llama")
        forest = Forest.of(p, PROMPTS, ANSWERS)
        assert reads_trees(p), "the tree is what is asked"
        with p.under(push().at(3e38), layer=1), pytest.raises(NotFiniteError, match=r"of strength 3e\+38.*float32"):
            forest.logprobs(p)

    def test_decisions(self) -> None:
        p = half()
        pairs = [Pair(prompt, ANSWERS[0], " " + words(55)) for prompt in PROMPTS]
        found = Decisions.of(p, pairs)
        assert torch.isfinite(torch.from_numpy(found.margins(p))).all()
        with p.under(push().at(STRONG), layer=1), pytest.raises(NotFiniteError, match="logits: 3 of 3 texts"):
            found.margins(p)

    def test_a_pass_over_whole_texts(self) -> None:
        p = half()
        texts = [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
        assert p.forward(texts).isfinite().all()
        with p.under(push().at(STRONG), layer=1, scope="all"):
            with pytest.raises(NotFiniteError, match=r"logits: 3 of 3 texts.*strength 1e\+30"):
                p.forward(texts)
            with pytest.raises(NotFiniteError, match=r"logits: 3 of 3 texts.*strength 1e\+30"):
                p.forward(p.encode(texts, side="right"))

    @pytest.mark.parametrize("measure", [kl_per_token, kl_by_token])
    def test_a_divergence(self, measure: Any) -> None:
        p = half()
        measure(p, p.under(push(), layer=1), PROMPTS, ANSWERS)
        with pytest.raises(NotFiniteError, match=r"logits: 3 of 3 texts.*Additive of strength 1e\+30"):
            measure(p, p.under(push().at(STRONG), layer=1), PROMPTS, ANSWERS)
        assert not p.wiring.active()
        broken = model("llama")
        with torch.no_grad():
            broken.lm_head.weight[5] = math.nan
        alone = Plant.from_model(broken, tokenizer())
        with pytest.raises(NotFiniteError, match="no law is attached"):
            measure(alone, alone.under(push(), layer=1), PROMPTS, ANSWERS)

    def test_a_search_for_the_strength_takes_it_for_a_plant_that_breaks(self) -> None:
        p = half()
        cost = cost_of(p, push(), PROMPTS, layer=1, max_new_tokens=3)
        assert math.isinf(cost(STRONG)) and math.isfinite(cost(0.1))
        assert calibrate(cost, 1e6, start=0.1, most=60).status in (Status.BREAKS, Status.UNREACHABLE)


class TestWhatCounts:
    def test_a_token_that_is_ruled_out_is_none_of_its_business(self) -> None:
        p = plant("llama")
        wanted = p.logprobs(PROMPTS, ANSWERS)

        def banned(_: Any, __: Any, out: Any) -> Any:
            out.logits[..., 50] = -torch.inf
            return out

        handle = p.model.register_forward_hook(banned)
        try:
            assert p.generate(PROMPTS, max_new_tokens=3, seed=0).tokens
            assert p.logprobs(PROMPTS, [" " + words(21, 50)] * 3).eq(-torch.inf).all()
            assert p.logprobs(PROMPTS, ANSWERS).isfinite().all()
            tree = Tree.of([7, 9], [[7, 9, 21], [7, 9, 50]])
            found = _score(p, [tree])[0]
            assert found[0].isfinite() and found[1] == -torch.inf, "one answer does not spoil another"
        finally:
            handle.remove()
        assert torch.equal(p.logprobs(PROMPTS, ANSWERS), wanted)

    @pytest.mark.parametrize(("value", "bad"), [(math.nan, True), (math.inf, True), (-math.inf, False), (1.0, False)])
    def test_which_logits_are_no_numbers(self, value: float, bad: bool) -> None:
        watch, p = Watch(), plant("llama")
        watch(torch.zeros(2, 1), torch.tensor([[0.0, value, 1.0], [0.0, 1.0, 2.0]]))
        if not bad:
            return watch.check(p, torch.tensor([[1], [1]]), {2})
        with pytest.raises(NotFiniteError, match="1 of 2 answers, from token 0 on"):
            watch.check(p, torch.tensor([[1], [1]]), {2})

    def test_padding_does_not_count(self) -> None:
        p, logits = plant("llama"), torch.zeros(2, 3, 4)
        logits[0, 0, 1] = logits[1, 2, 0] = math.nan
        real = torch.tensor([[0, 1, 1], [1, 1, 0]])
        assert check_logits(p, logits, real) is logits
        with pytest.raises(NotFiniteError, match="1 of 2 texts"):
            check_logits(p, logits, real.flip(1)[:1].expand(2, 3))
        with pytest.raises(NotFiniteError, match="2 of 2 texts"):
            check_logits(p, logits, torch.ones(2, 3))

    @pytest.mark.parametrize(("step", "bad"), [(0, True), (1, True), (2, False), (3, False)])
    def test_what_follows_the_end_of_an_answer_does_not_count(self, step: int, bad: bool) -> None:
        watch, p, new = Watch(), plant("llama"), torch.tensor([[5, 2, 0, 2]])  # the end is at step 1, and chosen there
        for i in range(4):
            watch(torch.zeros(1, 1), torch.full((1, 3), math.nan if i == step else 0.0))
        if not bad:
            return watch.check(p, new, {2})
        with pytest.raises(NotFiniteError, match=f"from token {step} on"):
            watch.check(p, new, {2})

    def test_log_probabilities_that_are_numbers_come_back(self) -> None:
        found = torch.tensor([-1.0, -torch.inf])
        assert check_logprobs(plant("llama"), found) is found


def test_nobody_waits_while_an_answer_is_written() -> None:
    watch, scores = Watch(), torch.zeros(4, 97)
    with Count() as count:
        for _ in range(5):
            out: Tensor = watch(torch.zeros(4, 1), scores)
            assert out is scores
    assert not count.waits
    assert len(watch.broken) == 5
