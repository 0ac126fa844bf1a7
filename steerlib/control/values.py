"""Fitting a value network to trajectories: batches from memory or disk, checkpoints, and what the fit has learned.

The order of the batches depends on the seed and the update alone, so that a fit that was killed goes on from its
checkpoint and ends with the same weights, bit for bit, as one that was not. Memory holds the network, its moments and
two batches: the next one is read while one is learned from.

The weights of the last update are kept, as in RE-Control's paper and code. A Bellman loss cannot choose between weights
in their place: on held-out trajectories it measures how far V agrees with itself, and a constant does so perfectly but
for the end. What can be compared between targets is the squared error against the rewards, which every look records;
`keep="best"` chooses by it.

Knows tensors, files and modules; knows nothing about plants or laws.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from steerlib.control.bellman import Target, ValueNetwork, bellman_loss, check_target, padded, within
from steerlib.control.checkpoints import load_training, save_training
from steerlib.control.networks import Training, frozen, seeded
from steerlib.control.rollouts import Batch, Trajectories
from steerlib.errors import ContrastError, LawError

Keep = Literal["last", "best"]
FORMAT = "steerlib-value-fit/1"
#: RE-Control's settings: trajectories in an update, rate of Adam, passes over the data.
BATCH, RATE, PASSES = 512, 1e-4, 100


def paper_training(rows: int, *, passes: int = PASSES, rate: float = RATE, held_out: float = 0.0) -> Training:
    """How RE-Control trains: Adam at a constant rate, 100 passes in batches of 512, the last weights kept.

    Args:
        rows: trajectories there are.
        passes: over the data.
        rate: of Adam (the released code's manual: 1e-3 for Llama-3 on SHP).
        held_out: share that is looked at and not trained on; none in the released code.
    """
    how = Training(steps=1, batch=BATCH, rate=rate, floor=1.0, held_out=held_out)
    return replace(how, steps=passes * math.ceil((rows - how.rows_aside(rows)) / BATCH))


@dataclass(frozen=True)
class Look:
    """What was seen of the held-out trajectories at an update.

    Attributes:
        step: updates made before.
        loss: of the target that is trained to.
        error: mean squared distance of V_t from the reward, over all states; the variance of the rewards, weighed by
            length, is what a constant gets.
    """

    step: int
    loss: float
    error: float


@dataclass(frozen=True)
class ValueHistory:
    """What training did.

    Attributes:
        steps: updates made.
        kept: update whose weights were kept.
        looks: at the held-out trajectories, the first before training; empty if none were held out.
    """

    steps: int
    kept: int
    looks: tuple[Look, ...]


@dataclass(frozen=True)
class Fitted:
    """A fitted value.

    Attributes:
        network: frozen, in float32 on the CPU.
        history: what training did.
        target: what it was trained to.
        held_out: trajectories it was not trained on.
    """

    network: ValueNetwork
    history: ValueHistory
    target: Target
    held_out: Int[Tensor, " rows"]

    def predict(
        self, trajectories: Trajectories, index: Int[Tensor, " rows"] | None = None, *, batch_size: int = 512
    ) -> Float[Tensor, "rows time"]:
        """V of every state of some trajectories, NaN after the end; "prompt-only" says the same at every state.

        Args:
            trajectories: of the network's width.
            index: which; all by default.
            batch_size: trajectories at a time.
        """
        chosen = torch.arange(len(trajectories)) if index is None else index
        found = torch.full((len(chosen), int(trajectories.lengths[chosen].max())), torch.nan)
        with torch.inference_mode():
            for start in range(0, len(chosen), batch_size):
                batch = trajectories.take(chosen[start : start + batch_size])
                values = _values(self.network, batch, self.target).float()
                real = within(batch.lengths, values.shape[1])
                found[start : start + batch_size, : values.shape[1]] = torch.where(real, values, torch.nan)
        return found


def fit_value(
    trajectories: Trajectories | Path | str,
    *,
    target: Target,
    hidden: int,
    layers: int = 2,
    how: Training,
    seed: int,
    lam: float = 0.9,
    keep: Keep = "last",
    precision: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    checkpoint: Path | str | None = None,
    progress: bool = False,
) -> Fitted:
    """Train a value network.

    Args:
        trajectories: what to learn from, or the folder that holds it.
        target: what each value is drawn to; see `steerlib.control.bellman`.
        hidden: numbers in an inner layer.
        layers: linear layers, 2 or 3.
        how: batches, rate and length of training; a batch counts trajectories. See `paper_training`.
        seed: of weights, held-out trajectories and order.
        lam: for "td-lambda".
        keep: the "last" weights, or those that were "best" on the held-out trajectories; then training also stops after
            `how.patience` looks that were no better.
        precision: type of the weights while training; the released code uses bfloat16 throughout.
        device: where to train. Other devices round otherwise.
        checkpoint: file to go on from, written at each look (every `how.check` updates) and at the end.
        progress: show a bar.

    Raises:
        ContrastError: if all rewards are equal: the value would be a constant, and steering by it silently off.
        LawError: if an argument is out of its range, the loss is not finite, or the checkpoint is another fit's.
    """
    data = trajectories if isinstance(trajectories, Trajectories) else Trajectories.open(trajectories)
    check_target(target, lam)
    if data.constant:
        raise ContrastError(
            f"rewards: got {len(data)} that all equal {float(data.rewards[0]):g}, expected some variety: the value "
            "would be the same everywhere and leave every state alone. Fix: other prompts, or a finer reward."
        )
    if keep == "best" and not how.rows_aside(len(data)):
        raise LawError(f"keep='best': got {len(data)} trajectories with none held out. Fix: how.held_out, or 'last'.")
    spec = {
        "format": FORMAT, "data": data.digest, "target": target, "lam": lam if target == "td-lambda" else None,
        "width": data.width, "hidden": hidden, "layers": layers, "seed": seed, "keep": keep,
        "precision": str(precision), **asdict(how),
    }  # fmt: skip
    with torch.inference_mode(False), torch.enable_grad():
        network = seeded(lambda: ValueNetwork(data.width, hidden, layers), seed=seed).to(device, precision)
        fit = _Fit(network, data, target, lam, how, seed, keep)
        if checkpoint is not None:
            fit.resume(Path(checkpoint), spec)
        fit.run(Path(checkpoint) if checkpoint is not None else None, spec, progress=progress)
        fit.check()
        if fit.best:
            network.load_state_dict(fit.best)
    history = ValueHistory(fit.step, fit.kept if keep == "best" else fit.step, tuple(fit.looks))
    return Fitted(frozen(network.float().cpu()), history, target, fit.test)


def _values(network: ValueNetwork, batch: Batch, target: Target) -> Float[Tensor, "batch time"]:
    """V of right-padded rows; with "prompt-only" that of the first state, repeated."""
    if target != "prompt-only":
        return padded(network(batch.states), batch.lengths)
    first = network(batch.states[batch.lengths.cumsum(0) - batch.lengths])
    return first[:, None].expand(-1, int(batch.lengths.max()))


class _Fit:
    """A network in training: where it is, and how it goes on."""

    def __init__(
        self,
        network: ValueNetwork,
        data: Trajectories,
        target: Target,
        lam: float,
        how: Training,
        seed: int,
        keep: Keep,
    ) -> None:
        self.network, self.data, self.how, self.seed = network, data, how, seed
        self.target: Target = target
        self.lam = lam
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        aside = how.rows_aside(len(data))
        self.test, self.rows = order[:aside].sort().values, order[aside:]
        self.device = next(network.parameters()).device
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=how.rate, weight_decay=how.decay, fused=True)
        self.step, self.kept, self.choosing = 0, 0, keep == "best"
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

    def _stream(self) -> Generator[Batch]:
        """Batches from the present update on, each read while the one before is learned from."""
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for index in self._indices():
                following = reader.submit(self.data.take, index)
                if coming is not None:
                    yield coming.result().to(self.device)
                coming = following
            if coming is not None:
                yield coming.result().to(self.device)

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

    def _update(self, batch: Batch) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.how.rate * self.how.rate_at(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        values = _values(self.network, batch, self.target)
        loss = bellman_loss(values, batch.lengths, batch.rewards, target=self.target, lam=self.lam)
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
            batch = self.data.take(index).to(self.device)
            values = _values(self.network, batch, self.target)
            rows = (values, batch.lengths, batch.rewards)
            loss += len(index) * float(bellman_loss(*rows, target=self.target, lam=self.lam))
            error += len(index) * float(bellman_loss(*rows, target="monte-carlo"))
        look = Look(self.step, loss / len(self.test), error / int(self.data.lengths[self.test].sum()))
        if self.choosing and all(look.error < earlier.error for earlier in self.looks):
            self.best, self.kept = {n: t.detach().clone() for n, t in self.network.state_dict().items()}, self.step
        self.looks.append(look)
