"""ActAdd: which tokens get which vector, under every way to run a plant; what is subtracted; bad input."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from steerlib.actuator import Pass, Site
from steerlib.errors import ContrastError, LawError
from steerlib.forest import Forest
from steerlib.laws.actadd import ActAdd
from steerlib.laws.base import Contrast, LawHeader
from steerlib.plant import Plant
from steerlib.recorder import record
from steerlib.tasks.source import TaskSource
from tests.families import WIDTH, plant, words
from tests.laws.chatter import Chatter

LAYER = 1
PROMPTS = [words(5, 9, 30, 41), words(60, 3), words(8)]
VECTORS = torch.stack([torch.full((WIDTH,), 1.0), torch.full((WIDTH,), 2.0), torch.full((WIDTH,), 4.0)])


def held(p: Plant | None = None) -> ActAdd:
    """A law of three vectors that are told apart by their size."""
    law = ActAdd(strength=10.0)
    law.vectors = VECTORS
    if p is not None:
        law.header = LawHeader(LAYER, "resid_post", "prefill", p.name, p.weight_hash, WIDTH, "", 0)
    return law


def sizes(p: Plant, law: ActAdd, run) -> Tensor:  # noqa: ANN001
    """How much each token of a pass was pushed, in units of the smallest vector at strength 10."""
    seen: list[Tensor] = []

    def watch(state: Tensor) -> Tensor:
        seen.append(state.clone())
        return state

    with p.under(watch, layer=LAYER, scope="all"):
        run()
        plain = seen[-1]
        with p.under(law), p.under(watch, layer=LAYER, scope="all"):
            run()
    return ((seen[-1] - plain).mean(-1) / 10).round()


@pytest.fixture(scope="module")
def p() -> Plant:
    return plant("llama")


class TestScope:
    def test_a_law_from_nowhere_acts_on_the_prompt_all_the_same(self, p: Plant) -> None:
        law = ActAdd(strength=10.0).fit(Contrast(VECTORS[:1], torch.zeros(1, WIDTH)))
        assert law.header is None
        batch = p.encode(PROMPTS)
        free = p.forward(batch)
        with p.under(law, layer=LAYER):
            steered = p.forward(batch)
        with p.under(law, layer=LAYER, scope="prefill"):
            assert torch.equal(p.forward(batch), steered)
        assert not torch.allclose(steered, free, atol=1e-2)
        with p.under(law, layer=LAYER, scope="generated"):  # whoever says so gets it: the last token, alone first here
            assert torch.equal(p.forward(batch)[:2], free[:2])


class TestTokens:
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_the_first_real_tokens_whatever_the_padding(self, p: Plant, side: str) -> None:
        batch = p.encode(PROMPTS, side=side)  # type: ignore[arg-type]
        found = sizes(p, held(p), lambda: p.forward(batch))
        rows = [found[i][batch.attention_mask[i].bool()].tolist() for i in range(3)]
        assert rows == [[1, 2, 4, 0], [1, 2], [1]]
        assert not found[~batch.attention_mask.bool()].any()

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_an_answer_in_the_same_pass_is_left_alone(self, p: Plant, side: str) -> None:
        batch = p.encode(PROMPTS, side=side)  # type: ignore[arg-type]
        lengths = torch.tensor([2, 1, 1])
        found = sizes(p, held(p), lambda: p.forward(batch, prompt_lengths=lengths))
        rows = [found[i][batch.attention_mask[i].bool()].tolist() for i in range(3)]
        assert rows == [[1, 2, 0, 0], [1, 0], [1]]

    def test_scope_all_does_not_push_the_answer_either(self, p: Plant) -> None:
        law, state = held(), torch.zeros(1, 4, WIDTH)
        now = Pass(prompt_lengths=torch.tensor([2]))
        assert (law.during(state, now).mean(-1) / 10).tolist() == [[1, 2, 0, 0]]
        assert torch.equal(law.during(state, Pass(decoding=True)), state)

    def test_a_bare_call_counts_from_the_first_row(self) -> None:
        law = held()
        assert (law(torch.zeros(5, WIDTH)).mean(-1) / 10).tolist() == [1, 2, 4, 0, 0]
        assert (law(torch.zeros(2, 2, WIDTH)).mean(-1) / 10).tolist() == [[1, 2], [1, 2]]
        assert torch.equal(law(torch.zeros(WIDTH)), torch.full((WIDTH,), 10.0))

    def test_generating_pushes_the_prompt_once_and_no_other_token(self, p: Plant) -> None:
        pushed: list[list[float]] = []

        class Count(ActAdd):
            def during(self, state: Tensor, now: Pass) -> Tensor:
                out = super().during(state, now)
                pushed.append(((out - state).abs().amax(-1) > 0).sum(1).tolist())
                return out

        law = Count(strength=10.0)
        law.vectors, law.header = VECTORS, held(p).header
        with p.under(law, scope="all"):
            p.generate(PROMPTS, max_new_tokens=4, seed=0, temperature=0)
        assert sorted(pushed[0]) == [1, 2, 3] and len(pushed) > 1
        assert not any(any(row) for row in pushed[1:])

    def test_the_effect_stays_in_the_cache(self, p: Plant) -> None:
        """Cached steps agree with whole passes, where the prompt is pushed anew each time."""
        with p.under(held(p)):
            dynamic, none = (
                p.generate(PROMPTS, max_new_tokens=5, seed=3, cache=kind).tokens  # type: ignore[arg-type]
                for kind in ("dynamic", "none")
            )
            bare = p.logprobs([PROMPTS[0]], [" " + words(7, 8)])
        assert dynamic == none
        assert (bare - p.logprobs([PROMPTS[0]], [" " + words(7, 8)])).abs() > 0.1

    def test_teacher_forced_passes_and_trees_agree(self, p: Plant) -> None:
        prompts = [prompt for prompt in PROMPTS for _ in range(3)]
        answers = [" " + words(*row) for row in ((7, 8), (7, 9, 10), (11,))] * 3
        forest = Forest.of(p, prompts, answers)
        with p.under(held(p)):
            torch.testing.assert_close(forest.logprobs(p), p.logprobs(prompts, answers), atol=1e-3, rtol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_strength_that_overflows_in_half_precision_is_clamped(self, dtype: torch.dtype) -> None:
        out = held().at(3e38).during(torch.zeros(1, 5, WIDTH, dtype=dtype), Pass())
        assert out.dtype == dtype and torch.isfinite(out).all()
        assert float(out[0, 1, 0]) == torch.finfo(dtype).max and not out[0, 3:].any()


class TestVectors:
    def test_class_means_at_each_position(self, p: Plant) -> None:
        task = Chatter(p)
        source = TaskSource(task, Site(LAYER), n=12, scope="prefill")
        law = ActAdd(positions=4).fit_from(source)
        means = []
        for texts in task.contrast_texts(n=12, seed=0):
            states = record(p, texts, sites=[LAYER], position="all")
            rows = states.at(LAYER).split(list(states.rows))
            means.append(torch.stack([torch.stack([r[k] for r in rows if len(r) > k]).mean(0) for k in range(4)]))
        torch.testing.assert_close(law.vectors, means[0] - means[1], atol=1e-5, rtol=1e-5)
        assert law.header is not None and (law.header.layer, law.header.scope) == (LAYER, "prefill")

    def test_as_many_positions_as_every_text_has(self, p: Plant) -> None:
        task = Chatter(p)
        shortest = min(len(t.split()) for texts in task.contrast_texts(n=12, seed=0) for t in texts)
        assert len(ActAdd().fit_from(TaskSource(task, Site(LAYER), n=12, scope="prefill")).vectors) == shortest

    def test_one_pair_of_prompts(self, p: Plant) -> None:
        """The shorter prompt is filled up on the right, and the states of both are subtracted."""
        source = TaskSource(Chatter(p), Site(LAYER), scope="prefill")
        law = ActAdd(prompts=(words(20, 21, 22), words(30)), filler=" w5").fit_from(source)
        both = [record(p, [t], sites=[LAYER], position="all").at(LAYER) for t in (words(20, 21, 22), words(30, 5, 5))]
        torch.testing.assert_close(law.vectors, both[0] - both[1], atol=1e-5, rtol=1e-5)
        back = ActAdd(prompts=(words(30), words(20, 21, 22)), filler=" w5").fit_from(source)
        torch.testing.assert_close(back.vectors, -law.vectors)

    def test_shuffled_labels_lose_the_difference(self, p: Plant) -> None:
        true, mixed = (
            ActAdd(positions=2).fit_from(TaskSource(Chatter(p), Site(LAYER), n=60, scope="prefill", labels=labels))
            for labels in ("true", "shuffled")
        )
        assert mixed.vectors[0].norm() < 0.5 * true.vectors[0].norm()
        assert mixed.header is not None and true.header is not None
        assert mixed.header.data_hash != true.header.data_hash

    def test_files_keep_vectors_and_prompts(self, p: Plant, tmp_path: Path) -> None:
        source = TaskSource(Chatter(p), Site(LAYER), scope="prefill")
        law = ActAdd(prompts=(words(20), words(30))).fit_from(source)
        again = ActAdd.load(law.save(tmp_path / "law.safetensors"))
        assert again.options() == law.options() and torch.equal(again.vectors, law.vectors)


class TestBadInput:
    def test_scopes_without_the_prompt(self, p: Plant) -> None:
        for scope in ("generated", "last"):
            with pytest.raises(LawError, match=f"got scope '{scope}'.*Fix: scope='prefill'"):
                ActAdd().fit_from(TaskSource(Chatter(p), Site(LAYER), n=4, scope=scope))

    def test_positions_that_no_text_has(self, p: Plant) -> None:
        with pytest.raises(ContrastError, match="got positions=50, but a class has no text of more than"):
            ActAdd(positions=50).fit_from(TaskSource(Chatter(p), Site(LAYER), n=4, scope="prefill"))

    def test_prompts_that_cannot_be_levelled(self, p: Plant) -> None:
        source = TaskSource(Chatter(p), Site(LAYER), scope="prefill")
        with pytest.raises(LawError, match="do not get as many tokens each by adding ' '"):
            ActAdd(prompts=(words(20, 21), words(30))).fit_from(source)

    def test_classes_that_begin_alike(self) -> None:
        same = torch.ones(2, 3)
        with pytest.raises(LawError, match="differences by position: got norm 0.0.*begin alike"):
            ActAdd().fit_positions([Contrast(same, same), Contrast(same, same)])
        with pytest.raises(LawError, match="got no positions"):
            ActAdd().fit_positions([])

    def test_options(self) -> None:
        for bad in (("one",), "ab", ("same", "same")):
            with pytest.raises(LawError, match="expected two texts that differ"):
                ActAdd(prompts=bad)
        for number in (0, True):
            with pytest.raises(LawError, match="positions: got"):
                ActAdd(positions=number)

    def test_not_fitted_or_another_width(self) -> None:
        with pytest.raises(LawError, match="no vectors: it is not fitted"):
            ActAdd()(torch.zeros(1, 3))
        with pytest.raises(LawError, match=f"vectors of width {WIDTH}; the state has width 3"):
            held().during(torch.zeros(1, 2, 3), Pass())
