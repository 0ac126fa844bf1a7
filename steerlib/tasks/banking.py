"""Answers of a plant that come with the project, and how they go on from places within: what values are judged by.

Sampling is what costs time: a thousand answers of the shipped plant take a minute of one core, and their continuations
several. A bank keeps what was sampled as tokens (`data/rollouts/<plant>.safetensors`, a few hundred kilobytes), with
the reward of each answer and the mean reward of the continuations of some; states are read off again by one pass over
each answer. A bank counts only for the weights and requests it was made with, and any part of it can be sampled again.

    python -m steerlib.tasks.banking almanac-llama        # make the bank of a plant

Knows how a task samples and rewards answers; knows nothing about values or laws.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from steerlib.actuator import Site
from steerlib.continuing import Continued, continued
from steerlib.control.rollouts import Trajectories
from steerlib.errors import ContrastError
from steerlib.files import data_folder, write_atomic
from steerlib.harvest import Reward, rewards_of
from steerlib.plant import Plant
from steerlib.tasks.base import Split, Task, spread
from steerlib.tasks.helpfulness import Helpfulness
from steerlib.tasks.rewarding import answering, reward_among
from steerlib.tasks.sentiment import STORY_TOKENS, Sentiment
from steerlib.trajectories import READ_OUT, RolloutSampling, replayed

FORMAT = "steerlib-rollout-bank/1"


@dataclass(frozen=True)
class BankPlan:
    """How much is sampled.

    Attributes:
        fit: at most so many requests of the split that laws are fitted on, one answer each.
        test: at most so many of the test split.
        begun: of so many of the test answers the beginnings are continued.
        at: tokens that a beginning has; answers with fewer have no such state.
        samples: continuations of each beginning.
        seed: of the noise.
    """

    fit: int
    test: int
    begun: int
    at: tuple[int, ...]
    samples: int
    seed: int = 0


#: What is shipped.
SHIPPED = BankPlan(fit=360, test=200, begun=30, at=(0, 6, 16, 32, 52), samples=12)


@dataclass(frozen=True)
class Answered:
    """Answers to requests, one each.

    Attributes:
        prompts: the requests.
        tokens: of the answers.
        rewards: of the answers.
    """

    prompts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    rewards: Float[Tensor, " n"]

    def trajectories(self, plant: Plant, *, site: Site = READ_OUT) -> Trajectories:
        """The states that the tokens were drawn from, by one pass over each answer; see `trajectories.replayed`."""
        return replayed(plant, self.prompts, self.tokens, self.rewards, site=site)


@dataclass(frozen=True)
class Bank:
    """Answers, and what beginnings of the test answers are worth.

    Attributes:
        plan: how much was sampled.
        fit: answers to learn from.
        test: answers to judge by.
        rows: the test answer that each beginning is of.
        at: its tokens.
        worth: mean reward of its continuations.
    """

    plan: BankPlan
    fit: Answered
    test: Answered
    rows: Int[Tensor, " beginnings"]
    at: Int[Tensor, " beginnings"]
    worth: Continued

    def beginnings(self) -> list[tuple[int, ...]]:
        """Tokens of each beginning."""
        return [self.test.tokens[row][:at] for row, at in zip(self.rows.tolist(), self.at.tolist(), strict=True)]


@dataclass(frozen=True)
class Opening:
    """A request of a task whose requests are texts and nothing else.

    Attributes:
        text: the request.
    """

    text: str


@dataclass(frozen=True)
class Again:
    """A part of a bank, sampled once more.

    Attributes:
        answers: how many of the first answers to learn from.
        same: share of them that came out the same, token by token.
        reward: largest difference of their rewards where they did.
        beginnings: how many of the first beginnings.
        worth: largest difference of their worth, in standard errors of the difference; rounding may lead a
            continuation another way, so it need not be zero.
    """

    answers: int
    same: float
    reward: float
    beginnings: int
    worth: float


def requests(task: Task, plan: BankPlan) -> tuple[list[Any], list[Any], RolloutSampling]:
    """Requests to learn from and to judge by, and how they are answered; see `answering`."""
    if isinstance(task, Sentiment):
        # Its openings are few: each is gone on from several times, with other noise.
        told = [[Opening(str(text)) for text in np.resize(task.prompts(part), n)] for part, n in _parts(plan)]
        return told[0], told[1], RolloutSampling(STORY_TOKENS, plan.seed)
    fit, how, _ = answering(task, n=plan.fit, seed=plan.seed)
    if isinstance(task, Helpfulness):
        test: Sequence[Any] = task.world.wishes("test", harmful=task.harmful, held_out=task.held_out, n=plan.test)
    else:
        test = task.items("test")  # type: ignore[attr-defined]  # tasks that `answering` takes have items
    return list(fit), list(spread(test, plan.test)), how


def sample_bank(task: Task, plan: BankPlan) -> Bank:
    """Let the plant of a task answer, and go on from beginnings, under nothing.

    Raises:
        ContrastError: if the task samples no answers, or an answer has no finite reward.
    """
    fit_items, test_items, how = requests(task, plan)
    fit = _answered(task, fit_items, how)
    # Other noise than for the answers to learn from, whose places in their list are the same.
    test = _answered(task, test_items, replace(how, seed=how.seed + 1))
    rows, at = _places(test.tokens, plan)
    unknown = Continued(torch.zeros(0).double(), torch.zeros(0).double())
    bank = Bank(plan, fit, test, rows, at, unknown)
    return replace(bank, worth=_worth(task, bank, test_items, how, len(rows)))


def sampled_again(task: Task, bank: Bank, *, answers: int, beginnings: int) -> Again:
    """Sample the first answers and the first beginnings of a bank once more, and compare.

    Args:
        task: as the bank was made for.
        bank: to check.
        answers: of those to learn from.
        beginnings: to continue.
    """
    fit_items, test_items, how = requests(task, bank.plan)
    fresh = _answered(task, fit_items[:answers], how)
    same = torch.tensor([one == other for one, other in zip(fresh.tokens, bank.fit.tokens, strict=False)])
    gaps = (fresh.rewards - bank.fit.rewards[:answers]).abs()[same]
    worth = _worth(task, bank, test_items, how, beginnings)
    count = len(worth.mean)
    apart = (worth.mean - bank.worth.mean[:count]).abs()
    noise = (worth.error.square() + bank.worth.error[:count].square()).sqrt()
    ratio = torch.where(apart > 0, apart / noise, 0.0)
    return Again(
        len(fresh.tokens), float(same.double().mean()), float(gaps.max()) if len(gaps) else 0.0, count,
        float(ratio.max()) if count else 0.0,
    )  # fmt: skip


def _parts(plan: BankPlan) -> tuple[tuple[Split, int], tuple[Split, int]]:
    return ("fit", plan.fit), ("test", plan.test)


def _reward(task: Task, items: list[Any]) -> Reward:
    """What answers to these requests earn."""
    if isinstance(task, Sentiment):
        return lambda _, texts: np.array([task.happiness(text) for text in texts])
    return reward_among(task, items)


def _answered(task: Task, items: list[Any], how: RolloutSampling) -> Answered:
    prompts = [item.text for item in items]
    found = task.plant.generate(
        prompts, max_new_tokens=how.max_new_tokens, seed=how.seed, temperature=how.temperature, top_k=how.top_k,
        top_p=how.top_p,
    )  # fmt: skip
    rewards = rewards_of(_reward(task, items), prompts, found.texts)
    return Answered(tuple(prompts), tuple(map(tuple, found.tokens)), rewards)


def _places(tokens: Sequence[Sequence[int]], plan: BankPlan) -> tuple[Tensor, Tensor]:
    """Which test answer each beginning is of, and how many of its tokens it has."""
    found = [(row, at) for row in range(min(plan.begun, len(tokens))) for at in plan.at if at < len(tokens[row])]
    return torch.tensor([row for row, _ in found]), torch.tensor([at for _, at in found])


def _worth(task: Task, bank: Bank, items: list[Any], how: RolloutSampling, count: int) -> Continued:
    begun = bank.beginnings()[:count]
    if not begun:
        return Continued(torch.zeros(0).double(), torch.zeros(0).double())
    prompts = [bank.test.prompts[row] for row in bank.rows[:count].tolist()]
    return continued(
        task.plant, prompts, begun, _reward(task, items), how=replace(how, samples=bank.plan.samples), batch_size=64
    )


# Files


def bank_file(plant: Plant) -> Path:
    """Where the bank of a plant is shipped."""
    return data_folder() / "rollouts" / f"{Path(plant.name).name}.safetensors"


def save_bank(task: Task, bank: Bank, path: Path) -> None:
    """Write a bank, whole or not at all.

    Raises:
        DiskFullError: no space left.
    """
    both = (bank.fit, bank.test)
    held = {
        "tokens": torch.tensor([t for part in both for row in part.tokens for t in row], dtype=torch.int32),
        "lengths": torch.tensor([len(row) for part in both for row in part.tokens], dtype=torch.int32),
        "rewards": torch.cat([part.rewards for part in both]),
        "rows": bank.rows.int(), "at": bank.at.int(), "mean": bank.worth.mean, "error": bank.worth.error,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    about = _about(task, bank.plan, *requests(task, bank.plan))
    write_atomic(path, save(held, metadata={"about": json.dumps(about, sort_keys=True)}))


def load_bank(task: Task, plan: BankPlan, path: Path | None = None) -> Bank | None:
    """The bank that is kept of a task's plant; None if there is none, or it is one of other weights or requests.

    Args:
        task: whose plant and requests.
        plan: how much is asked for: exactly that.
        path: of the file; by default where it is shipped.

    Raises:
        ContrastError: if the file is damaged.
    """
    path = path or bank_file(task.plant)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            held = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
        rows = tuple(tuple(row.tolist()) for row in held["tokens"].split(held["lengths"].tolist()))
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise ContrastError(f"{path}: damaged ({error!r}). Fix: python -m steerlib.tasks.banking.") from error
    fit_items, test_items, how = requests(task, plan)
    if about != json.loads(json.dumps(_about(task, plan, fit_items, test_items, how))):
        return None
    n = len(fit_items)
    return Bank(
        plan,
        Answered(tuple(item.text for item in fit_items), rows[:n], held["rewards"][:n]),
        Answered(tuple(item.text for item in test_items), rows[n:], held["rewards"][n:]),
        held["rows"].long(), held["at"].long(), Continued(held["mean"], held["error"]),
    )  # fmt: skip


def _about(task: Task, plan: BankPlan, fit: list[Any], test: list[Any], how: RolloutSampling) -> dict[str, Any]:
    """What a bank depends on: plan, weights, requests and how they are answered."""
    asked = hashlib.sha256("\0".join(item.text for item in (*fit, *test)).encode()).hexdigest()
    return {
        "format": FORMAT, "task": task.name, "rubric": getattr(task, "rubric", None),
        "weights": task.plant.weight_hash, "requests": asked, "how": asdict(how), **asdict(plan),
    }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the bank of a shipped plant."""
    parser = argparse.ArgumentParser(description="Sample the answers that chapters on values are judged by.")
    parser.add_argument("plant", help="name of a shipped plant, such as almanac-llama")
    task = Helpfulness(Plant.load(parser.parse_args(arguments).plant, dtype=torch.float32))
    path = bank_file(task.plant)
    save_bank(task, sample_bank(task, SHIPPED), path)
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
