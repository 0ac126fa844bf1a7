"""Conditional steering: the right similarity and threshold, and a gate that is open in the right rows for good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlib.actuator import Site
from steerlib.errors import LawError
from steerlib.experiment.cells import Cell, LawSpec, code_hash
from steerlib.laws.additive import Additive
from steerlib.laws.base import Contrast, LawHeader
from steerlib.laws.condition import Condition, best_cut
from steerlib.laws.conditional import Conditional
from steerlib.plant import Plant
from steerlib.recorder import record
from steerlib.tasks import Truth
from steerlib.tasks.refusal import Refusal
from steerlib.tasks.source import TaskSource
from tests.families import WIDTH, plant, words

MEANS = {"behaviour": "difference-of-means"}
PROMPTS = [words(5, 9, 30, 41, 8), words(60, 3), words(12, 13, 14), words(7, 7)]
ANSWERS = {"max_new_tokens": 5, "seed": 0, "temperature": 0.0}


def clouds(n: int = 60, width: int = 6, *, seed: int = 0, offset: float = 0.0) -> Contrast:
    """Classes that differ along the first axis, and spread more along the second together."""
    noise = torch.randn(2, n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise[0, :, 0] += 6.0
    return Contrast(noise[0] + offset, noise[1] + offset)


class TestSimilarity:
    def test_by_the_formulas(self):
        state = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
        for name in ("projection", "tanh"):
            law = Condition(similarity=name).fit(clouds())
            c, rows = law.vector.double().numpy(), state.double().numpy()
            projected = rows @ np.outer(c, c) / (c @ c)
            if name == "tanh":
                projected = np.tanh(projected)
            norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(projected, axis=1)
            np.testing.assert_allclose(law.similarities(state), (rows * projected).sum(1) / norms, rtol=1e-4)

    def test_without_tanh_it_is_the_size_of_the_cosine_whatever_the_sign(self):
        law = Condition().fit(clouds())
        state = torch.randn(5, 6)
        expected = torch.cosine_similarity(state, law.vector, dim=-1).abs()
        torch.testing.assert_close(law.similarities(state), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(law.similarities(-state), expected, atol=1e-5, rtol=1e-4)
        assert law.similarities(torch.zeros(1, 6)) == 0

    def test_vectors(self):
        contrast = clouds(400)
        both = torch.cat([contrast.positive, contrast.negative])
        axis = np.linalg.svd((both - both.mean(0)).numpy(), full_matrices=False)[2][0]
        found = Condition(vector="pca").fit(contrast).vector.double().numpy()
        assert abs(found @ axis) == pytest.approx(1.0, abs=1e-6)  # equal classes: the midpoint is the mean
        gap = contrast.positive.mean(0) - contrast.negative.mean(0)
        mean = Condition(vector="mean-difference").fit(contrast).vector.double()
        torch.testing.assert_close(mean, gap / gap.norm(), atol=1e-6, rtol=0)

    def test_pairs_take_out_what_they_share(self):
        generator = torch.Generator().manual_seed(0)
        topic = 50 * torch.randn(80, 1, generator=generator) * torch.eye(6)[1]
        noise = torch.randn(2, 80, 6, generator=generator)
        contrast = Contrast(topic + noise[0] + 6 * torch.eye(6)[0], topic + noise[1])
        assert Condition(vector="pca-pairs").fit(contrast).vector[0].abs() > 0.95
        assert Condition(vector="pca").fit(contrast).vector[1].abs() > 0.95


class TestThreshold:
    @settings(max_examples=60, deadline=None)
    @given(
        act=st.lists(st.integers(0, 12), min_size=1, max_size=12),
        leave=st.lists(st.integers(0, 12), min_size=1, max_size=12),
    )
    def test_no_cut_is_better(self, act, leave):
        if len({*act, *leave}) == 1:
            with pytest.raises(LawError, match="so no threshold tells them apart"):
                best_cut(torch.tensor(act, dtype=torch.float32), torch.tensor(leave, dtype=torch.float32))
            return

        def f1(cut: float, side: str) -> float:
            met = (
                [(v > cut) if side == "above" else (v < cut) for v in act],
                [(v > cut) if side == "above" else (v < cut) for v in leave],
            )
            return 2 * sum(met[0]) / (sum(met[0]) + sum(met[1]) + len(act))

        cut, side = best_cut(torch.tensor(act, dtype=torch.float32), torch.tensor(leave, dtype=torch.float32))
        values = sorted({*act, *leave})
        cuts = [(a + b) / 2 for a, b in zip(values, values[1:], strict=False)]
        every = [f1(c, s) for c in cuts for s in ("above", "below")]
        assert cut in cuts and f1(cut, side) == pytest.approx(max(every))

    def test_sides_and_ties(self):
        low, high = torch.tensor([0.1, 0.2]), torch.tensor([0.8, 0.9])
        assert best_cut(high, low) == (pytest.approx(0.5), "above")
        assert best_cut(low, high) == (pytest.approx(0.5), "below")
        assert best_cut(low, high, side="above")[1] == "above"

    def test_what_is_kept_of_the_fit(self):
        law = Condition().fit(clouds(offset=0.5))
        contrast = clouds(offset=0.5)
        met = [law.met_by(states) for states in contrast]
        assert law.shares.tolist() == pytest.approx([float(m.double().mean()) for m in met])
        hits, alarms, misses = int(met[0].sum()), int(met[1].sum()), int((~met[0]).sum())
        assert float(law.f1) == pytest.approx(2 * hits / (2 * hits + alarms + misses)) and law.f1 > 0.8


def gate(p: Plant, *, read: str = "last", size: float = 3.0) -> tuple[Conditional, torch.Tensor]:
    """A gate that opens for some of the prompts, and for which."""
    law = Conditional(**MEANS, read=read, condition_layer=0)
    found = record(p, PROMPTS, sites=[0], position="last" if read == "last" else "all")
    states = found.at(0)
    if read == "mean":
        states = torch.stack([rows.mean(0) for rows in states.split(list(found.rows))])
    header = LawHeader(0, "resid_post", "generated", p.name, p.weight_hash, WIDTH, "d", 0)
    condition = law.condition
    condition.header = header
    condition.vector = torch.nn.functional.normalize(states[0] + states[2], dim=0)
    values = condition.similarities(states)
    condition.threshold = values.sort().values[1:3].mean()
    inner = Additive(size * torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)))
    law.gated.law = inner
    law.gated.header = LawHeader(1, "resid_post", "generated", p.name, p.weight_hash, WIDTH, "d", 0)
    met = values > condition.threshold
    assert met.sum() == 2
    return law, met


@pytest.mark.parametrize("family", ["llama", "falcon", "gpt2"])
@pytest.mark.parametrize("read", ["last", "mean"])
class TestGate:
    def test_rows_that_meet_it_are_steered_and_others_are_not(self, family, read):
        p = plant(family)
        law, met = gate(p, read=read)
        for side in ("left", "right"):
            batch = p.encode(PROMPTS, side=side)
            free = p.forward(batch)
            with p.under(law.gated.law, layer=1, scope="generated"):
                always = p.forward(batch)
            with p.under(law):
                found = p.forward(batch)
            real = batch.attention_mask.bool()
            for row in range(len(PROMPTS)):
                wanted = always if met[row] else free
                assert torch.equal(found[row][real[row]], wanted[row][real[row]])
            assert not torch.equal(always[met], free[met])

    def test_it_is_latched_for_the_whole_answer_in_every_way_of_generating(self, family, read):
        p = plant(family)
        law, met = gate(p, read=read, size=20.0)
        free = p.generate(PROMPTS, **ANSWERS).tokens
        with p.under(law.gated.law, layer=1, scope="generated"):
            always = p.generate(PROMPTS, **ANSWERS).tokens
        expected = tuple(always[i] if met[i] else free[i] for i in range(len(PROMPTS)))
        assert expected not in (always, free)
        with p.under(law):
            for how in ({}, {"cache": "static"}, {"cache": "static", "compile": "eager"}, {"cache": "none"}):
                assert p.generate(PROMPTS, **ANSWERS, **how).tokens == expected, how
            # One by one, in another order: what one prompt met says nothing about the next.
            for i in reversed(range(len(PROMPTS))):
                assert p.generate(PROMPTS[i : i + 1], **ANSWERS).tokens[0] == expected[i]

    def test_teacher_forcing_reads_the_prompt_alone(self, family, read):
        p = plant(family)
        law, met = gate(p, read=read)
        answers = [" " + words(21, 34, 55)] * len(PROMPTS)
        free = p.logprobs(PROMPTS, answers)
        with p.under(law.gated.law, layer=1, scope="generated"):
            always = p.logprobs(PROMPTS, answers)
        with p.under(law):
            found = p.logprobs(PROMPTS, answers)
        torch.testing.assert_close(found, torch.where(met, always, free), atol=1e-4, rtol=1e-4)


class TestNotesAndFiles:
    @pytest.mark.parametrize(
        ("side", "threshold", "shares", "note"),
        [("above", 1.0, [0.0, 0.0], "never met"), ("above", -1.0, [1.0, 1.0], "always met")],
    )
    def test_never_and_always(self, side, threshold, shares, note, tmp_path: Path):
        source = TaskSource(Truth(Plant.load("almanac-llama-tiny")), Site(1), n=12)
        p = source.plant
        law = Conditional(**MEANS, threshold=threshold, side=side).fit_from(source)
        assert law.condition.shares.tolist() == shares and note in law.notes[0]
        again = Conditional.load(law.save(tmp_path / "law.safetensors"))
        assert again.notes == law.notes and again.options() == law.options()
        text = ["The capital of"]
        free = p.forward(text)
        with p.under(law.gated.law):
            always = p.forward(text)
        with p.under(again):
            assert torch.equal(p.forward(text), always if note == "always met" else free)

    def test_a_condition_that_knows_is_without_notes(self):
        assert Conditional(**MEANS).notes == ["the condition is not fitted"]
        assert Conditional(**MEANS).fit([clouds(), clouds()]).notes == []
        wrong = Conditional(**MEANS, threshold=0.5, side="below").fit([clouds(), clouds()])
        assert "of the prompts to act on" in wrong.notes[0]

    def test_strength_reaches_the_behaviour(self):
        law = Conditional(**MEANS, strength=0.5)
        assert float(law.gated.law.strength) == float(law.strength) == 0.5
        assert float(law.at(2.0).gated.law.strength) == 2.0


class TestOnTasks:
    def test_harmful_and_honest_requests_are_told_apart(self):
        task = Refusal(Plant.load("almanac-llama-tiny"))
        law = Conditional(**MEANS, vector="mean-difference", read="mean").fit_from(TaskSource(task, Site(1), n=40))
        act, leave = law.condition.shares.tolist()
        assert law.condition.f1 > 0.75 and act - leave > 0.4
        control = TaskSource(task, Site(1), n=40, labels="shuffled")
        mixed = Conditional(**MEANS, vector="mean-difference", read="mean").fit_from(control)
        assert mixed.condition.f1 < law.condition.f1

    def test_the_mean_is_over_the_prompt(self):
        source = TaskSource(Truth(Plant.load("almanac-llama-tiny")), Site(0), n=5)
        (found,) = source.conditions([Site(0)], read="mean")
        texts = source.task.condition_texts(n=5, seed=0)[0]
        alone = record(source.plant, texts[:1], sites=[0], position="all").at(0).mean(0)
        torch.testing.assert_close(found.positive[0], alone, atol=1e-5, rtol=1e-5)
        (last,) = source.conditions([Site(0)])
        wanted = record(source.plant, texts, sites=[0]).at(0)
        assert torch.equal(last.positive, wanted)

    def test_the_behaviour_counts_for_the_key(self):
        def code(behaviour: str) -> str:
            spec = LawSpec(name="conditional", layer=1, options={"behaviour": behaviour})
            return code_hash(Cell(plant="almanac-llama", task="truth", law=spec))

        assert len({code(name) for name in ("repe", "difference-of-means", "nothing-of-the-kind")}) == 3


class TestRefusals:
    def test_options(self):
        for name in ("vector", "read", "similarity", "side"):
            with pytest.raises(LawError, match=f"{name}: got 'wrong'"):
                Condition(**{name: "wrong"})
        for wrong in ({"threshold": 0.5}, {"threshold": 1.5, "side": "above"}):
            with pytest.raises(LawError, match="a threshold needs a side"):
                Condition(**wrong)
        with pytest.raises(LawError, match="acts at sites of its own"):
            Conditional(behaviour="iti")

    def test_order_of_sites(self):
        source = TaskSource(Truth(Plant.load("almanac-llama-tiny")), Site(0), n=5)
        with pytest.raises(LawError, match="condition at resid_post of layer 1, behaviour at resid_post of layer 0"):
            Conditional(**MEANS, condition_layer=1).fit_from(source)

    def test_states_that_say_nothing(self):
        same = torch.ones(4, 3)
        with pytest.raises(LawError, match="both classes hold the same states"):
            Condition().fit(Contrast(same, same))
        line = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
        with pytest.raises(LawError, match="so no threshold tells them apart"):
            Condition().fit(Contrast(line, 2 * line))

    def test_an_answer_whose_prompt_was_not_read(self):
        p = plant("llama")
        law, _ = gate(p)
        law._linked()
        from steerlib.actuator import Pass

        with pytest.raises(LawError, match="after the condition read no prompt"):
            law.gated.during(torch.zeros(2, 1, WIDTH), Pass(decoding=True))
        law.condition.during(torch.ones(3, 2, WIDTH), Pass())
        with pytest.raises(LawError, match="over 2 rows after the condition read 3 prompts"):
            law.gated.during(torch.zeros(2, 1, WIDTH), Pass(decoding=True))

    def test_unfitted(self):
        with pytest.raises(LawError, match="no vector: it is not fitted"):
            Condition().similarities(torch.zeros(1, 4))
