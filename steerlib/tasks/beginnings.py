"""How answers may begin, with the state before each token: values and scores of a read-out, without sampling.

Where a grammar says every way to begin an answer, and what each is worth, the value of a state is a sum and not an
estimate: V = E[worth of the beginning]. And because a push of the read-out state leaves the cache alone (it moves the
logits and nothing else), one pass of the plant serves every such push: states stay, only the read-out is done again.

What leaves the grammar earns nothing more, as in `GrammarTask.exact`, whose numbers these are.

Knows trees of tokens and read-outs; knows nothing about laws or how a value is fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlib.actuator import Actuator, Scope, Site
from steerlib.control.rollouts import Trajectories
from steerlib.errors import PlantError
from steerlib.forest import TOKENS_AT_ONCE, Tree, _score, reads_trees
from steerlib.harvest import Tap
from steerlib.plant import Plant
from steerlib.tasks.grammar import GrammarTask
from steerlib.trajectories import READ_OUT

_ROWS = 4096  # nodes whose logits are held at once


@dataclass(frozen=True, eq=False)
class ReadOut:
    """From the state after the final norm to logits: cap * tanh(W o / cap), or W o where there is no cap.

    Attributes:
        weight: W.
        cap: of Gemma-2's logits; None for a linear head.
    """

    weight: Float[Tensor, "tokens width"]
    cap: float | None = None

    @classmethod
    def of(cls, plant: Plant) -> ReadOut:
        """The head of a plant.

        Raises:
            PlantError: if the head has a bias, or none is to be found.
        """
        head: Any = plant.model.get_output_embeddings()  # type: ignore[operator]
        if head is None or getattr(head, "bias", None) is not None:
            raise PlantError(f"{plant.name}: got {head}, expected a head without a bias. Fix: another plant.")
        cap = getattr(plant.model.config.get_text_config(decoder=True), "final_logit_softcapping", None)
        return cls(head.weight.detach().float().cpu(), cap)

    def __call__(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch tokens"]:
        """Logits of states."""
        logits = state.to(self.weight.dtype) @ self.weight.T
        return logits if self.cap is None else self.cap * (logits / self.cap).tanh()


@dataclass(frozen=True)
class Outcome:
    """What answers amount to under a read-out, prompt by prompt.

    Attributes:
        worth: expected worth of the beginning: `Scores.wanted`.
        intact: probability that the answer begins as the grammar says: `Scores.intact`.
        kl: expected divergence from the unsteered plant along a beginning, in nats: summed over its tokens.
        tokens: expected number of tokens over which that is the sum.
    """

    worth: Float[Tensor, " prompts"]
    intact: Float[Tensor, " prompts"]
    kl: Float[Tensor, " prompts"]
    tokens: Float[Tensor, " prompts"]


@dataclass(frozen=True)
class Beginnings:
    """Every beginning of every prompt's answer. A node is a place before a token, a step is a token after a node.

    Attributes:
        states: of each node, at the site where they were taken.
        prompt: of each node.
        root: node of each prompt, where the answer begins.
        node: before each step.
        token: of each step.
        child: node after each step; -1 where nothing that follows is worth anything.
        earned: what taking each step earns: worth, and how far the answer is intact.
        levels: numbers of the steps, by their distance from the root.
    """

    states: Float[Tensor, "nodes width"]
    prompt: Int[Tensor, " nodes"]
    root: Int[Tensor, " prompts"]
    node: Int[Tensor, " steps"]
    token: Int[Tensor, " steps"]
    child: Int[Tensor, " steps"]
    earned: Float[Tensor, "steps 2"]
    levels: tuple[Int[Tensor, " level"], ...]
    _free: dict[ReadOut, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, task: GrammarTask, items: Sequence[Any], *, site: Site = READ_OUT) -> Beginnings:
        """Walk all beginnings of some prompts of a task, under whatever is attached to its plant.

        Args:
            task: whose grammar.
            items: prompts, as `task.items` gives them; no two alike.
            site: where states are taken.

        Raises:
            PlantError: if the plant cannot read a tree in one pass (see `steerlib.forest.reads_trees`), or two prompts
                are the same.
            SiteError: if the site does not exist.
        """
        plant = task.plant
        if not reads_trees(plant):
            raise PlantError(f"{plant.name}: does not read trees in one pass. Fix: float32, or another plant.")
        forest, owner, worth = task._forest(items)
        if len(forest.trees) != len(items):
            raise PlantError(f"prompts: got {len(items)}, of which {len(forest.trees)} differ, expected no two alike.")
        tap, parts, held, numbers = Tap(whole=True), [], 0, 0
        budget = TOKENS_AT_ONCE.get(plant.device.type, TOKENS_AT_ONCE["cpu"])
        order = sorted(range(len(forest.trees)), key=lambda i: len(forest.trees[i]))
        with Actuator(plant.wiring, [(site.resolve(plant.depth), tap, Scope("all"))]):
            while order:
                count = max(1, min(len(order), budget // len(forest.trees[order[-1]])))
                chosen, order = order[-count:], order[:-count]
                tap.seen.clear()
                _score(plant, [forest.trees[i] for i in chosen])
                for i, seen in zip(chosen, tap.seen[0], strict=True):
                    tree, own = forest.trees[i], forest.owners[i]
                    part = _walked(tree, worth[own])
                    columns = part.columns.to(seen.device)
                    parts.append((int(owner[own[0]]), seen[columns].float().cpu(), part, held, numbers))
                    held, numbers = held + len(columns), numbers + len(tree.steps)
        deepest = max(int(part.depth.max()) for _, _, part, _, _ in parts)
        depth = torch.cat([part.depth for _, _, part, _, _ in parts])
        child = torch.cat([torch.where(part.child < 0, -1, part.child + start) for _, _, part, start, _ in parts])
        roots = torch.zeros(len(items), dtype=torch.long)
        for asked, _, _, start, _ in parts:
            roots[asked] = start  # the first column is the end of the prompt
        return cls(
            torch.cat([states for _, states, _, _, _ in parts]),
            torch.cat([torch.full((len(states),), asked) for asked, states, _, _, _ in parts]),
            roots,
            torch.cat([part.node + start for _, _, part, start, _ in parts]),
            torch.cat([part.token for _, _, part, _, _ in parts]),
            child,
            torch.cat([part.earned for _, _, part, _, _ in parts]),
            tuple((depth == level).nonzero()[:, 0] for level in range(deepest + 1)),
        )

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self.root)

    # Probabilities

    def chances(
        self, readout: ReadOut, push: Float[Tensor, "nodes width"] | None = None
    ) -> tuple[Float[Tensor, " steps"], Float[Tensor, " nodes"]]:
        """Probability of each step once its node is reached, and KL(pushed || unsteered) of the token at each node.

        Args:
            readout: of the plant whose states these are, taken after the final norm.
            push: added to each state; None for the plant itself.
        """
        if readout not in self._free:  # a sweep asks again and again
            self._free[readout] = readout(self.states).log_softmax(-1)
        free = self._free[readout]
        found = torch.zeros(len(self.node), dtype=torch.float64)
        kl = torch.zeros(len(self.states), dtype=torch.float64)
        for start in range(0, len(self.states), _ROWS):
            part = slice(start, start + _ROWS)
            if push is None:
                logs = free[part]
            else:
                logs = readout(self.states[part] + push[part]).log_softmax(-1)
                kl[part] = (logs.exp() * (logs - free[part])).sum(-1).double()
            here = ((self.node >= start) & (self.node < start + _ROWS)).nonzero()[:, 0]
            found[here] = logs[self.node[here] - start, self.token[here]].double().exp()
        return found, kl.clamp(min=0)

    def reach(self, chances: Float[Tensor, " steps"]) -> Float[Tensor, " nodes"]:
        """Probability of coming by each node."""
        out = torch.zeros(len(self.states), dtype=torch.float64)
        out[self.root] = 1.0
        for level in self.levels:
            on = level[self.child[level] >= 0]
            out[self.child[on]] = out[self.node[on]] * chances[on]
        return out

    # What they amount to

    def outcome(self, readout: ReadOut, push: Float[Tensor, "nodes width"] | None = None) -> Outcome:
        """Scores and effort of a push at every node; of none, those of the plant itself.

        Args:
            readout: see `chances`.
            push: see `chances`.
        """
        chances, kl = self.chances(readout, push)
        reach, zero = self.reach(chances), torch.zeros(len(self), dtype=torch.float64)
        taken, asked = (reach[self.node] * chances)[:, None] * self.earned, self.prompt[self.node]
        worth, intact = (zero.index_add(0, asked, column) for column in taken.T)
        spent, tokens = (zero.index_add(0, self.prompt, column) for column in (reach * kl, reach))
        return Outcome(worth, intact, spent, tokens)

    def values(self, chances: Float[Tensor, " steps"], vocabulary: int) -> tuple[Tensor, Tensor]:
        """V of each node, and Q of every token at each node, under the policy with these chances.

        A token that no beginning goes on with earns nothing more: its Q is what has been earned on the way.

        Returns:
            V (nodes,) and Q (nodes, tokens); V is the mean of Q under the policy.
        """
        on_the_way = torch.zeros(len(self.states), dtype=torch.float64)
        ahead, after = torch.zeros_like(on_the_way), torch.zeros(len(self.node), dtype=torch.float64)
        for level in self.levels:
            on = level[self.child[level] >= 0]
            on_the_way[self.child[on]] = on_the_way[self.node[on]] + self.earned[on, 0]
        for level in reversed(self.levels):
            child = self.child[level]
            after[level] = self.earned[level, 0] + torch.where(child >= 0, ahead[child], 0.0)
            ahead.index_add_(0, self.node[level], chances[level] * after[level])
        q = on_the_way[:, None].repeat(1, vocabulary)
        q[self.node, self.token] += after
        return on_the_way + ahead, q

    def trajectories(self, chances: Float[Tensor, " steps"], *, samples: int, seed: int) -> Trajectories:
        """Answers drawn token by token until nothing more can be earned: what a value is learned from.

        Args:
            chances: of the policy that draws; the unsteered plant's as a rule.
            samples: answers to each prompt.
            seed: of the draw.

        Returns:
            The states they pass through, and as reward the worth that they have earned.
        """
        chance = torch.Generator().manual_seed(seed)
        by_node = self.node.argsort(stable=True)
        ends = torch.bincount(self.node, minlength=len(self.states)).cumsum(0)
        summed = chances[by_node].cumsum(0)
        here = self.root.repeat_interleave(samples)
        rewards, lengths = torch.zeros(len(here), dtype=torch.float64), torch.zeros(len(here), dtype=torch.long)
        visited = []
        while bool((here >= 0).any()):
            visited.append(here)
            lengths += here >= 0
            first = torch.where(here > 0, ends[here - 1], 0)
            before = torch.where(first > 0, summed[first - 1], 0.0)
            place = torch.searchsorted(summed, before + torch.rand(len(here), generator=chance, dtype=torch.float64))
            # Past the steps of its node, a draw is a token that no beginning goes on with.
            on = (here >= 0) & (place < ends[here])
            step = by_node[torch.where(on, place, 0)]
            rewards += torch.where(on, self.earned[step, 0], 0.0)
            here = torch.where(on, self.child[step], -1)
        path = torch.stack(visited, 1)
        return Trajectories([self.states[path[path >= 0]]], lengths, rewards)


@dataclass(frozen=True)
class _Walk:
    """One tree, numbered from 0: see `Beginnings`."""

    columns: Int[Tensor, " nodes"]
    node: Int[Tensor, " steps"]
    token: Int[Tensor, " steps"]
    child: Int[Tensor, " steps"]
    earned: Float[Tensor, "steps 2"]
    depth: Int[Tensor, " steps"]


def _walked(tree: Tree, worth: Float[Tensor, "continuations 2"]) -> _Walk:
    columns, node = tree.steps[:, 0].unique(return_inverse=True)
    child, depth = torch.full_like(node, -1), torch.zeros_like(node)
    earned = torch.zeros(len(node), 2, dtype=torch.float64)
    for path, own in zip(tree.paths, worth.double(), strict=True):
        steps = path.nonzero()[:, 0]  # steps were numbered as they were met: parents first
        child[steps[:-1]] = node[steps[1:]]
        depth[steps] = torch.arange(len(steps))
        earned[steps[-1]] += own
    return _Walk(columns, node, tree.steps[:, 1], child, earned, depth)
