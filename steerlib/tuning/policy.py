"""Proximal policy optimisation: an adapter that raises a reward of whole answers.

Schulman et al. 2017, as TRL writes it for language models (Ziegler et al. 2019): the plant answers, an answer's reward
less the cost of moving away from the plant is spread over its tokens by a critic, and the policy follows.

The critic reads the last states of the plant without its adapter, the states that RE-Control's value reads, through
two layers of its own. It begins at zero, and the mean reward of the first batch is taken off all rewards, so that a
constant, which changes no policy that is best, is nothing that the critic must learn first. TRL scales advantages to
variance 1 in each batch, however small they are: under a reward that tells no answer from another an adapter wanders
by about its learning rate, and the cost of moving away pulls it back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steerlib.generation import answer_texts
from steerlib.harvest import Reward
from steerlib.plant import Plant
from steerlib.tasks.base import Task
from steerlib.tasks.rewarding import answering, reward_among
from steerlib.tuning.adapters import Lora, Tuned, TuningError, twin
from steerlib.tuning.running import Job, Sitting, Training, arguments, lora_config, run
from steerlib.tuning.trainers import end_token, extra, padded_tokenizer

BASELINE = "baseline"
CRITIC_WIDTH = 64


def ppo(
    plant: Plant,
    prompts: Sequence[str],
    reward: Reward,
    *,
    folder: str | Path,
    max_new_tokens: int,
    lora: Lora | None = None,
    how: Training | None = None,
    temperature: float = 1.0,
    kl: float = 0.05,
    epochs: int = 4,
    reward_name: str = "reward",
) -> Tuned:
    """Tune a plant to earn a reward.

    Where a plant has no token to pad with but its end token, TRL takes the end of an answer for padding, and when to
    stop is not learned.

    Args:
        plant: stays as it is.
        prompts: texts; each batch is answered anew, and all are asked before one is asked again.
        reward: from prompts and answers (up to their end, without special tokens) to one finite number for each.
        folder: see `dpo`.
        max_new_tokens: longest answer, in tokens.
        lora: shape of the adapter.
        how: of training; a step is a batch of answers.
        temperature: at which answers are sampled, above 0.
        kl: cost of a nat by which an answer is likelier than under the plant.
        epochs: how often each batch is learned from.
        reward_name: what decides, besides the texts, whether a folder holds the same run.

    Returns:
        The tuned plant. Its history has, for each batch, `objective/scores` (mean reward, less that of the first
        batch), `objective/kl` (nats of an answer) and `objective/entropy`.

    Raises:
        TuningError: no prompts, a number out of its range, rewards that are no finite numbers or not one for each
            answer, no such target module, or see `steerlib.tuning.running.run`.
        PlantError: a prompt is too long.

    Source: RE-Control's comparator (Kong et al. 2024, section 6); its settings are not known here.
    """
    lora, how, folder = lora or Lora(), how or Training(), Path(folder)
    if not prompts:
        raise TuningError("ppo: got no prompts, expected at least one. Fix: task_reward(task, n=...).")
    if not temperature > 0 or kl < 0 or epochs < 1 or max_new_tokens < 1:
        raise TuningError(
            f"ppo: got temperature={temperature}, kl={kl}, epochs={epochs}, max_new_tokens={max_new_tokens}; expected "
            "a temperature above 0, a cost that is not negative, and the others at least 1."
        )
    heads = plant._ids(prompts)
    limit = plant.context_length
    if limit is not None and max(map(len, heads)) + max_new_tokens > limit:
        raise TuningError(
            f"ppo: a prompt of {max(map(len, heads))} tokens and {max_new_tokens} new ones are more than the {limit} "
            f"that {plant.name} reads. Fix: shorter prompts or answers."
        )
    data = [list(prompts), max_new_tokens, temperature, kl, epochs, reward_name]
    job = Job("ppo", plant, lora, how, data, len(prompts), folder)
    lora.modules(plant)  # refused here, before anything is imported
    stop, tokenizer = end_token(plant), padded_tokenizer(plant, used={token for head in heads for token in head})

    def sit(sitting: Sitting) -> Any:
        peft, datasets, trl = extra("peft"), extra("datasets"), extra("trl.experimental.ppo")
        policy = peft.get_peft_model(twin(plant), lora_config(job))
        asked = _Asked(prompts, heads, tokenizer)
        settings = trl.PPOConfig(
            **arguments(job, sitting), total_episodes=len(sitting.rows), response_length=max_new_tokens,
            stop_token_id=stop, temperature=temperature, kl_coef=kl, num_ppo_epochs=epochs, num_sample_generations=0,
            local_rollout_forward_batch_size=how.at_once,
        )  # fmt: skip
        trainer = trl.PPOTrainer(
            args=settings, processing_class=tokenizer, model=policy, ref_model=None,
            reward_model=_Rewarding(plant, asked, reward, stop, sitting.numbers),
            value_model=_Critic(policy, plant.width), data_collator=asked,
            train_dataset=datasets.Dataset.from_dict({"row": sitting.rows}),
        )  # fmt: skip
        trainer.accelerator.print = lambda *_: None
        return trainer

    return run(job, sit)


def task_reward(task: Task, *, n: int, seed: int = 0) -> tuple[list[str], Reward, int]:
    """A task's prompts of the split that laws are fitted on, what it pays for an answer, and how long answers are.

    Args:
        task: one that samples answers; see `steerlib.tasks.rewarding.answering`.
        n: at most so many prompts.
        seed: kept with the settings of the task's answers; the prompts are the same for every seed.

    Raises:
        ContrastError: if the task samples no answers.
    """
    items, sampling, _ = answering(task, n=n, seed=seed)
    return [item.text for item in items], reward_among(task, items), sampling.max_new_tokens


class _Asked:
    """Pads prompts, and remembers their order until the answers come back."""

    def __init__(self, prompts: Sequence[str], heads: list[list[int]], tokenizer: Any) -> None:
        self.prompts, self.heads, self.tokenizer = prompts, heads, tokenizer
        self.waiting: deque[int] = deque()

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, Tensor]:
        chosen = [row["row"] for row in rows]
        self.waiting.extend(chosen)
        longest = max(len(self.heads[i]) for i in chosen)
        fill = self.tokenizer.pad_token_id
        return {"input_ids": torch.tensor([[fill] * (longest - len(self.heads[i])) + self.heads[i] for i in chosen])}


class _Scored(nn.Module):
    """What TRL takes for a reward model: a trunk under a name, and a head that reads what the trunk gives last."""

    base_model_prefix = "trunk"

    def __init__(self, trunk: Callable[..., Any], score: nn.Module) -> None:
        super().__init__()
        self.trunk, self.score = trunk, score


class _Critic(_Scored):
    """Two layers on the last states of the plant without its adapter; zero at the beginning."""

    def __init__(self, policy: Any, width: int) -> None:
        last = nn.Linear(CRITIC_WIDTH, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

        def trunk(*, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, **_: Any) -> Any:
            with torch.no_grad(), policy.disable_adapter():
                # The model without its head; its states come after the final norm.
                states = policy.get_base_model().base_model(
                    input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
                )
            return SimpleNamespace(hidden_states=(states.last_hidden_state.float(),))

        super().__init__(trunk, nn.Sequential(nn.Linear(width, CRITIC_WIDTH), nn.ReLU(), last))


class _Rewarding(_Scored):
    """A reward of texts in the place of a reward model: every position of a row holds the reward of its answer."""

    def __init__(self, plant: Plant, asked: _Asked, reward: Reward, stop: int, numbers: dict[str, float]) -> None:
        def trunk(*, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
            rows = [asked.waiting.popleft() for _ in range(len(input_ids))]
            ids = [
                row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True)
            ]  # TRL writes token 0 where the mask is
            heads = [asked.heads[i] for i in rows]
            tails = [tuple(whole[len(head) :]) for whole, head in zip(ids, heads, strict=True)]
            if any(whole[: len(head)] != head for whole, head in zip(ids, heads, strict=True)):
                raise TuningError("ppo: answers came back in another order than prompts were given out.")
            ended = [tail[: tail.index(stop) + 1] if stop in tail else tail for tail in tails]
            prompts = [asked.prompts[i] for i in rows]
            found = _checked(reward(prompts, answer_texts(plant, heads, tuple(ended))), prompts)
            found = found - numbers.setdefault(BASELINE, float(found.mean()))
            spread = torch.tensor(found, dtype=torch.float32, device=input_ids.device)
            return SimpleNamespace(hidden_states=(spread[:, None, None].expand(-1, input_ids.shape[1], 1),))

        super().__init__(trunk, nn.Identity())


def _checked(found: Any, prompts: Sequence[str]) -> np.ndarray:
    if isinstance(found, Tensor):
        found = found.detach().cpu().numpy()
    rewards = np.asarray(found, dtype=np.float64)
    if rewards.shape != (len(prompts),):
        raise TuningError(
            f"ppo: got rewards of shape {rewards.shape} for {len(prompts)} answers, expected one number for each."
        )
    if not np.isfinite(rewards).all():
        first = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise TuningError(
            f"ppo: the reward of the answer to {prompts[first][-40:]!r} is {rewards[first]}, expected a finite number. "
            "Fix: say what such an answer is worth; steps that were written down are kept."
        )
    return rewards
