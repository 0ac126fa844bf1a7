"""Controlled decoding: tokens, or blocks of them, chosen by the plant's probability and by what a scorer says.

`ControlledDecoding` is ARGS (Khanov et al. 2024), which RE-Control's tables call CD: of the k likeliest next tokens v
after the text y, the one with the highest

    s(v) = base(v | y) + weight * score(y, v)

goes on. With a scorer of beginnings it is the token-wise form of Mudgal et al. (2023), called CD prefix there.
`Blockwise` is their other form: k blocks of M tokens are sampled, and the one with the highest score goes on.

`base` is the raw "logit" in the authors' code of ARGS (argsearch.py). A "log-probability" differs from it by a number
that all candidates of a step share, so both choose alike, greedily and by sampling; "probability" does not.

That code answers one prompt at a time, samples at temperature 0.7 where it samples, and never looks for an end token:
it always writes the most tokens it may. Here prompts and candidates go in batches, and an answer ends where it ends.

Knows candidates and choices; knows nothing about what a scorer reads.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlib.decoding.base import DecodingError
from steerlib.decoding.scoring import Job, Scorer
from steerlib.decoding.walking import Draw, Reader, Walked, Walking, at, ends_of, refuse_no_numbers
from steerlib.errors import unknown
from steerlib.plant import Plant

Base = Literal["logit", "log-probability", "probability"]
_BASES: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda logits: logits,
    "log-probability": lambda logits: logits.log_softmax(-1),
    "probability": lambda logits: logits.softmax(-1),
}


class ControlledDecoding(Walking):
    """Of the k likeliest tokens the one whose logit and score are highest together; see the module's text.

    Args:
        scorer: what beginnings are worth.
        k: candidates for each token; 10 in the example of ARGS's code.
        weight: of the score; 0 is the plant's own decoding with top_k=k, token by token.
        base: what stands for the plant's opinion.
        temperature: of the choice among candidates, 0 for the best one (as in RE-Control's tables), or None for the
            temperature that `generate` is asked for.

    Raises:
        DecodingError: if an argument is out of its range.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        k: int = 10,
        weight: float = 1.0,
        base: Base = "logit",
        temperature: float | None = 0.0,
    ) -> None:
        _check_k(scorer, k)
        if base not in _BASES:
            raise DecodingError(f"base: {unknown('base', base, _BASES)}")
        if not abs(weight) < float("inf"):
            raise DecodingError(f"weight: got {weight}, expected a finite number.")
        if temperature is not None and not 0 <= temperature < float("inf"):
            raise DecodingError(f"temperature: got {temperature}, expected 0 (the best), a positive number, or None.")
        self.scorer, self.k, self.weight, self.base, self.temperature = scorer, k, weight, base, temperature

    def _temperature(self, asked: float) -> float:
        return asked if self.temperature is None else self.temperature

    def _branches(self, plant: Plant) -> int:
        return min(self.k, int(plant.model.get_input_embeddings().weight.shape[0]))  # type: ignore[union-attr, arg-type]

    def _answer(self, job: Job, draw: Draw, rows: Tensor) -> Walked:
        expands, ends, new = self.scorer.site is not None, ends_of(job), []
        with ExitStack() as attached:
            reader = Reader(job, self.scorer, job.branches if expands else 1, attached)
            session = self.scorer.begin(job)
            live = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
            earned, nats = torch.zeros(2, len(rows), device=rows.device)
            for step in range(job.room):
                logits = reader.walk.last.float()
                refuse_no_numbers(job, logits, live, step)
                tokens, opinion, noise = self._candidates(logits, job, draw, rows, step)
                states = reader.step(tokens)[1] if expands else None
                session.read(tokens, live[:, None].expand_as(tokens), states)
                scores = session.scores(live)
                total = opinion + self.weight * scores
                choice = (total / draw.temperature + noise if draw.temperature > 0 else total).argmax(1)
                session.keep(choice)
                token = torch.where(live, at(tokens, choice), job.plant.pad_id)
                new.append(token)
                earned = torch.where(live, at(scores, choice), earned)
                if draw.temperature > 0:
                    nats = nats + torch.where(live, _divergence(total / draw.temperature, logits, tokens, draw), 0.0)
                live = live & ~torch.isin(token, ends)
                if step + 1 == job.room or not bool(live.any()):
                    break
                if expands:
                    reader.walk.keep(choice)
                else:
                    reader.step(token[:, None])
        return Walked(torch.stack(new, 1), earned, nats if draw.temperature > 0 else None)

    def _candidates(
        self, logits: Float[Tensor, "batch vocabulary"], job: Job, draw: Draw, rows: Tensor, step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens, the plant's opinion of each and the noise of its draw, each (batch, branches)."""
        best = draw.kept(logits).topk(job.branches, dim=1)
        # In the order of their ids, so that equal totals are decided as the plant's own argmax decides them.
        tokens, order = best.indices.sort(dim=1)
        allowed = best.values.gather(1, order) > -torch.inf
        opinion = torch.where(allowed, _BASES[self.base](logits).gather(1, tokens), -torch.inf)
        if draw.temperature == 0:
            return tokens, opinion, torch.zeros_like(opinion)
        return tokens, opinion, draw.gumbel(rows, step, logits.shape[1]).gather(1, tokens)


class Blockwise(Walking):
    """Of k sampled blocks the one with the highest score goes on (Mudgal et al. 2023).

    A block as long as the answer is best-of-n; `BestOf` is that without a scorer of beginnings. The j-th block of a
    prompt has the noise of its j-th sample in `Plant.generate(samples=k)`.

    Args:
        scorer: what beginnings are worth.
        k: blocks to choose from.
        block: tokens of each.

    Raises:
        DecodingError: if an argument is out of its range; when it goes to work, if the temperature is 0, where all
            blocks are the same.
    """

    def __init__(self, scorer: Scorer, *, k: int = 4, block: int = 8) -> None:
        _check_k(scorer, k)
        if block < 1:
            raise DecodingError(f"block: got {block}, expected at least one token.")
        self.scorer, self.k, self.block = scorer, k, block

    def _temperature(self, asked: float) -> float:
        if asked == 0 and self.k > 1:
            raise DecodingError(
                "temperature: got 0, where all blocks are the same. Fix: a positive temperature, or ControlledDecoding."
            )
        return asked

    def _answer(self, job: Job, draw: Draw, rows: Tensor) -> Walked:
        k, ends, new = job.branches, ends_of(job), []
        numbers = (rows[:, None] * k + torch.arange(k, device=rows.device)).flatten()
        with ExitStack() as attached:
            reader = Reader(job, self.scorer, k, attached)
            session = self.scorer.begin(job)
            alive = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
            earned = torch.zeros(len(rows), device=rows.device)
            for start in range(0, job.room, self.block):
                logits = reader.walk.last[:, None].expand(-1, k, -1)
                live, said = alive[:, None].expand(-1, k), []
                for step in range(start, min(job.room, start + self.block)):
                    refuse_no_numbers(job, logits, live, step)
                    token = torch.where(live, self._drawn(logits, draw, numbers, step), job.plant.pad_id)
                    said.append(token)
                    # Without this pass the next token has no logits, and a scorer of states nothing to read.
                    logits, states = reader.step(token)
                    session.read(token, live, states)
                    live = live & ~torch.isin(token, ends)
                scores = session.scores(alive)
                choice = scores.argmax(1)
                session.keep(choice)
                reader.walk.keep(choice)
                new.append(at(torch.stack(said, 2), choice))
                earned = torch.where(alive, at(scores, choice), earned)
                alive = at(live, choice)
                if not bool(alive.any()):
                    break
        return Walked(torch.cat(new, 1), earned)

    def _drawn(self, logits: Tensor, draw: Draw, numbers: Tensor, step: int) -> Int[Tensor, "batch branches"]:
        flat = draw.kept(logits.reshape(len(numbers), -1).float())
        if draw.temperature > 0:
            flat = flat + draw.gumbel(numbers, step, flat.shape[1])
        return flat.argmax(1).reshape(logits.shape[:2])


def _divergence(
    chosen: Float[Tensor, "batch branches"], logits: Float[Tensor, "batch vocabulary"], tokens: Tensor, draw: Draw
) -> Float[Tensor, " batch"]:
    """KL of the draw among candidates from the plant's own draw among all tokens, in nats."""
    ours, own = chosen.log_softmax(1), draw.kept(logits).log_softmax(1).gather(1, tokens)
    # A candidate that is ruled out has probability zero in both, and adds nothing.
    return torch.where(ours > -torch.inf, ours.exp() * (ours - own), 0.0).sum(1)


def _check_k(scorer: Scorer, k: int) -> None:
    if not isinstance(scorer, Scorer):
        raise DecodingError(
            f"scorer: got {type(scorer).__name__}, expected a Scorer. Fix: TextScorer(reward) for a function of texts, "
            "StateScorer(value) for one of states, ModelScorer or TokenScorer for a reward model."
        )
    if k < 1:
        raise DecodingError(f"k: got {k}, expected at least one candidate.")
