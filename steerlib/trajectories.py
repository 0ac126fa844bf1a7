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
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.actuator import Actuator, Scope, Site
from steerlib.control.rollouts import Trajectories
from steerlib.errors import ContrastError, PlantError
from steerlib.generation import _ends as answer_ends
from steerlib.generation import answer_texts, check_generation, cut, generate_batch
from steerlib.harvest import Answers, Collected, Reward, Tap, collected, in_shards
from steerlib.laws.base import Law
from steerlib.laws.stack import Stack
from steerlib.plant import Plant
from steerlib.sampling import GumbelSampler

__all__ = ["READ_OUT", "Collected", "Reward", "RolloutSampling", "collect", "collected", "given", "replayed"]

#: Where the paper controls: what the unembedding reads.
READ_OUT = Site(-1, "final_norm")


@dataclass(frozen=True)
class RolloutSampling:
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

    def check(self, batch_size: int, cache: str = "dynamic") -> None:
        """Refuse what `Plant.generate` would.

        Args:
            batch_size: answers at a time.
            cache: kind of key-value cache.

        Raises:
            PlantError: if an argument is out of its range.
        """
        check_generation(
            self.max_new_tokens, self.temperature, self.top_k, self.top_p, self.samples, batch_size, cache, None
        )


def collect(
    plant: Plant,
    prompts: Sequence[str],
    reward: Reward,
    folder: Path | str | None = None,
    *,
    how: RolloutSampling,
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
    how.check(batch_size)
    rows = [row for row in plant._ids(prompts) for _ in range(how.samples)]
    asked = [prompt for prompt in prompts for _ in range(how.samples)]
    about = {"law": _law_hash(law), "prompts": _hash(list(prompts)), **asdict(how)}

    def answer(tap: Tap, chosen: range) -> Answers:
        states, tokens = _sampled(plant, tap, rows, chosen, how, batch_size)
        return Answers(states, tokens, answer_texts(plant, [rows[i] for i in chosen], tuple(tokens)))

    return in_shards(
        plant, asked, answer, reward, folder,
        law=law, site=site, shard=shard, about={**about, "rewarded_by": rewarded_by}, progress=progress,
    )  # fmt: skip


def given(
    plant: Plant,
    prompts: Sequence[str],
    answers: Sequence[str],
    reward: Reward,
    folder: Path | str | None = None,
    *,
    rewarded_by: str,
    ended: bool = True,
    site: Site = READ_OUT,
    batch_size: int = 64,
    shard: int = 256,
    progress: bool = False,
) -> Trajectories:
    """Trajectories of answers that somebody else wrote, such as those of a preference set; the plant only reads them.

    Args:
        plant: with nothing attached.
        prompts: one for each answer.
        answers: non-empty; usually begin with a space.
        reward: as in `collect`.
        folder: as in `collect`.
        rewarded_by: as in `collect`.
        ended: whether an answer is whole, so that the end token is its last one, as in a sampled answer.
        site: where states are taken.
        batch_size: answers at a time.
        shard: answers of a file.
        progress: show a bar.

    Raises:
        PlantError: as in `Plant.logprobs` and `collect`, if an answer is too long, or there is no end token to add.
        SiteError: as in `collect`.
        ContrastError: as in `collect`.
    """
    heads, rows = plant._pairs(prompts, answers)
    if ended:
        rows = [[*row, _end(plant)] for row in rows]
    if (limit := plant.context_length) is not None and max(map(len, rows)) > limit:
        raise PlantError(f"answers: got {max(map(len, rows))} tokens with the prompt, but {plant.name} reads {limit}.")

    def read(tap: Tap, chosen: range) -> Answers:
        states = _read(plant, tap, heads, rows, chosen, batch_size)
        tokens = [tuple(rows[i][len(heads[i]) :]) for i in chosen]
        return Answers(states, tokens, tuple(answers[i] for i in chosen))

    about = {"prompts": _hash(list(prompts)), "answers": _hash(list(answers)), "ended": ended}
    return in_shards(
        plant, list(prompts), read, reward, folder,
        law=None, site=site, shard=shard, about={**about, "rewarded_by": rewarded_by}, progress=progress,
        whole=True,
    )  # fmt: skip


def replayed(
    plant: Plant,
    prompts: Sequence[str],
    tokens: Sequence[Sequence[int]],
    rewards: Float[Tensor, " n"] | Sequence[float],
    *,
    site: Site = READ_OUT,
    batch_size: int = 64,
) -> Trajectories:
    """The states of answers that were sampled before, by one pass over each, in memory.

    They are those that `collect` takes while it samples, up to rounding; nothing is drawn, and texts, which may be
    cut into other tokens than were drawn, play no part.

    Args:
        plant: with nothing attached.
        prompts: one for each answer.
        tokens: of each answer, one at least.
        rewards: of each answer.
        site: where states are taken.
        batch_size: answers at a time.

    Raises:
        PlantError: if a law is attached, or an answer has no token.
        SiteError: if the site does not exist.
        ContrastError: if there are not as many prompts and rewards as answers, or a reward is no number.
    """
    if plant.wiring.active():
        raise PlantError("a law is attached: these would not be the states of the plant. Fix: detach it.")
    if len(prompts) != len(tokens):
        raise ContrastError(f"replayed: got {len(prompts)} prompts and {len(tokens)} answers, expected one to each.")
    if empty := [i for i, answer in enumerate(tokens) if not len(answer)]:
        raise PlantError(f"replayed: got no token in answer {empty[0]}, expected at least one.")
    heads = plant._ids(prompts)
    rows = [[*head, *answer] for head, answer in zip(heads, tokens, strict=True)]
    tap = Tap(whole=True)
    with Actuator(plant.wiring, [(site.resolve(plant.depth), tap, Scope("all"))]):
        states = _read(plant, tap, heads, rows, range(len(rows)), batch_size)
    return Trajectories([torch.cat(states)] if states else [], [len(answer) for answer in tokens], rewards)


def _read(
    plant: Plant, tap: Tap, heads: list[list[int]], rows: list[list[int]], chosen: range, batch_size: int
) -> list[Tensor]:
    """States of whole answers, of which the tokens are known; rows are prompt and answer, like lengths go together."""
    found: dict[int, Tensor] = {}
    order = sorted(chosen, key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        tap.seen.clear()
        plant.forward(plant._pad([rows[i] for i in index]))
        for row, i in enumerate(index):
            # On the left is padding; the state of the last token draws nothing.
            found[i] = tap.seen[0][row, len(heads[i]) - len(rows[i]) - 1 : -1].cpu()
    return [found[i] for i in chosen]


def _sampled(
    plant: Plant, tap: Tap, rows: list[list[int]], chosen: range, how: RolloutSampling, batch_size: int
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


def _end(plant: Plant) -> int:
    """The token that ends an answer; where there are several, the tokenizer's own."""
    ends = answer_ends(plant)
    if not ends:
        raise PlantError(f"{plant.name}: has no token that ends an answer. Fix: ended=False.")
    own = plant.tokenizer.eos_token_id
    return own if isinstance(own, int) and own in ends else min(ends)


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
