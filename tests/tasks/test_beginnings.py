"""Beginnings with their states: exact scores without another pass, exact values, and what is drawn from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from steerlib.actuator import Site
from steerlib.control.causal import causal_gradient
from steerlib.errors import PlantError
from steerlib.plant import Plant
from steerlib.tasks.beginnings import Beginnings, ReadOut
from steerlib.tasks.helpfulness import Helpfulness
from steerlib.world.prompts import Wish

READ_OUT = {"layer": -1, "point": "final_norm"}


@pytest.fixture(scope="module")
def task() -> Helpfulness:
    return Helpfulness(Plant.load("almanac-llama-tiny", dtype=torch.float32))


@pytest.fixture(scope="module")
def wishes(task: Helpfulness) -> list[Wish]:
    items = task.items("validation")
    return [next(w for w in items if w.family.harmful == harmful) for harmful in (True, False)]


@pytest.fixture(scope="module")
def tree(task: Helpfulness, wishes: list[Wish]) -> Beginnings:
    return Beginnings.of(task, wishes)


@pytest.fixture(scope="module")
def head(task: Helpfulness) -> ReadOut:
    return ReadOut.of(task.plant)


def bend(state: Tensor) -> Tensor:
    """A push that depends on the state."""
    return 0.3 * state.flip(-1) + 1.0


class TestOutcome:
    def test_it_is_what_the_task_says_of_the_plant_and_of_a_law(
        self, task: Helpfulness, wishes: list[Wish], tree: Beginnings, head: ReadOut
    ) -> None:
        free, pushed = tree.outcome(head), tree.outcome(head, bend(tree.states))
        told = task.scored(wishes)
        with task.plant.under(lambda s: s + bend(s), **READ_OUT):
            steered = task.scored(wishes)
        for found, expected in ((free, told), (pushed, steered)):
            torch.testing.assert_close(found.worth.numpy(), expected.wanted, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(found.intact.numpy(), expected.intact, atol=1e-5, rtol=1e-4)
        assert (free.worth - pushed.worth).abs().max() > 0.02, "the push does something"

    def test_effort_is_summed_over_the_tokens_that_are_met(
        self, task: Helpfulness, wishes: list[Wish], tree: Beginnings, head: ReadOut
    ) -> None:
        assert torch.equal(tree.outcome(head).kl, torch.zeros(2, dtype=torch.float64))
        only = torch.zeros_like(tree.states)
        only[tree.root] = 3 * tree.states[tree.root].flip(-1)  # pushed where the answer begins, which is met surely
        with torch.inference_mode():
            logs = task.plant.forward([w.text for w in wishes])[:, -1].log_softmax(-1)
            moved = head(tree.states[tree.root] + only[tree.root]).log_softmax(-1)
        expected = (moved.exp() * (moved - logs)).sum(1).double()
        torch.testing.assert_close(tree.outcome(head, only).kl, expected, atol=1e-4, rtol=1e-3)
        assert (expected > 0.1).all()
        lengths = tree.outcome(head).tokens
        assert (lengths > 2).all()
        assert (lengths <= len(tree.levels)).all()

    def test_the_order_of_prompts_is_kept(self, task: Helpfulness, wishes: list[Wish], head: ReadOut) -> None:
        back = Beginnings.of(task, wishes[::-1]).outcome(head).worth
        torch.testing.assert_close(back.flip(0), Beginnings.of(task, wishes).outcome(head).worth)


class TestValues:
    def test_the_value_is_the_mean_of_what_comes_next_and_at_the_root_the_score(
        self, tree: Beginnings, head: ReadOut
    ) -> None:
        chances, _ = tree.chances(head)
        value, after = tree.values(chances, len(head.weight))
        pi = head(tree.states).double().softmax(-1)
        torch.testing.assert_close((pi * after).sum(1), value, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(value[tree.root], tree.outcome(head).worth)
        # One step on: Q of a token is the value of the node it leads to.
        on = tree.child >= 0
        torch.testing.assert_close(after[tree.node[on], tree.token[on]], value[tree.child[on]])

    def test_the_causal_gradient_is_the_slope_of_the_score(self, tree: Beginnings, head: ReadOut) -> None:
        _, after = tree.values(tree.chances(head)[0], len(head.weight))
        root = tree.states[tree.root]
        slope = causal_gradient(head.weight.double(), head(root).double(), after[tree.root])
        way = torch.nn.functional.normalize(slope, dim=1).float()
        ends = []
        for sign in (1, -1):
            push = torch.zeros_like(tree.states)
            push[tree.root] = 0.1 * sign * way
            ends.append(tree.outcome(head, push).worth)
        torch.testing.assert_close((ends[0] - ends[1]) / 0.2, slope.norm(dim=1), atol=1e-5, rtol=0.02)


class TestTrajectories:
    def test_answers_are_drawn_as_often_as_they_are_likely(self, tree: Beginnings, head: ReadOut) -> None:
        chances, _ = tree.chances(head)
        drawn = tree.trajectories(chances, samples=4000, seed=0)
        rewards = drawn.rewards.reshape(2, 4000)
        error = rewards.std(1) / 4000**0.5
        assert ((rewards.mean(1) - tree.outcome(head).worth).abs() < 4 * error).all()
        expected = tree.outcome(head).tokens
        torch.testing.assert_close(drawn.lengths.reshape(2, -1).double().mean(1), expected, atol=0.15, rtol=0.02)

    def test_states_begin_at_the_prompt_and_a_seed_says_which(self, tree: Beginnings, head: ReadOut) -> None:
        chances, _ = tree.chances(head)
        one, same, other = (tree.trajectories(chances, samples=20, seed=s) for s in (1, 1, 2))
        batch = one.take(torch.arange(40))
        firsts = batch.states[batch.lengths.cumsum(0) - batch.lengths]
        assert torch.equal(firsts, tree.states[tree.root.repeat_interleave(20)])
        assert one.digest == same.digest != other.digest

    def test_another_site_has_other_states_of_the_same_answers(
        self, task: Helpfulness, wishes: list[Wish], tree: Beginnings, head: ReadOut
    ) -> None:
        deep = Beginnings.of(task, wishes, site=Site(1))
        assert torch.equal(deep.token, tree.token)
        assert torch.equal(deep.child, tree.child)
        assert not torch.equal(deep.states, tree.states)
        chances, _ = tree.chances(head)
        rolled = [t.trajectories(chances, samples=3, seed=0) for t in (tree, deep)]
        assert torch.equal(rolled[0].rewards, rolled[1].rewards)


class TestRefused:
    def test_the_same_prompt_twice(self, task: Helpfulness, wishes: list[Wish]) -> None:
        with pytest.raises(PlantError, match=r"got 3, of which 2 differ, expected no two alike"):
            Beginnings.of(task, [*wishes, wishes[0]])

    def test_a_plant_that_reads_no_trees(self, wishes: list[Wish]) -> None:
        half = Helpfulness(Plant.load("almanac-llama-tiny", dtype=torch.bfloat16))
        with pytest.raises(PlantError, match="does not read trees in one pass"):
            Beginnings.of(half, wishes)


def test_a_soft_cap_is_part_of_the_read_out(head: ReadOut, tree: Beginnings) -> None:
    states = tree.states[:5]
    logits = head(states)
    torch.testing.assert_close(replace(head, cap=2.0)(states), 2 * (logits / 2).tanh())
