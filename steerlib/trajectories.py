"""Rollouts: answers of a plant, the state that each of their tokens was drawn from, and what the answers earn.

State t of an answer is what the unembedding read when token t was drawn: the output of the final norm at the last
prompt token for t = 0, and at token t - 1 of the answer after that. The token that ends an answer is one of its tokens
(the released code of RE-Control drops it where the padding token is the end token). States are taken while the answer
is written, so that nothing is computed twice, and they never come from `output_hidden_states`.

An answer depends on its prompt, the seed and its place in the list, as in `Plant.generate`, and not on batches or
shards: a collection that was killed goes on with the first shard that is missing and ends up the same.

Knows plants, prompts and rewards as numbers; knows nothing about values or how they are fitted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from steerlib.actuator import Actuator, Scope, Site
from steerlib.control.rollouts import Batch, Shards, Trajectories
from steerlib.errors import ContrastError, PlantError
from steerlib.files import write_atomic
from steerlib.generation import answer_texts, check_generation, cut, generate_batch
from steerlib.laws.base import Law
from steerlib.laws.stack import Stack
from steerlib.plant import Plant
from steerlib.sampling import GumbelSampler

#: Rewards of answers to prompts: as many numbers as there are answers.
Reward = Callable[[Sequence[str], Sequence[str]], "Sequence[float] | np.ndarray | Tensor"]
#: Where the paper controls: what the unembedding reads.
READ_OUT = Site(-1, "final_norm")


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; see `Plant.generate`.

    Attributes:
        max_new_tokens: longest answer.
        seed: of the noise.
        temperature: 0 for greedy, as in the paper's runs with Vicuna and Falcon.
        top_k: keep only the k most likely tokens.
        top_p: keep the smallest set of tokens whose probability reaches p.
        samples: answers for each prompt.
    """

    max_new_tokens: int
    seed: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    samples: int = 1


class _Tap:
    """A transform that keeps the last position of each pass and changes nothing."""

    pure = True  # see `steerlib.actuator`: it needs no copy of its own

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, state: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        self.seen.append(state[:, -1].clone())  # prompts are padded on the left; the model may change the tensor
        return state


def collect(
    plant: Plant,
    prompts: Sequence[str],
    reward: Reward,
    folder: Path | str | None = None,
    *,
    how: Sampling,
    rewarded_by: str,
    law: Law | Stack | None = None,
    site: Site = READ_OUT,
    batch_size: int = 64,
    shard: int = 256,
    progress: bool = False,
) -> Trajectories:
    """Let a plant answer, record its states, and reward its answers.

    Args:
        plant: with nothing attached.
        prompts: texts.
        reward: called with the prompts and answers of each shard, when they are written.
        folder: where to stream to; memory then holds one shard. None keeps all states in memory.
        how: how answers are drawn.
        rewarded_by: name of the reward: a folder is not continued with another.
        law: the policy; None for the plant as it is (the paper's zero policy). At a site where it acts itself, the
            states are those that it saw, before its push.
        site: where states are taken.
        batch_size: answers at a time.
        shard: answers of a file.
        progress: show a bar.

    Raises:
        PlantError: if a law is attached already, or an argument is out of its range.
        SiteError: if the site does not exist.
        ContrastError: if a reward is no number, there are not as many as answers, or the folder holds other
            trajectories.
        DiskFullError: no space left; finished shards are kept.
    """
    if plant.wiring.active():
        raise PlantError("collect: a law is attached, which no folder can record. Fix: collect(..., law=law).")
    check_generation(
        how.max_new_tokens, how.temperature, how.top_k, how.top_p, how.samples, batch_size, "dynamic", None
    )
    if shard < 1:
        raise PlantError(f"shard: got {shard}, expected at least 1.")
    rows = [row for row in plant._ids(prompts) for _ in range(how.samples)]
    asked = [prompt for prompt in prompts for _ in range(how.samples)]
    about = {
        "plant": plant.name, "weights": plant.weight_hash, "dtype": str(plant.dtype),
        "site": str(site.resolve(plant.depth)), "law": _law_hash(law), "prompts": _hash(list(prompts)),
        "rewarded_by": rewarded_by, **asdict(how),
    }  # fmt: skip
    kept = _Kept() if folder is None else Shards.begin(folder, count=len(rows), size=shard, about=about)
    numbers = kept.missing if isinstance(kept, Shards) else range(-(-len(rows) // shard))
    with ExitStack() as attached:
        tap = _Tap()
        attached.enter_context(Actuator(plant.wiring, [(site.resolve(plant.depth), tap, Scope("all"))]))
        if law is not None:
            attached.enter_context(plant.under(law))
        for number in tqdm(numbers, desc="collecting", disable=not progress, leave=False):
            chosen = range(number * shard, min(len(rows), (number + 1) * shard))
            states, tokens = _answers(plant, tap, rows, chosen, how, batch_size)
            texts = answer_texts(plant, [rows[i] for i in chosen], tuple(tokens))
            earned = _earned(reward, [asked[i] for i in chosen], texts)
            batch = Batch(torch.cat(states), torch.tensor([len(t) for t in tokens]), earned)
            if isinstance(kept, Shards):
                write_atomic(_texts_file(kept, number), json.dumps([[asked[i] for i in chosen], texts]))
            kept.write(number, batch)
    return kept.read()


def collected_texts(folder: Path | str) -> tuple[list[str], list[str]]:
    """Prompt and answer of each trajectory of a folder, to look at or to reward otherwise.

    Raises:
        ContrastError: if the folder holds no trajectories, or not all of them yet.
    """
    shards = Shards.open(Path(folder))
    shards.read()  # says what is missing
    prompts: list[str] = []
    answers: list[str] = []
    for number in range(len(shards)):
        asked, texts = json.loads(_texts_file(shards, number).read_text(encoding="utf-8"))
        prompts += asked
        answers += texts
    return prompts, answers


def _texts_file(shards: Shards, number: int) -> Path:
    return shards.path(number).with_suffix(".texts.json")


class _Kept:
    """Shards that stay in memory."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def write(self, _number: int, batch: Batch) -> None:
        self.batches.append(batch)

    def read(self) -> Trajectories:
        return Trajectories(
            [batch.states for batch in self.batches],
            torch.cat([batch.lengths for batch in self.batches]),
            torch.cat([batch.rewards for batch in self.batches]),
        )


def _answers(
    plant: Plant, tap: _Tap, rows: list[list[int]], chosen: range, how: Sampling, batch_size: int
) -> tuple[list[Tensor], list[tuple[int, ...]]]:
    """States and tokens of the answers to some prompts; as in `Plant.generate`, which keeps no states."""
    order = sorted(chosen, key=lambda i: len(rows[i]))
    found: dict[int, tuple[Tensor, tuple[int, ...]]] = {}
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        batch = plant._pad([rows[i] for i in index])
        sampler = None
        if how.temperature > 0:
            sampler = GumbelSampler(
                seed=how.seed, rows=torch.tensor(index, device=plant.device), temperature=how.temperature,
                top_k=how.top_k, top_p=how.top_p, prompt_columns=batch.input_ids.shape[1],
            )  # fmt: skip
        tap.seen.clear()
        new = generate_batch(plant, batch, how.max_new_tokens, sampler, "dynamic", None)
        states = torch.stack(tap.seen, dim=1).cpu()  # (rows, tokens, width): one pass for each token
        for row, (i, tokens) in enumerate(zip(index, cut(plant, new), strict=True)):
            found[i] = (states[row, : len(tokens)], tokens)
    return [found[i][0] for i in chosen], [found[i][1] for i in chosen]


def _earned(reward: Reward, prompts: Sequence[str], answers: Sequence[str]) -> Float[Tensor, " n"]:
    """The rewards, once it is known that they are one finite number for each answer."""
    earned = torch.as_tensor(reward(prompts, answers), dtype=torch.float64).detach().cpu()
    if earned.shape != (len(answers),):
        raise ContrastError(f"reward: got shape {tuple(earned.shape)} for {len(answers)} answers, expected one each.")
    wrong = (~earned.isfinite()).nonzero()
    if len(wrong):
        i = int(wrong[0])
        raise ContrastError(
            f"reward: got {float(earned[i])} for the answer {answers[i][:60]!r} to {prompts[i][-60:]!r}. Fix: a reward "
            "that is a finite number for every answer, also an empty one."
        )
    return earned


def _law_hash(law: Law | Stack | None) -> str | None:
    """What a law is and holds, its strength included."""
    if law is None:
        return None
    parts = [part for part in law.modules() if isinstance(part, Law)]
    said = [[type(p).__name__, p.options(), asdict(p.header) if p.header is not None else None] for p in parts]
    whole = hashlib.sha256(_hash(said).encode())
    for name, tensor in sorted(law.named_buffers()):
        whole.update(name.encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
