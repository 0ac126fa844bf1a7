"""Walking through the answers of a batch with several branches for each prompt: noise, passes, back to texts.

Knows the plant's branches, its noise and where answers end; knows nothing about how a branch is chosen.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlib.actuator import Actuator, Scope
from steerlib.decoding.base import CacheKind, Decoded, Decoder, DecodingError, Request, metered
from steerlib.decoding.branches import Branches, last_logits
from steerlib.decoding.scoring import Job, Scorer
from steerlib.finite import not_finite, not_numbers
from steerlib.generation import _ends as answer_ends
from steerlib.generation import answer_texts, cut
from steerlib.harvest import Tap
from steerlib.plant import Plant
from steerlib.sampling import truncate, uniforms


@dataclass(frozen=True)
class Draw:
    """How tokens are drawn; see `Decoder.generate`."""

    seed: int
    temperature: float
    top_k: int | None
    top_p: float | None

    def kept(self, logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows vocabulary"]:
        """Logits at the temperature, those of tokens that are ruled out minus infinity."""
        scaled = logits / self.temperature if self.temperature > 0 else logits
        return truncate(scaled, top_k=self.top_k, top_p=self.top_p)

    def gumbel(self, rows: Int[Tensor, " rows"], step: int, columns: int) -> Float[Tensor, "rows columns"]:
        """The noise of `steerlib.sampling`."""
        return -torch.log(-torch.log(uniforms(self.seed, rows, step, columns)))


class Walked(NamedTuple):
    """Answers to a batch.

    Attributes:
        tokens: of each, padded on the right.
        scores: the last score of each.
        nats: divergence of the choices from the plant's own draws, summed over the tokens of each; None if not known.
    """

    tokens: Int[Tensor, "batch new"]
    scores: Float[Tensor, " batch"]
    nats: Float[Tensor, " batch"] | None = None


class Walking(Decoder):
    """A decoder that walks through the answers of a batch with several branches for each prompt."""

    scorer: Scorer
    k: int

    def _decode(self, plant: Plant, prompts: Sequence[str], how: Request) -> Decoded:
        how.check(how.batch_size, how.cache)
        if how.cache not in get_args(CacheKind):
            raise DecodingError(
                f"cache: got {how.cache!r}, expected dynamic or static: candidates share what was read."
            )
        said = how.told_to_rewards(prompts)
        draw = Draw(how.seed, self._temperature(how.temperature), how.top_k, how.top_p)
        with metered(plant) as cost:
            rows = [row for row in plant._ids(prompts) for _ in range(how.samples)]
            order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
            tokens: list[tuple[int, ...]] = [()] * len(rows)
            rewards, nats = [0.0] * len(rows), [math.nan] * len(rows)
            for start in range(0, len(order), how.batch_size):
                index = order[start : start + how.batch_size]
                heads = [rows[i] for i in index]
                job = Job(
                    plant, plant._pad(heads), heads, [said[i] for i in index], self._branches(plant),
                    how.max_new_tokens, how.cache, cost,
                )  # fmt: skip
                with torch.inference_mode(), plant.passing(prompt_lengths=None):
                    walked = self._answer(job, draw, torch.tensor(index, device=plant.device))
                spent = [math.nan] * len(index) if walked.nats is None else walked.nats.tolist()
                columns = (cut(plant, walked.tokens), walked.scores.tolist(), spent)
                for i, row, reward, cost_of in zip(index, *columns, strict=True):
                    tokens[i], rewards[i], nats[i] = row, reward, cost_of
            texts = answer_texts(plant, rows, tuple(tokens))
        cost.answer_tokens = sum(map(len, tokens))
        bare = tuple(prompt for prompt in prompts for _ in range(how.samples))
        known = () if any(map(math.isnan, nats)) else tuple(nats)
        return Decoded(bare, texts, tuple(tokens), how.seed, cost, tuple(rewards), known)

    def _temperature(self, asked: float) -> float:
        return asked

    def _branches(self, plant: Plant) -> int:  # noqa: ARG002 - of any plant
        return self.k

    @abstractmethod
    def _answer(self, job: Job, draw: Draw, rows: Int[Tensor, " batch"]) -> Walked:
        """The answers to a batch, whose rows have these numbers."""


class Reader:
    """The plant's branches, with a tap where the scorer reads states."""

    def __init__(self, job: Job, scorer: Scorer, branches: int, attached: ExitStack) -> None:
        plant = job.plant
        self.tap = Tap(whole=False) if scorer.site is not None else None
        if self.tap is not None and scorer.site is not None:
            site = scorer.site.resolve(plant.depth)
            attached.enter_context(Actuator(plant.wiring, [(site, self.tap, Scope("all"))]))
        remembers = any(getattr(law, "sees_pass", False) for _, law in plant.wiring.attached())
        self.walk = Branches(
            plant.model, last_logits, job.batch.input_ids, job.batch.attention_mask,
            branches=branches, room=job.room, cache=job.cache, together=remembers,
        )  # fmt: skip

    def step(self, tokens: Int[Tensor, "batch branches"]) -> tuple[Tensor, Tensor | None]:
        """Logits after each token, and states where they are read."""
        if self.tap is not None:
            self.tap.seen.clear()
        logits = self.walk.step(tokens)
        states = self.tap.seen[-1].reshape(*tokens.shape, -1) if self.tap is not None else None
        return logits, states


def ends_of(job: Job) -> Int[Tensor, " ends"]:
    """Tokens that end an answer, where the plant is."""
    return torch.tensor(sorted(answer_ends(job.plant)), dtype=torch.long, device=job.plant.device)


def at(held: Tensor, choice: Int[Tensor, " batch"]) -> Tensor:
    """What belongs to the chosen branch of each row."""
    return held[torch.arange(len(choice), device=choice.device), choice]


def refuse_no_numbers(job: Job, logits: Tensor, live: Bool[Tensor, "*rows"], step: int) -> None:
    """Refuse to choose from logits that are no numbers, with a NotFiniteError that says what is attached."""
    broken = not_numbers(logits) & live
    if bool(broken.any()):
        raise not_finite(job.plant, f"decoding: {int(broken.sum())} branches at token {step}")
