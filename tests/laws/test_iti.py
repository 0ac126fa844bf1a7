"""Original ITI: the right heads, the right push, and nothing where no head was chosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from steerlib.actuator import Site
from steerlib.errors import LawError
from steerlib.laws.base import Contrast
from steerlib.laws.iti import ITI
from steerlib.laws.stack import Stack
from steerlib.plant import Plant
from steerlib.tasks.source import TaskSource
from steerlib.tasks.truth import Truth

HEADS, SIZE = 4, 3


def states(layers: int = 2, n: int = 200, *, know=((1, 2),), gap: float = 4.0, seed: int = 0, paired: bool = False):
    """Head outputs of unit noise, in which only some heads know the class: along their first coordinate."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for layer in range(layers):
        both = torch.randn(2, n, HEADS, SIZE, generator=generator)
        for where, head in know:
            if where == layer:
                both[0, :, head, 0] += gap
        found.append(Contrast(*both.reshape(2, n, -1), paired=paired))
    return found


class TestHeads:
    def test_the_head_that_knows_is_found_and_only_it_is_pushed(self):
        law = ITI(num_heads=1).fit_heads(states(), heads=HEADS)
        assert law.selected.nonzero().tolist() == [[1, 2]]
        assert law.accuracies[1, 2] > 0.9
        others = law.accuracies.flatten()[~law.selected.flatten()]
        assert ((others - 0.5).abs() < 0.2).all()  # 40 + 40 held-out examples: four standard errors
        (part,) = law
        pushed = part.vector.reshape(HEADS, SIZE)
        assert (pushed[2] != 0).all() and not pushed[[0, 1, 3]].any()

    def test_the_push_is_sigma_along_the_mean_shift_by_hand(self):
        contrasts = states()
        law = ITI(num_heads=1).fit_heads(contrasts, heads=HEADS)
        head = [c.numpy().reshape(-1, HEADS, SIZE)[:, 2].astype(float) for c in contrasts[1]]
        along = head[0].mean(0) - head[1].mean(0)
        along /= np.linalg.norm(along)
        expected = along * np.std(np.concatenate(head) @ along)
        np.testing.assert_allclose(next(iter(law)).vector.reshape(HEADS, SIZE)[2], expected, rtol=1e-5)

    def test_the_probe_direction_is_that_of_another_solver(self):
        contrasts = states(1, know=((0, 1),), gap=1.0)
        law = ITI(num_heads=1, direction="probe", seed=3).fit_heads(contrasts, heads=HEADS)
        order = [torch.randperm(200, generator=(g := torch.Generator().manual_seed(3)))]
        order.append(torch.randperm(200, generator=g))
        head = [c.reshape(-1, HEADS, SIZE)[:, 1].double() for c in contrasts[0]]
        x = torch.cat([h[o[:160]] for h, o in zip(head, order, strict=True)]).numpy()
        y = np.r_[np.ones(160), -np.ones(160)]
        loss = lambda w: np.logaddexp(0, -y * (x @ w[:-1] + w[-1])).sum() + w[:-1] @ w[:-1] / 2  # noqa: E731
        weight = minimize(loss, np.zeros(SIZE + 1), method="BFGS", options={"gtol": 1e-8}).x[:-1]
        theta = weight / np.linalg.norm(weight)
        expected = theta * np.std(torch.cat(head).numpy() @ theta)
        np.testing.assert_allclose(next(iter(law)).vector.reshape(HEADS, SIZE)[1], expected, atol=1e-4)

    def test_accuracy_is_that_of_examples_the_probe_has_not_seen(self):
        # As many features as examples: every probe is perfect on what it has seen, and none knows anything.
        generator = torch.Generator().manual_seed(0)
        both = torch.randn(2, 50, 2, 400, generator=generator).reshape(2, 50, -1)
        law = ITI(num_heads=1).fit_heads([Contrast(*both)], heads=2)
        assert (law.accuracies < 0.85).all()

    def test_pairs_are_not_torn_apart(self):
        # Class and pair share a mark so large that a probe which has seen one of a pair knows the other.
        n = 60
        marks = 10 * torch.eye(n)
        noise = torch.randn(2, n, n, generator=torch.Generator().manual_seed(0))
        found = {}
        for paired in (True, False):
            contrast = Contrast(marks + noise[0], -marks + noise[1], paired=paired)
            found[paired] = float(ITI(num_heads=1).fit_heads([contrast], heads=1).accuracies[0, 0])
        assert found[True] < 0.65 < 0.75 < found[False]

    def test_heads_of_several_layers_and_ties(self):
        law = ITI(num_heads=2).fit_heads(states(3, know=((0, 3), (2, 0)), gap=30.0), heads=HEADS)
        assert law.selected.nonzero().tolist() == [[0, 3], [2, 0]] and len(law) == 2
        all_perfect = tuple((layer, head) for layer in range(2) for head in range(HEADS))
        tied = ITI(num_heads=5).fit_heads(states(2, know=all_perfect, gap=30.0), heads=HEADS)
        assert tied.selected.nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0]]

    def test_random_directions_keep_heads_and_change_with_the_seed(self):
        one, two = (ITI(num_heads=1, direction="random", seed=s).fit_heads(states(), heads=HEADS) for s in (0, 1))
        assert torch.equal(one.selected, two.selected)
        a, b = (next(iter(law)).vector for law in (one, two))
        assert torch.cosine_similarity(a, b, dim=0).abs() < 0.999
        again = ITI(num_heads=1, direction="random").fit_heads(states(), heads=HEADS)
        assert torch.equal(next(iter(again)).vector, a)

    def test_random_heads_are_the_released_control(self):
        contrasts = states(6, know=((1, 2), (4, 0)))
        laws = [ITI(num_heads=2, ranking="random", seed=s).fit_heads(contrasts, heads=HEADS) for s in range(40)]
        best = ITI(num_heads=2).fit_heads(contrasts, heads=HEADS)
        assert all(int(law.selected.sum()) == 2 for law in laws)
        times = torch.stack([law.selected for law in laws]).sum(0)
        assert (times > 0).sum() > 18 and times.max() < 12, "any of the 24 heads, none preferred"
        assert best.selected.nonzero().tolist() == [[1, 2], [4, 0]]
        for law in laws[:5]:  # a head's push does not depend on how it was chosen
            whole = ITI(num_heads=24).fit_heads(contrasts, heads=HEADS)
            layers = law.selected.any(1).nonzero().flatten().tolist()
            for part, layer in zip(law, layers, strict=True):
                chosen = law.selected[layer].repeat_interleave(SIZE)
                expected = torch.where(chosen, list(whole)[layer].vector, 0.0)
                torch.testing.assert_close(part.vector, expected)
        assert ITI(ranking="random").options()["ranking"] == "random"
        with pytest.raises(LawError, match="ranking: got 'best', expected 'accuracy' or 'random'"):
            ITI(ranking="best")


@pytest.fixture(scope="module")
def source():
    return TaskSource(Truth(Plant.load("almanac-llama-tiny")), Site(-1), n=40, scope="last")


class TestOnAPlant:
    def test_from_a_source(self, source, tmp_path: Path):
        plant = source.plant
        law = ITI(num_heads=3, strength=5.0).fit_from(source)
        assert law.accuracies.shape == (plant.depth, plant.heads) and int(law.selected.sum()) == 3
        assert {part.header.point for part in law} == {"heads"} and float(law.strength) == 5.0
        text = ["Q: What is the capital of Orvanne? A:"]
        with plant.under(law):
            steered = plant.forward(text)
        assert not torch.equal(steered, plant.forward(text))
        again = ITI.load(law.save(tmp_path / "iti.safetensors"))
        assert again.options() == law.options() and torch.equal(again.accuracies, law.accuracies)
        with plant.under(again):
            assert torch.equal(plant.forward(text), steered)
        with pytest.raises(LawError, match="holds ITI version 1, expected Stack"):
            Stack.load(tmp_path / "iti.safetensors")

    def test_it_is_the_bias_that_the_paper_writes_down(self, source):
        plant = source.plant
        law = ITI(num_heads=2, layers=[-1], strength=3.0).fit_from(source)
        (part,) = law
        assert part.header.layer == plant.depth - 1
        projection = plant.blocks[-1].get_submodule("self_attn.o_proj")
        bias = 3.0 * projection.weight @ part.vector
        handle = projection.register_forward_hook(lambda _module, _args, output: output + bias)
        by_hand = plant.forward(["The capital of"])
        handle.remove()
        with plant.under(law, scope="all"):
            torch.testing.assert_close(plant.forward(["The capital of"]), by_hand, atol=1e-4, rtol=1e-4)

    def test_a_block_that_is_asked_for_is_looked_at_or_refused(self, source):
        first, depth = dataclasses.replace(source, site=Site(0)), source.plant.depth
        with pytest.raises(LawError, match=rf"got layer 0, but it chooses among the heads of all {depth} blocks"):
            ITI(num_heads=1).fit_from(first)
        here = ITI(num_heads=1, layers="site").fit_from(first)
        assert [part.header.layer for part in here] == [0] and here.accuracies.shape == (1, source.plant.heads)
        named = ITI(num_heads=1, layers=[0]).fit_from(source)
        assert torch.equal(next(iter(here)).vector, next(iter(named)).vector)
        assert ITI(**here.options()).layers == "site" and ITI(**named.options()).layers == (0,)
        whole = dataclasses.replace(source, site=Site(depth - 1))  # the last block by its number: the same place
        assert torch.equal(ITI(num_heads=1).fit_from(whole).selected, ITI(num_heads=1).fit_from(source).selected)


class TestRefusals:
    def test_options(self):
        with pytest.raises(LawError, match="direction: got 'best'"):
            ITI(direction="best")  # type: ignore[arg-type]
        with pytest.raises(LawError, match="layers: got 'first', expected 'all' or 'site'"):
            ITI(layers="first")
        for wrong in ({"num_heads": 0}, {"held_out": 0.0}, {"held_out": 1.0}):
            with pytest.raises(LawError, match="at least one head and a share"):
                ITI(**wrong)

    def test_contrasts(self):
        with pytest.raises(LawError, match="num_heads: got 9, but there are 8 heads"):
            ITI(num_heads=9).fit_heads(states(), heads=HEADS)
        with pytest.raises(LawError, match="width 12, which 5 heads cannot share"):
            ITI(num_heads=1).fit_heads(states(), heads=5)
        with pytest.raises(LawError, match="got 1 examples of a class"):
            ITI(num_heads=1).fit_heads(states(n=1), heads=HEADS)
        with pytest.raises(LawError, match="without the number of heads"):
            ITI().fit(states())

    @pytest.mark.parametrize("direction", ["mass-mean", "probe", "random"])
    def test_a_head_whose_output_never_changes(self, direction):
        still = [dataclasses.replace(c, positive=c.positive * 0 + 1, negative=c.negative * 0 + 1) for c in states(1)]
        with pytest.raises(LawError, match="head 0: .*its output never changes"):
            ITI(num_heads=1, direction=direction).fit_heads(still, heads=HEADS)
        # It is harmless as long as it is not chosen.
        (live,) = states(1, know=((0, 3),))
        for part in live:
            part[:, :SIZE] = 1.0
        assert ITI(num_heads=1).fit_heads([live], heads=HEADS).selected.nonzero().tolist() == [[0, 3]]
