"""Fitting a value network to trajectories: with which target, for how long, and what came of it.

The weights of the last update are kept, as in RE-Control's paper and code. A Bellman loss cannot choose between weights
in their place: on held-out trajectories it measures how far V agrees with itself, and a constant does so perfectly but
for the end. What can be compared between targets is the squared error against the rewards, which every look records;
`keep="best"` chooses by it.

Knows tensors, files and modules; knows nothing about plants or laws.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlib.control.bellman import Target, ValueNetwork, check_target, within
from steerlib.control.networks import Training, frozen, seeded
from steerlib.control.rollouts import Trajectories
from steerlib.control.value_training import Look, Objective, Pairs, ValueTraining, row_values
from steerlib.errors import ContrastError, LawError

__all__ = ["Fitted", "Keep", "Look", "Pairs", "ValueHistory", "fit_value", "paper_training"]

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
                values = row_values(self.network, batch, self.target).float()
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
    pairs: Pairs | None = None,
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
        pairs: preferences in the loss beside the target; beyond the paper.
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
    if pairs is not None:
        _check_pairs(pairs, data)
    spec = {
        "format": FORMAT, "data": data.digest, "target": target, "lam": lam if target == "td-lambda" else None,
        "pairs": [pairs.preferred.digest, pairs.rejected.digest, pairs.weight, pairs.pull] if pairs else None,
        "width": data.width, "hidden": hidden, "layers": layers, "seed": seed, "keep": keep,
        "precision": str(precision), **asdict(how),
    }  # fmt: skip
    file = Path(checkpoint) if checkpoint is not None else None
    with torch.inference_mode(False), torch.enable_grad():
        network = seeded(lambda: ValueNetwork(data.width, hidden, layers), seed=seed).to(device, precision)
        fit = ValueTraining(network, data, Objective(target, lam, pairs), how, seed=seed, choosing=keep == "best")
        if file is not None:
            fit.resume(file, spec)
        fit.run(file, spec, progress=progress)
        fit.check()
        if fit.best:
            network.load_state_dict(fit.best)
    history = ValueHistory(fit.step, fit.kept if keep == "best" else fit.step, tuple(fit.looks))
    return Fitted(frozen(network.float().cpu()), history, target, fit.test)


def _check_pairs(pairs: Pairs, data: Trajectories) -> None:
    for name, side in (("preferred", pairs.preferred), ("rejected", pairs.rejected)):
        if (len(side), side.width) != (len(data), data.width):
            raise ContrastError(
                f"pairs: got {len(side)} {name} answers of width {side.width} beside {len(data)} trajectories of width "
                f"{data.width}, expected one to each, of the same plant and site."
            )
