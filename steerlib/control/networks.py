"""Small networks that laws learn: seeded weights, training with a held-out share, and weights turned into buffers.

Knows modules and tensors; knows nothing about plants or laws. Networks are trained on the CPU, so that the same data
and seed give the same weights wherever the law then runs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from steerlib.errors import LawError

Network = TypeVar("Network", bound=nn.Module)
Schedule = Literal["linear", "cosine"]
#: Loss of some rows of the data; the flag says whether they are held out, where chance must not decide.
Loss = Callable[[Int[Tensor, " rows"], bool], Float[Tensor, ""]]


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    Attributes:
        steps: most updates.
        batch: rows of an update.
        rate: highest learning rate of AdamW, without weight decay unless said otherwise.
        warm_up: updates until it is reached, from zero.
        schedule: how it falls afterwards, to zero at the last update: along a line or a half cosine.
        floor: share of the rate below which it does not fall.
        decay: weight decay of AdamW.
        held_out: share of the rows that is never trained on; 0 trains on all and keeps the last weights.
        check: updates between two looks at the held-out rows.
        patience: looks without improvement after which training stops.
    """

    steps: int
    batch: int
    rate: float
    warm_up: int = 0
    schedule: Schedule = "cosine"
    floor: float = 0.0
    decay: float = 0.0
    held_out: float = 0.1
    check: int = 50
    patience: int = 10

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            LawError: if a number is out of its range.
        """
        wrong = [
            ("steps", self.steps, self.steps >= 1, "at least 1"),
            ("batch", self.batch, self.batch >= 1, "at least 1"),
            ("rate", self.rate, 0 < self.rate < math.inf, "a positive number"),
            ("held_out", self.held_out, 0 <= self.held_out < 1, "a share in [0, 1)"),
        ]
        for name, got, fine, expected in wrong:
            if not fine:
                raise LawError(f"{name}: got {got}, expected {expected}.")

    def rows_aside(self, rows: int) -> int:
        """How many of the rows are held out; of fewer than 10 none."""
        return round(self.held_out * rows) if rows >= 10 else 0

    def rate_at(self, step: int) -> float:
        """Learning rate of an update, as a share of the highest."""
        if step < self.warm_up:
            return step / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return max(self.floor, 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)


@dataclass(frozen=True)
class History:
    """What training did.

    Attributes:
        steps: updates made.
        kept: update whose weights were kept.
        held_out: loss on the held-out rows at each look, the first before training; empty if none were held out.
    """

    steps: int
    kept: int
    held_out: tuple[float, ...]


@torch.inference_mode(False)
def seeded(build: Callable[[], Network], *, seed: int) -> Network:
    """A network with torch's usual initial weights (uniform, by fan-in), drawn without touching the global state."""
    with torch.device("meta"):
        network = build()
    network = network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for part in network.modules():
        if isinstance(part, nn.Linear):
            bound = 1 / math.sqrt(part.in_features)
            for tensor in part.parameters(recurse=False):
                nn.init.uniform_(tensor, -bound, bound, generator=generator)
        elif list(part.parameters(recurse=False)):
            raise TypeError(f"seeded: got a layer {type(part).__name__} with weights, expected linear layers only.")
    return network


def frozen(network: Network) -> Network:
    """The same network with buffers in place of parameters: saved with a law, never trained, free of gradients."""
    for part in network.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())
    return network


def train(network: nn.Module, loss: Loss, *, rows: int, how: Training, seed: int) -> History:
    """Train a network in place and leave the weights that were best on the held-out rows.

    Args:
        network: with float32 parameters on the CPU.
        loss: of some rows of the data, as `Loss`.
        rows: how many there are.
        how: see `Training`.
        seed: which rows are held out, and the order of the others.

    Raises:
        LawError: if the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(rows, generator=generator)
    aside = how.rows_aside(rows)
    test, fit = order[:aside], order[aside:]
    optimiser = torch.optim.AdamW(network.parameters(), lr=how.rate, weight_decay=how.decay, fused=True)
    falling = torch.optim.lr_scheduler.LambdaLR(optimiser, how.rate_at)
    seen, best, kept, step = [], copy.deepcopy(network.state_dict()), 0, 0

    def look() -> bool:
        """Whether to go on."""
        nonlocal best, kept
        if not aside:
            return True
        with torch.no_grad():
            seen.append(float(loss(test, True)))
        if seen[-1] == min(seen) and seen.index(seen[-1]) == len(seen) - 1:
            best, kept = copy.deepcopy(network.state_dict()), step
        return len(seen) - 1 - seen.index(min(seen)) < how.patience

    # Whoever calls may have switched gradients off, or be under inference mode.
    with torch.inference_mode(False), torch.enable_grad():
        going = look()
        while going and step < how.steps:
            for batch in fit[torch.randperm(len(fit), generator=generator)].split(how.batch):
                optimiser.zero_grad(set_to_none=True)
                value = loss(batch, False)
                if not torch.isfinite(value):
                    raise LawError(
                        f"training: got a loss of {value.item()} at update {step}. Fix: a lower rate, or look at the "
                        "size of the states."
                    )
                value.backward()
                optimiser.step()
                falling.step()
                step += 1
                if step % how.check == 0 or step == how.steps:
                    going = look()
                if not going or step == how.steps:
                    break
        if aside:
            network.load_state_dict(best)
    return History(step, kept if aside else step, tuple(seen))
