"""The updates of a value network: batches, losses, looks at held-out trajectories, and a file to go on from.

The order of the batches depends on the seed and the update alone, so that training that was killed goes on from its
file and ends with the same weights, bit for bit, as one that was not. Memory holds the network, its moments and two
batches: the next one is read while one is learned from.

Knows tensors, files and modules; knows nothing about plants or laws. `steerlib.control.values` is how it is used.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from steerlib.control.bellman import Target, ValueNetwork, bellman_loss, final_values, padded, preference_loss
from steerlib.control.checkpoints import load_training, save_training
from steerlib.control.networks import Training
from steerlib.control.rollouts import Batch, Trajectories
from steerlib.errors import LawError


@dataclass(frozen=True)
class Pairs:
    """Answers to the prompts of the trajectories, of which one is preferred: beyond the paper, after Pref-CTRL.

    Attributes:
        preferred: to each prompt the better answer, in the order of the trajectories. Rewards are not read.
        rejected: to each prompt the worse one.
        weight: of `preference_loss` beside the Bellman loss.
        pull: weight of its second term, which draws the plant's own answers towards the preferred ones.
    """

    preferred: Trajectories
    rejected: Trajectories
    weight: float = 1.0
    pull: float = 1.0


@dataclass(frozen=True)
class Objective:
    """What is trained to.

    Attributes:
        target: see `steerlib.control.bellman`.
        lam: for "td-lambda".
        pairs: preferences beside it.
    """

    target: Target
    lam: float
    pairs: Pairs | None = None

    def sources(self, data: Trajectories) -> list[Trajectories]:
        """Where the rows of an update come from, row by row."""
        return [data] if self.pairs is None else [data, self.pairs.preferred, self.pairs.rejected]

    def loss(self, network: ValueNetwork, batches: list[Batch]) -> tuple[Float[Tensor, ""], Float[Tensor, "n time"]]:
        """Loss of some rows, and the values of the trajectories among them."""
        own = batches[0]
        values = row_values(network, own, self.target)
        loss = bellman_loss(values, own.lengths, own.rewards, target=self.target, lam=self.lam)
        if self.pairs is None:
            return loss, values
        ends = [final_values(row_values(network, batch, self.target), batch.lengths) for batch in batches]
        return loss + self.pairs.weight * preference_loss(ends[1], ends[2], ends[0], pull=self.pairs.pull), values


def row_values(network: ValueNetwork, batch: Batch, target: Target) -> Float[Tensor, "batch time"]:
    """V of right-padded rows; with "prompt-only" that of the first state, repeated."""
    if target != "prompt-only":
        return padded(network(batch.states), batch.lengths)
    first = network(batch.states[batch.lengths.cumsum(0) - batch.lengths])
    return first[:, None].expand(-1, int(batch.lengths.max()))


@dataclass(frozen=True)
class Look:
    """What was seen of the held-out trajectories at an update.

    Attributes:
        step: updates made before.
        loss: what is trained to.
        error: mean squared distance of V_t from the reward, over all states; the variance of the rewards, weighed by
            length, is what a constant gets.
    """

    step: int
    loss: float
    error: float


class ValueTraining:
    """A network in training: where it is, and how it goes on.

    Args:
        network: with parameters, on the device where it is trained.
        data: what it learns from.
        objective: what it is trained to.
        how: see `Training`; a batch counts trajectories.
        seed: of held-out trajectories and order.
        choosing: keep the weights that are best on held-out trajectories, and stop when they get no better.

    Attributes:
        step: updates made.
        kept: update whose weights were best.
        looks: at the held-out trajectories.
        test: which these are.
        best: their best weights; empty unless choosing.
    """

    def __init__(
        self,
        network: ValueNetwork,
        data: Trajectories,
        objective: Objective,
        how: Training,
        *,
        seed: int,
        choosing: bool,
    ) -> None:
        self.network, self.data, self.objective, self.how, self.seed = network, data, objective, how, seed
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        aside = how.rows_aside(len(data))
        self.test, self.rows = order[:aside].sort().values, order[aside:]
        self.device = next(network.parameters()).device
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=how.rate, weight_decay=how.decay, fused=True)
        self.step, self.kept, self.choosing = 0, 0, choosing
        self.looks: list[Look] = []
        self.best: dict[str, Tensor] = {}

    # Order

    @property
    def _batches(self) -> int:
        """Updates in a pass over the data."""
        return math.ceil(len(self.rows) / self.how.batch)

    def _indices(self) -> Iterator[Int[Tensor, " batch"]]:
        """Rows of each update from the present one on: a function of seed and update."""
        order, shuffled_for = self.rows, -1
        for step in range(self.step, self.how.steps):
            number, place = divmod(step, self._batches)
            if number != shuffled_for:
                chance = torch.Generator().manual_seed(self.seed + 1_000_003 * (number + 1))
                order, shuffled_for = self.rows[torch.randperm(len(self.rows), generator=chance)], number
            yield order[place * self.how.batch : (place + 1) * self.how.batch]

    def _take(self, index: Int[Tensor, " batch"]) -> list[Batch]:
        return [source.take(index) for source in self.objective.sources(self.data)]

    def _stream(self) -> Generator[list[Batch]]:
        """Batches from the present update on, each read while the one before is learned from."""
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for index in self._indices():
                following = reader.submit(self._take, index)
                if coming is not None:
                    yield coming.result()
                coming = following
            if coming is not None:
                yield coming.result()

    # Training

    def resume(self, checkpoint: Path, spec: dict[str, Any]) -> None:
        """Go on from a checkpoint, if there is one; see `load_training`."""
        found = load_training(checkpoint, self.network, self.optimiser, spec=spec)
        if found is not None:
            state, self.best = found
            self.step, self.kept, self.looks = state["step"], state["kept"], [Look(**look) for look in state["looks"]]

    def _save(self, checkpoint: Path, spec: dict[str, Any]) -> None:
        state = {"step": self.step, "kept": self.kept, "looks": [asdict(look) for look in self.looks]}
        save_training(checkpoint, self.network, self.optimiser, best=self.best, spec=spec, state=state)

    def run(self, checkpoint: Path | None, spec: dict[str, Any], *, progress: bool) -> None:
        """Train to the end."""
        if not self.looks:
            self._look()
        with (
            closing(self._stream()) as stream,
            tqdm(total=self.how.steps, initial=self.step, desc="value", disable=not progress, leave=False) as bar,
        ):
            while not self._done:
                self._update(next(stream))
                bar.update()
                if self.step % self.how.check == 0 or self.step == self.how.steps:
                    self._look()
                    if checkpoint is not None:
                        self._save(checkpoint, spec)

    @property
    def _done(self) -> bool:
        if self.step >= self.how.steps:
            return True
        if not self.choosing:
            return False
        errors = [look.error for look in self.looks]
        return len(errors) - 1 - errors.index(min(errors)) >= self.how.patience

    def _update(self, batches: list[Batch]) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.how.rate * self.how.rate_at(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss, _ = self.objective.loss(self.network, [batch.to(self.device) for batch in batches])
        if not torch.isfinite(loss):
            raise LawError(
                f"training: got a loss of {loss.item()} at update {self.step}. Fix: a lower rate, or look at the size "
                "of states and rewards."
            )
        loss.backward()
        self.optimiser.step()
        self.step += 1

    def check(self) -> None:
        """Refuse weights that the last update has thrown out of range: no later loss would show it."""
        if not all(bool(p.isfinite().all()) for p in self.network.parameters()):
            raise LawError(f"training: got weights that are no numbers after update {self.step}. Fix: a lower rate.")

    @torch.no_grad()
    def _look(self) -> None:
        if not len(self.test):
            return
        loss = error = 0.0
        for index in self.test.split(self.how.batch):
            batches = [batch.to(self.device) for batch in self._take(index)]
            own, values = self.objective.loss(self.network, batches)
            loss += len(index) * float(own)
            lengths, rewards = batches[0].lengths, batches[0].rewards
            error += len(index) * float(bellman_loss(values, lengths, rewards, target="monte-carlo"))
        look = Look(self.step, loss / len(self.test), error / int(self.data.lengths[self.test].sum()))
        if self.choosing and all(look.error < earlier.error for earlier in self.looks):
            self.best, self.kept = {n: t.detach().clone() for n, t in self.network.state_dict().items()}, self.step
        self.looks.append(look)
