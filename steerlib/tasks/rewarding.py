"""What answers of a plant earn on a task, with the states they passed through: what values are learned from.

Knows how a task samples, cuts and scores answers. Knows nothing about values or laws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from steerlib.actuator import Site
from steerlib.control.rollouts import Trajectories
from steerlib.errors import ContrastError
from steerlib.harvest import Reward
from steerlib.laws.base import LawHeader
from steerlib.laws.rewarded import Rewarded
from steerlib.plant import Plant
from steerlib.tasks.base import Task, spread
from steerlib.tasks.grammar import GrammarTask
from steerlib.tasks.helpfulness import Helpfulness
from steerlib.tasks.real.base import RealTask, cut
from steerlib.trajectories import RolloutSampling, collect

#: What answers earn, NaN where nobody gave a reward: (the task's prompts, sampled texts) -> rewards.
Earned = Callable[[Sequence[Any], Sequence[str]], Float[np.ndarray, " answers"]]


def answering(task: Task, *, n: int, seed: int) -> tuple[list[Any], RolloutSampling, Earned]:
    """How a task lets its plant answer, and what an answer earns.

    The reward is the one that the task reports for sampled answers; where it reports none (truth, toxicity) it is the
    wanted score, 0 or 1 by an oracle. Texts are cut before they are rewarded as the task cuts them; the states of what
    was cut off stay, as in RE-Control's released code.

    Args:
        task: whose prompts, of the split that laws are fitted on.
        n: at most so many prompts.
        seed: of the answers.

    Returns:
        Items of the task, the settings of its samples, and its reward.

    Raises:
        ContrastError: if the task does not sample answers of its own, or n is below one.
    """
    if n < 1:
        raise ContrastError(f"n: got {n}, expected at least one prompt.")
    if isinstance(task, GrammarTask):
        how = RolloutSampling(task.answer_tokens, seed)
        items: Sequence[Any] = (
            # A held-out family is one that nothing is fitted on.
            task.world.wishes("fit", harmful=task.harmful, held_out=False, n=n)
            if isinstance(task, Helpfulness)
            else task.items("fit")
        )
    elif isinstance(task, RealTask):
        task.ready()
        settings = task.settings
        how = RolloutSampling(settings.max_new_tokens, seed, temperature=settings.temperature, top_p=settings.top_p)
        items = task.items("fit")
    else:
        raise _no_answers(task)
    return spread(items, n), how, _earned_on(task)


def reward_among(task: Task, items: Sequence[Any]) -> Reward:
    """The reward of a task as a function of texts, for decoders that ask it about answers and their beginnings.

    Args:
        task: see `answering`.
        items: the prompts that will be asked, as the task has them: what an answer earns depends on more than words.

    Returns:
        A function of prompts and answers. It raises ContrastError for a prompt that is not among the items.

    Raises:
        ContrastError: if the task does not sample answers of its own.
    """
    earned, known = _earned_on(task), {item.text: item for item in items}

    def reward(prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " answers"]:
        if lacking := [prompt for prompt in prompts if prompt not in known]:
            raise ContrastError(
                f"{task.name}: got a prompt that is not among the {len(items)} whose answers are rewarded "
                f"({lacking[0][-60:]!r}). Fix: reward_among the prompts that are asked."
            )
        return earned([known[prompt] for prompt in prompts], answers)

    return reward


def _earned_on(task: Task) -> Earned:
    """What answers earn on a task, once they are cut as it cuts them."""
    if isinstance(task, GrammarTask):
        kept: Callable[[str], str] = (lambda text: text.partition("\n")[0]) if task.first_line else str
    elif isinstance(task, RealTask):
        stop = task.settings.stop
        kept = lambda text: cut(text, stop)  # noqa: E731 - as above
    else:
        raise _no_answers(task)
    if isinstance(task, Helpfulness):  # its reward is asked about every beginning, and the rest of a verdict is not
        return lambda asked, texts: task.rewards(asked, [kept(text) for text in texts])

    def earned(asked: Sequence[Any], texts: Sequence[str]) -> Float[np.ndarray, " answers"]:
        scores = task.verdicts(asked, [kept(text) for text in texts])
        rewards = np.array(scores.more.get("reward", scores.wanted), dtype=np.float64)
        if "reward" not in scores.more:
            rewards[list(scores.missing)] = np.nan
        return rewards

    return earned


def _no_answers(task: Task) -> ContrastError:
    return ContrastError(f"{task.name}: this task samples no answers that could be rewarded. Fix: another task.")


def rewarded_answers(task: Task, site: Site, *, n: int, seed: int, scope: str = "generated") -> Rewarded:
    """Let the unsteered plant answer a task's prompts once each; answers that nobody rewarded are left out.

    Args:
        task: see `answering`.
        site: where the states are taken.
        n: at most so many prompts.
        seed: of the answers.
        scope: name of the token scope that the law is meant for.

    Raises:
        ContrastError: if no answer has a reward, or the task samples none.
        PlantError: if a law is attached.
    """
    items, how, earned = answering(task, n=n, seed=seed)
    return rewarded_texts(
        task.plant, [item.text for item in items], lambda texts: earned(items, texts), how=how,
        named=f"{task.name}: {task.labels.wanted}", site=site, scope=scope,
    )  # fmt: skip


def rewarded_texts(
    plant: Plant,
    prompts: Sequence[str],
    earned: Callable[[Sequence[str]], Float[np.ndarray, " answers"]],
    *,
    how: RolloutSampling,
    named: str,
    site: Site,
    scope: str = "generated",
) -> Rewarded:
    """Let the unsteered plant answer prompts of one's own, and keep what a law of value needs.

    Args:
        plant: with nothing attached.
        prompts: texts.
        earned: rewards of the answers, in the order of the prompts; NaN where nobody gave one.
        how: how answers are drawn.
        named: name of the reward, for the header's hash.
        site: where the states are taken.
        scope: name of the token scope that the law is meant for.

    Raises:
        ContrastError: if no answer has a reward.
        PlantError: if a law is attached.
    """
    site, missing = site.resolve(plant.depth), []

    def reward(_prompts: Sequence[str], texts: Sequence[str]) -> Float[np.ndarray, " answers"]:
        rewards = earned(texts)
        missing.extend(np.flatnonzero(np.isnan(rewards)).tolist())
        return np.nan_to_num(rewards, posinf=np.inf, neginf=-np.inf)

    # One shard: the reward then sees all answers, in order.
    whole = collect(plant, prompts, reward, how=how, rewarded_by=named, site=site, shard=len(prompts))
    if len(missing) == len(prompts):
        raise ContrastError(f"{named}: none of {len(prompts)} answers has a reward. Fix: look at the judge.")
    digest = hashlib.sha256("\0".join([*prompts, str(how), named, whole.digest]).encode()).hexdigest()
    header = LawHeader(
        layer=site.layer, point=site.point, scope=scope, plant=plant.name, weight_hash=plant.weight_hash,
        width=whole.width, data_hash=digest, seed=how.seed,
    )  # fmt: skip
    return Rewarded(_without(whole, missing), header)


def _without(whole: Trajectories, missing: Sequence[int]) -> Trajectories:
    """All trajectories but some."""
    if not missing:
        return whole
    batch = whole.take(torch.tensor([i for i in range(len(whole)) if i not in set(missing)]))
    return Trajectories([batch.states], batch.lengths, batch.rewards)
