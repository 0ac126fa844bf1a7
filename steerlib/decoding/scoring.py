"""What a beginning of an answer is worth to a decoder: the contract, and rewards of texts.

A decoder walks through answers with k branches for each prompt. A scorer follows it: it reads each branch's tokens as
they come, says what each branch is worth, and is told which branch goes on. `steerlib.decoding.reading` has the scorers
that read tokens or states.

Knows texts, branches and rewards; knows nothing about how candidates are proposed or chosen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlib.actuator import Site
from steerlib.decoding.base import CacheKind, Cost, DecodingError
from steerlib.harvest import Reward
from steerlib.judges.base import BLANK, Judge
from steerlib.plant import Plant, Tokens


@dataclass(frozen=True)
class Job:
    """A batch that is being answered.

    Attributes:
        plant: whose answers.
        batch: the prompts, padded on the left.
        heads: the prompts without padding.
        asked: what rewards are told was asked.
        branches: for each prompt.
        room: most tokens of an answer.
        cache: kind of key-value cache.
        cost: where rewards are counted.
    """

    plant: Plant
    batch: Tokens
    heads: list[list[int]]
    asked: list[str]
    branches: int
    room: int
    cache: CacheKind
    cost: Cost


class Session(ABC):
    """A scorer at work on one batch."""

    @abstractmethod
    def read(
        self,
        tokens: Int[Tensor, "batch branches"],
        live: Bool[Tensor, "batch branches"],
        states: Float[Tensor, "batch branches width"] | None,
    ) -> None:
        """Take in one token more of each live branch, and the plant's state after it where the scorer reads states."""

    @abstractmethod
    def scores(self, live: Bool[Tensor, " batch"]) -> Float[Tensor, "batch branches"]:
        """What each branch is worth as it stands; any finite number in rows whose answer was over before."""

    @abstractmethod
    def keep(self, choice: Int[Tensor, " batch"]) -> None:
        """All branches of each row go on from the chosen one."""


class Scorer(ABC):
    """Says what beginnings of answers are worth.

    Attributes:
        site: where it reads states of the plant; None if it reads none.
    """

    site: Site | None = None

    @abstractmethod
    def begin(self, job: Job) -> Session:
        """Go to work on a batch."""


class TextScorer(Scorer):
    """A reward of texts, asked about every beginning.

    Args:
        reward: from prompts and (beginnings of) answers to one finite number for each; called once for all candidates
            of a batch. What it says of an answer that has not ended is for it to decide.
    """

    def __init__(self, reward: Reward) -> None:
        if not callable(reward):
            raise DecodingError(
                f"reward: got {type(reward).__name__}, expected a function of prompts and answers. Fix: judge_rewards "
                "for a judge, ModelScorer for a reward model."
            )
        self.reward = reward

    def rewards(self, prompts: Sequence[str], answers: Sequence[str], cost: Cost) -> Float[Tensor, " answers"]:
        """Rewards, checked and counted.

        Raises:
            DecodingError: if there are not as many as answers, or one is no finite number.
        """
        cost.reward_calls += 1
        cost.rewards += len(answers)
        return checked(self.reward(prompts, answers), prompts, answers)

    def begin(self, job: Job) -> Session:
        """Decode prompts once."""
        return _TextSession(self, job)


def checked(found: Any, prompts: Sequence[str], answers: Sequence[str]) -> Float[Tensor, " answers"]:
    """Rewards of texts as float32, once it is known that they are one finite number for each.

    Raises:
        DecodingError: names the first text whose reward is none.
    """
    rewards = torch.as_tensor(found).detach().float().cpu()
    if rewards.shape != (len(answers),):
        raise DecodingError(
            f"reward: got shape {tuple(rewards.shape)} for {len(answers)} answers, expected one number for each."
        )
    wrong = (~rewards.isfinite()).nonzero()
    if len(wrong):
        i = int(wrong[0])
        raise DecodingError(
            f"reward: got {float(rewards[i])} for {answers[i][:60]!r}, as an answer to {prompts[i][-60:]!r}. Fix: a "
            "reward that is a finite number for every beginning of an answer, also an empty one."
        )
    return rewards


class _TextSession(Session):
    def __init__(self, scorer: TextScorer, job: Job) -> None:
        self.scorer, self.job = scorer, job
        self.starts = [len(text) for text in self._decode(job.heads)]
        # One column for each step; -1 where the branch was over.
        self.said = torch.empty(len(job.heads), job.branches, 0, dtype=torch.long, device=job.plant.device)

    def _decode(self, rows: list[list[int]]) -> list[str]:
        return self.job.plant.tokenizer.batch_decode(rows, skip_special_tokens=True)

    def read(self, tokens: Tensor, live: Tensor, states: Tensor | None) -> None:  # noqa: ARG002 - reads texts
        self.said = torch.cat([self.said, torch.where(live, tokens, -1)[..., None]], dim=2)

    def scores(self, live: Tensor) -> Tensor:
        job, rows, owners = self.job, [], []
        said = self.said.tolist()
        for i in live.nonzero()[:, 0].tolist():
            for branch in said[i]:
                rows.append([*job.heads[i], *(token for token in branch if token >= 0)])
                owners.append(i)
        # Decoded with the prompt: alone, some tokenizers drop the space an answer begins with.
        answers = [text[self.starts[i] :] for i, text in zip(owners, self._decode(rows), strict=True)]
        found = self.scorer.rewards([job.asked[i] for i in owners], answers, job.cost).to(live.device)
        out = found.new_zeros(len(live), job.branches)
        out[live] = found.reshape(-1, job.branches)
        return out

    def keep(self, choice: Tensor) -> None:
        self.said = kept(self.said, choice)


def judge_rewards(judge: Judge, *, blank: float) -> Reward:
    """The scores of a judge as rewards.

    Args:
        judge: a `steerlib.judges` judge, such as `RewardJudge`.
        blank: what a blank answer is worth, about which no judge is asked: the first candidates may be one.
    """

    def rewards(prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        found = judge.score(prompts, answers)
        other = {place: why for place, why in found.missing.items() if why != BLANK}
        if other:
            place = min(other)
            raise DecodingError(
                f"{judge.name}: gave no score for {answers[place][:60]!r} ({other[place]}). Fix: a judge that scores "
                "every text, for example with too_long='cut'."
            )
        return found.filled(blank)

    return rewards


def kept(held: Tensor, choice: Tensor) -> Tensor:
    """What is held of each branch, once all branches of a row are the chosen one."""
    rows = torch.arange(len(choice), device=choice.device)
    return held[rows, choice][:, None].expand_as(held).clone()


def finite(scores: Float[Tensor, "batch branches"], live: Bool[Tensor, " batch"]) -> Float[Tensor, "batch branches"]:
    """Scores of a model, once it is known that they are finite in live rows; zero in the others.

    Raises:
        DecodingError: names the first candidate whose score is no finite number.
    """
    wrong = (~scores.isfinite() & live[:, None]).nonzero()
    if len(wrong):
        row, branch = wrong[0].tolist()
        raise DecodingError(
            f"scorer: got {float(scores[row, branch])} for candidate {branch} of prompt {row} of the batch, one of "
            f"{len(wrong)} that are no finite numbers. Fix: float32, or look at the scorer's weights."
        )
    return torch.where(live[:, None], scores, 0.0)
