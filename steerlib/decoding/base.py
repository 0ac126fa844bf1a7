"""What every decoder offers: answers of a plant, with what they cost; and how a decoder stands where a law stands.

A control law changes states while the plant's own sampling goes on. A decoder leaves states alone and chooses tokens,
answers or prompts instead. Both answer prompts, so that a task can score both: see `answering_by`. A law that is
attached outside acts on every pass that a decoder asks for, so the two also combine.

What an answer costs is counted while it is written (`Cost`), never derived.

Knows plants, prompts and counters; knows nothing about rewards or how tokens are chosen.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, TypeVar

import torch

from steerlib.errors import SteerlibError
from steerlib.generation import Generation
from steerlib.plant import Plant
from steerlib.trajectories import RolloutSampling

CacheKind = Literal["dynamic", "static"]
AnyTask = TypeVar("AnyTask")


class DecodingError(SteerlibError, ValueError):
    """A decoder that cannot be made, or that is asked for what it cannot give."""


@dataclass
class Cost:
    """What answers cost, counted.

    Attributes:
        passes: forward passes of the plant.
        positions: rows times columns of these passes, padding included: tokens that the plant computed.
        answer_tokens: tokens of the answers, end tokens included.
        reward_calls: times that rewards were asked for, each for a whole batch.
        rewards: prefixes or answers that were rewarded.
        reward_positions: rows times columns that a reward model computed, where it is a model of tokens.
        seconds: wall time, from prompts to texts.
    """

    passes: int = 0
    positions: int = 0
    answer_tokens: int = 0
    reward_calls: int = 0
    rewards: int = 0
    reward_positions: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Cost of both."""
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def tokens_per_second(self) -> float:
        """Tokens of answers for each second; 0 where nothing was timed."""
        return self.answer_tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Decoded(Generation):
    """Answers of a decoder, in the order of the prompts.

    Attributes:
        cost: what they cost.
        rewards: what the decoder's own scorer says of each whole answer, where it was asked last; empty where it
            was not.
        nats: KL(decoder | plant) of each answer's choices, summed over its tokens, where the decoder draws tokens from
            a distribution of its own that is known (`ControlledDecoding` at a positive temperature); empty elsewhere.
            Its mean over answers estimates the divergence of whole answers, by the chain rule.
    """

    cost: Cost = field(default_factory=Cost)
    rewards: tuple[float, ...] = ()
    nats: tuple[float, ...] = ()


@dataclass(frozen=True)
class Request(RolloutSampling):
    """What `Decoder.generate` was asked for, besides the prompts.

    Attributes:
        batch_size: see `Decoder.generate`, as for the others.
        cache: likewise.
        asked: likewise.
    """

    batch_size: int = 64
    cache: CacheKind = "dynamic"
    asked: Sequence[str] | None = None

    def of_plant(self, plant: Plant, prompts: Sequence[str], *, times: int = 1) -> Generation:
        """The plant's own answers, so many times as many, all of a prompt in one batch."""
        return plant.generate(
            prompts, max_new_tokens=self.max_new_tokens, seed=self.seed, temperature=self.temperature,
            top_k=self.top_k, top_p=self.top_p, samples=self.samples * times, batch_size=self.batch_size * times,
            cache=self.cache,
        )  # fmt: skip

    def told_to_rewards(self, prompts: Sequence[str], *, times: int = 1) -> list[str]:
        """What rewards are told was asked, once for each answer.

        Raises:
            DecodingError: if there is not one for each prompt.
        """
        if self.asked is not None and len(self.asked) != len(prompts):
            raise DecodingError(f"asked: got {len(self.asked)} for {len(prompts)} prompts, expected one for each.")
        said = self.asked if self.asked is not None else prompts
        return [text for text in said for _ in range(self.samples * times)]


class Decoder(ABC):
    """A way to answer prompts with a plant, in place of the plant's own sampling or around it."""

    def generate(
        self,
        plant: Plant,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        seed: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        samples: int = 1,
        batch_size: int = 64,
        cache: CacheKind = "dynamic",
        asked: Sequence[str] | None = None,
    ) -> Decoded:
        """Answer each prompt.

        Args:
            plant: whose answers; what is attached to it acts.
            prompts: texts.
            max_new_tokens: longest answer, in tokens.
            seed: of the noise, which is that of `Plant.generate` for the same prompt, step and token.
            temperature: 0 for greedy.
            top_k: keep only the k most likely tokens.
            top_p: keep the smallest set of tokens whose probability reaches p.
            samples: answers for each prompt.
            batch_size: prompts at a time; the candidates of each come on top.
            cache: kind of key-value cache.
            asked: what rewards are told was asked, one for each prompt, where the plant is prompted with more than
                that; None for the prompts themselves.

        Raises:
            PlantError: if an argument is out of its range.
            NotFiniteError: if a token was chosen from logits that are no numbers.
            DecodingError: if a reward is no number.
        """
        return self._decode(
            plant,
            prompts,
            Request(
                max_new_tokens=max_new_tokens, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p,
                samples=samples, batch_size=batch_size, cache=cache, asked=asked,
            ),
        )  # fmt: skip

    @abstractmethod
    def _decode(self, plant: Plant, prompts: Sequence[str], how: Request) -> Decoded:
        """Answer each prompt as `generate` was asked to."""


class Plain(Decoder):
    """The plant's own sampling: the row of a table that every other decoder is compared with."""

    def _decode(self, plant: Plant, prompts: Sequence[str], how: Request) -> Decoded:
        """As `Plant.generate`; nobody is told what was asked."""
        with metered(plant) as cost:
            out = how.of_plant(plant, prompts)
        cost.answer_tokens = sum(map(len, out.tokens))
        return Decoded(out.prompts, out.texts, out.tokens, out.seed, cost)


class Prompted(Decoder):
    """Prompting: the plant is told in words what is wanted, before any other decoder goes to work.

    Rewards are still told the bare prompt: what is wanted of an answer does not change with how it is asked for.

    Args:
        instruction: one text that goes before every prompt; or the prompts that are to stand for given ones, as
            `told_prompts` finds them for a task whose world can be told.
        inner: what answers the longer prompts.
    """

    def __init__(self, instruction: str | Mapping[str, str], inner: Decoder | None = None) -> None:
        if not instruction:
            raise DecodingError(
                "instruction: got nothing, expected a text or a mapping of prompts. Fix: leave Prompted out."
            )
        self.instruction, self.inner = instruction, inner if inner is not None else Plain()

    def prompt(self, bare: str) -> str:
        """What the plant is asked in place of a bare prompt.

        Raises:
            DecodingError: if the mapping does not have it.
        """
        if isinstance(self.instruction, str):
            return self.instruction + bare
        if bare not in self.instruction:
            raise DecodingError(
                f"Prompted: got a prompt that the mapping does not have ({bare[-60:]!r}). Fix: told_prompts of the "
                "split that is asked, or one instruction."
            )
        return self.instruction[bare]

    def _decode(self, plant: Plant, prompts: Sequence[str], how: Request) -> Decoded:
        """As the inner decoder, to the longer prompts; `Decoded.prompts` are the bare ones."""
        longer = [self.prompt(prompt) for prompt in prompts]
        out = self.inner._decode(plant, longer, how if how.asked is not None else replace(how, asked=prompts))
        bare = tuple(prompt for prompt in prompts for _ in range(how.samples))
        return Decoded(bare, out.texts, out.tokens, out.seed, out.cost, out.rewards, out.nats)


class _Tellable(Protocol):
    def items(self, split: Any, *, told: bool) -> Sequence[Any]: ...


def told_prompts(task: _Tellable, split: str = "test") -> dict[str, str]:
    """For each bare prompt of a task, the one that says what is wanted: the prompting baseline of its world.

    A prompt that is among the items twice may be told in two wordings; the first stands for both.

    Raises:
        MetricError: if no prompt of the task can say it (`steerlib.tasks.base.NotTellable`).
    """
    found: dict[str, str] = {}
    for bare, told in zip(task.items(split, told=False), task.items(split, told=True), strict=True):
        found.setdefault(bare.text, told.text)
    return found


class _Answering:
    """A plant that answers through a decoder, and is the plant itself in all else."""

    def __init__(self, plant: Plant, decoder: Decoder) -> None:
        self._plant, self._decoder = plant, decoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plant, name)

    def generate(self, prompts: Sequence[str], **how: Any) -> Decoded:
        return self._decoder.generate(self._plant, prompts, **how)


def answering_by(task: AnyTask, decoder: Decoder) -> AnyTask:
    """The task, whose sampled answers are those of a decoder; the task that was handed over is left as it is.

    Exact scores are of the plant's own probabilities, which a decoder does not change.

    Args:
        task: anything with a `plant` that it lets generate, such as a `steerlib.tasks.base.Task`.
        decoder: what answers.

    Raises:
        DecodingError: if the task has no plant.
    """
    if not hasattr(task, "plant"):
        raise DecodingError(f"answering_by: got {type(task).__name__}, expected a task, which has a plant.")
    own = copy.copy(task)
    own.plant = _Answering(own.plant, decoder)  # type: ignore[attr-defined]
    return own


@contextmanager
def metered(plant: Plant) -> Iterator[Cost]:
    """Count the plant's passes, and time them, for as long as a `with` block lasts."""
    cost = Cost()

    def count(_module: Any, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        ids = given["input_ids"] if "input_ids" in given else args[0]
        cost.passes += 1
        cost.positions += ids.numel()

    handle = plant.model.register_forward_pre_hook(count, with_kwargs=True)
    start = _now(plant)
    try:
        yield cost
    finally:
        handle.remove()
        cost.seconds += _now(plant) - start


def _now(plant: Plant) -> float:
    if plant.device.type == "cuda":
        torch.cuda.synchronize(plant.device)
    return time.perf_counter()
