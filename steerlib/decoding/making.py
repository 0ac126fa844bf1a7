"""How a decoder that is written down becomes one that answers: its class, its scorer, and what that is trained on.

A scorer needs a task: the reward of its answers, or answers to train on. `steerlib.registry` says which names there
are; an experiment's cell names one (`steerlib.experiment.decoder_spec`).

Knows names of decoders and scorers, tasks and their rewards. Knows nothing about cells, keys or records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steerlib.control.networks import Training
from steerlib.decoding.base import Cost, Decoded, Decoder, DecodingError, Plain, Prompted, Request
from steerlib.decoding.best_of import BestOf
from steerlib.decoding.controlled import Blockwise, ControlledDecoding
from steerlib.decoding.prefix import METHODS, Method, prefix_states, state_scorer
from steerlib.decoding.reading import StateScorer
from steerlib.decoding.scoring import Scorer, TextScorer
from steerlib.errors import unknown
from steerlib.plant import Plant
from steerlib.tasks.base import Task
from steerlib.tasks.rewarding import answering, reward_among

#: What a decoder with a scorer is made by: the scorer, and the options that were written down.
_SCORED: dict[str, Callable[..., Decoder]] = {
    "cd": ControlledDecoding,
    "cd-prefix": ControlledDecoding,
    "blockwise": Blockwise,
    "best-of-n": BestOf,
}


@dataclass(frozen=True)
class PrefixTraining:
    """How a prefix scorer on states of the plant is trained, as `steerlib.laws.value.ReControl` trains its value.

    Attributes:
        hidden: numbers in an inner layer; None for as many as the state is wide.
        layers: linear layers, 2 or 3.
        passes: over the answers.
        batch: answers of an update.
        rate: of Adam, constant.
    """

    hidden: int | None = None
    layers: int = 2
    passes: int = 50
    batch: int = 64
    rate: float = 1e-3


def decoder(
    name: str, *, options: Mapping[str, Any], scorer: Scorer | None = None, inner: Decoder | None = None
) -> Decoder:
    """A decoder by name.

    Args:
        name: see `steerlib.registry.DECODERS`.
        options: arguments of its constructor.
        scorer: of a decoder that chooses.
        inner: of "prompted".

    Raises:
        DecodingError: unknown name, or options that it does not take.
    """
    try:
        if name == "plain":
            return Plain(**options)
        if name == "prompted":
            return Prompted(**options, inner=inner)
        if name in _SCORED:
            return _SCORED[name](scorer, **options)
    except TypeError as error:
        raise DecodingError(f"decoder {name!r} does not take the options {dict(options)}: {error}") from error
    raise DecodingError(f"decoder: {unknown('decoder', name, ('plain', 'prompted', *_SCORED))}")


def reward_scorer(task: Task, items: Sequence[Any]) -> TextScorer:
    """The task's own reward of answers to these prompts, and of beginnings of answers.

    Args:
        task: see `steerlib.tasks.rewarding.reward_among`.
        items: its prompts, as they will be asked.
    """
    return TextScorer(reward_among(task, items))


def trained_scorer(task: Task, name: str, *, n: int, seed: int, options: Mapping[str, Any]) -> StateScorer:
    """A prefix scorer, trained on answers of the unsteered plant to prompts of the task.

    Args:
        task: see `steerlib.tasks.rewarding.answering`.
        name: "fudge" or "cd-q"; see `steerlib.decoding.prefix`.
        n: answers, at most one for each prompt.
        seed: of the answers, of weights and of order.
        options: those of `PrefixTraining` that are not to be the default.

    Raises:
        DecodingError: unknown name, or options that it does not take.
        ContrastError: if the task samples no answers, or nobody rewards one of them.
        PlantError: if a law is attached.
    """
    if name not in METHODS:
        raise DecodingError(f"scorer: {unknown('scorer', name, METHODS)}")
    method: Method = "fudge" if name == "fudge" else "cd-q"
    try:
        given = PrefixTraining(**options)
    except TypeError as error:
        raise DecodingError(f"scorer {name!r} does not take the options {dict(options)}: {error}") from error
    items, how, earned = answering(task, n=n, seed=seed)

    def reward(_prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        return earned(items, texts)

    plant: Plant = task.plant
    prefixes = prefix_states(
        plant, [item.text for item in items], reward, how=how, rewarded_by=f"{task.name}: {task.labels.wanted}",
        shard=len(items),  # the reward then sees all answers, in order
    )  # fmt: skip
    updates = given.passes * math.ceil(len(prefixes) / given.batch)
    return state_scorer(
        prefixes, method=method, hidden=given.hidden or prefixes.width, layers=given.layers, seed=seed,
        how=Training(steps=updates, batch=given.batch, rate=given.rate, floor=1.0, held_out=0.0),
    )  # fmt: skip


class Tallied(Decoder):
    """A decoder that adds up what its answers cost.

    Args:
        inner: what answers.

    Attributes:
        cost: of all answers so far.
    """

    def __init__(self, inner: Decoder) -> None:
        """Nothing has been answered yet."""
        self.inner, self.cost = inner, Cost()

    def _decode(self, plant: Plant, prompts: Sequence[str], how: Request) -> Decoded:
        out = self.inner._decode(plant, prompts, how)
        self.cost = self.cost + out.cost
        return out
