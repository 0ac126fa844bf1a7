"""Values by brute force: an answer is continued many times from the same state, and the rewards are averaged.

That is the value of the whole state of the plant, cache included, under the policy that is attached: what a fitted
value is an estimate of, from the last hidden state alone. It costs as many answers as it has samples.

Knows plants, prompts and rewards as numbers; knows nothing about value networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.errors import ContrastError, PlantError
from steerlib.generation import answer_texts, cut, generate_batch
from steerlib.harvest import Reward, rewards_of
from steerlib.plant import Plant
from steerlib.sampling import GumbelSampler
from steerlib.trajectories import RolloutSampling, answer_ends

#: Added to the seed: the noise of a continuation must not be that of the answer it continues.
_APART = 0x5DEECE66D


@dataclass(frozen=True)
class Continued:
    """Expected rewards.

    Attributes:
        mean: over the continuations of each beginning.
        error: standard error of that mean; 0 for an answer that had ended.
    """

    mean: Float[Tensor, " beginnings"]
    error: Float[Tensor, " beginnings"]


def continued(
    plant: Plant,
    prompts: Sequence[str],
    beginnings: Sequence[Sequence[int]],
    reward: Reward,
    *,
    how: RolloutSampling,
    batch_size: int = 256,
) -> Continued:
    """Expected reward of answers that have begun, under whatever is attached to the plant.

    The state that token t of an answer is drawn from is the one after its first t tokens: its value is that of the
    beginning `tokens[:t]`, and of an empty one for the state at the end of the prompt.

    Args:
        plant: the plant.
        prompts: of each beginning.
        beginnings: tokens of each answer so far, as `Collected.tokens` has them.
        reward: of prompts and whole answers.
        how: how answers are drawn; `max_new_tokens` counts the beginning, too, and `samples`, at least 2, is how many
            continuations each beginning gets.
        batch_size: continuations at a time.

    Raises:
        PlantError: if an argument is out of its range, or a beginning is longer than an answer may be.
        ContrastError: if there are not as many beginnings as prompts, or a reward is no number.
    """
    how.check(batch_size)
    if how.samples < 2 or how.temperature == 0:
        raise PlantError(f"continued: got {how}, expected several samples at a positive temperature.")
    if len(prompts) != len(beginnings):
        raise ContrastError(f"continued: got {len(prompts)} prompts and {len(beginnings)} beginnings.")
    longest = max(map(len, beginnings), default=0)
    if longest > how.max_new_tokens:
        raise PlantError(f"beginnings: got {longest} tokens, expected at most {how.max_new_tokens}: max_new_tokens.")
    ids, stop = plant._ids(prompts), answer_ends(plant)
    answers: list[list[tuple[int, ...]]] = [[] for _ in prompts]
    rows: list[tuple[int, int]] = []  # beginning, and how many tokens are left to it
    for i, start in enumerate(beginnings):
        left = how.max_new_tokens - len(start)
        if left == 0 or (len(start) and start[-1] in stop):
            answers[i] = [tuple(start)]
        else:
            rows += [(i, left)] * how.samples
    # Noise belongs to the place in this list, so that it does not depend on batches; like lengths go together.
    order = sorted(range(len(rows)), key=lambda row: (rows[row][1], len(ids[rows[row][0]])))
    sampling = replace(how, seed=how.seed + _APART)
    for first in range(0, len(order), batch_size):
        index = order[first : first + batch_size]
        whole = [[*ids[rows[row][0]], *beginnings[rows[row][0]]] for row in index]
        for row, tokens in zip(
            index, _drawn(plant, whole, index, max(rows[r][1] for r in index), sampling), strict=True
        ):
            i, left = rows[row]
            answers[i].append((*beginnings[i], *tokens[:left]))
    places = [i for i, found in enumerate(answers) for _ in found]
    owner = torch.tensor(places)
    flat = [tokens for found in answers for tokens in found]
    texts = answer_texts(plant, [ids[i] for i in places], tuple(flat))
    earned = rewards_of(reward, [prompts[i] for i in places], texts)
    counts = torch.bincount(owner, minlength=len(prompts)).double()
    mean = torch.zeros(len(prompts), dtype=torch.float64).index_add(0, owner, earned) / counts
    spread = torch.zeros_like(mean).index_add(0, owner, (earned - mean[owner]).square())
    return Continued(mean, (spread / (counts - 1).clamp(min=1) / counts).sqrt())


def _drawn(
    plant: Plant, whole: list[list[int]], index: list[int], left: int, how: RolloutSampling
) -> list[tuple[int, ...]]:
    batch = plant._pad(whole)
    sampler = GumbelSampler(
        seed=how.seed, rows=torch.tensor(index, device=plant.device), temperature=how.temperature,
        top_k=how.top_k, top_p=how.top_p, prompt_columns=batch.input_ids.shape[1],
    )  # fmt: skip
    return cut(plant, generate_batch(plant, batch, left, sampler, "dynamic", None))
