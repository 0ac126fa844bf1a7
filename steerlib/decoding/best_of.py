"""Best of n: sample n answers, keep the one with the highest reward; and what n buys, from one pool of answers.

Knows samples and rewards of whole answers; knows nothing about how an answer is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from steerlib.decoding.base import Cost, Decoded, Decoder, DecodingError, Request, metered
from steerlib.decoding.scoring import TextScorer
from steerlib.harvest import Reward
from steerlib.plant import Plant


class BestOf(Decoder):
    """The best of n samples of the plant by a reward of texts; of equal rewards the first.

    The j-th sample of a prompt is that of `Plant.generate(samples=n)`, and all n are written in one batch.

    Args:
        reward: from prompts and answers to one finite number for each, or a `TextScorer`.
        n: samples.

    Raises:
        DecodingError: if n is not positive; when it goes to work, at temperature 0, where all samples are the same.
    """

    def __init__(self, reward: Reward | TextScorer, *, n: int) -> None:
        if n < 1:
            raise DecodingError(f"n: got {n}, expected at least one sample.")
        self.scorer, self.n = reward if isinstance(reward, TextScorer) else TextScorer(reward), n

    def _decode(self, plant: Plant, prompts: Sequence[str], how: Request) -> Decoded:
        if how.temperature == 0 and self.n > 1:
            raise DecodingError("temperature: got 0, where all samples are the same. Fix: a positive temperature.")
        said = how.told_to_rewards(prompts, times=self.n)
        with metered(plant) as cost:
            out = how.of_plant(plant, prompts, times=self.n)
            rewards = self.scorer.rewards(said, out.texts, cost).reshape(-1, self.n)
        best = rewards.argmax(1)
        chosen = (torch.arange(len(best)) * self.n + best).tolist()
        texts, tokens = tuple(out.texts[i] for i in chosen), tuple(out.tokens[i] for i in chosen)
        cost.answer_tokens = sum(map(len, tokens))
        earned = tuple(rewards.amax(1).tolist())
        return Decoded(tuple(out.prompts[i] for i in chosen), texts, tokens, how.seed, cost, earned)


def pool_rewards(
    plant: Plant, prompts: Sequence[str], reward: Reward, *, size: int, max_new_tokens: int, seed: int,
    temperature: float = 1.0, batch_size: int = 64,
) -> tuple[Float[np.ndarray, "prompts size"], Cost]:  # fmt: skip
    """Rewards of a pool of samples for each prompt, for `expected_best`; and what the pool cost.

    Args:
        plant: whose answers.
        prompts: texts.
        reward: of whole answers.
        size: samples for each prompt.
        max_new_tokens: longest answer.
        seed: of the noise.
        temperature: positive.
        batch_size: answers at a time.
    """
    if temperature <= 0 or size < 1:
        raise DecodingError(
            f"pool: got size={size} at temperature {temperature}, expected at least one sample at a positive one."
        )
    with metered(plant) as cost:
        out = plant.generate(
            prompts, max_new_tokens=max_new_tokens, seed=seed, temperature=temperature, samples=size,
            batch_size=batch_size,
        )  # fmt: skip
        found = TextScorer(reward).rewards(out.prompts, out.texts, cost)
    cost.answer_tokens = sum(map(len, out.tokens))
    return found.double().numpy().reshape(-1, size), cost


def expected_best(rewards: Float[np.ndarray, "*prompts size"], n: int) -> Float[np.ndarray, "*prompts"]:
    """Expected highest reward of n samples, without bias, from a pool of N >= n samples for each prompt.

    The mean, over all subsets of n of the pool, of their highest reward. With the pool in rising order, reward i
    (from 1) is the highest of C(i - 1, n - 1) of the C(N, n) subsets:

        sum_i  C(i-1, n-1) / C(N, n)  r_(i).

    One pool of N gives the whole curve n = 1 .. N; the points of the curve depend on each other. For n = N it is the
    highest reward of the pool, for n = 1 the mean.

    Args:
        rewards: of each pool.
        n: samples.

    Raises:
        DecodingError: if a pool has fewer than n samples, or a reward is no finite number.
    """
    pool = np.asarray(rewards, dtype=np.float64)
    size = pool.shape[-1] if pool.ndim else 0
    if not 1 <= n <= size:
        raise DecodingError(f"expected_best: got n={n} from a pool of {size}, expected 1 to {size}.")
    if not np.isfinite(pool).all():
        raise DecodingError(f"expected_best: got {int((~np.isfinite(pool)).sum())} rewards that are no finite numbers.")
    # From the highest down: the weight of the highest is n / N, and each is its upper neighbour's times (i-n)/(i-1).
    above = np.arange(size, 1, -1)
    weights = n / size * np.concatenate([[1.0], np.cumprod((above - n).clip(0) / (above - 1))])
    return np.sort(pool, axis=-1)[..., ::-1] @ weights


def best_of_divergence(n: int) -> float:
    """Upper bound on the divergence KL(best of n | plant), in nats: log n - (n - 1) / n.

    Often quoted as its value. It is exact for rewards without ties of answers that are each improbable, and only a
    bound otherwise (Beirami et al. 2024).
    """
    if n < 1:
        raise DecodingError(f"n: got {n}, expected at least one sample.")
    return math.log(n) - (n - 1) / n
