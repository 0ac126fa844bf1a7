"""What control costs: divergence from the unsteered plant, energy of the input, fluency, time.

Knows plants, steering and texts. Knows nothing about what an answer means.
"""

from __future__ import annotations

import os.path
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from steerlib.actuator import Actuator, Scope, Slot
from steerlib.errors import MetricError
from steerlib.finite import check_logits
from steerlib.plant import Plant, Tokens


@dataclass(frozen=True)
class Divergence:
    """Divergence of the steered plant from the unsteered one, nats for each answer token: mean and 95th percentile.

    Attributes:
        mean: over all tokens of all answers.
        p95: likewise.
        tokens: answer tokens that were counted.
        blank: answers without any, which are left out.
    """

    mean: float
    p95: float
    tokens: int
    blank: int = 0


def kl_per_token(
    plant: Plant, steering: Actuator, prompts: Sequence[str], answers: Sequence[str], *, batch_size: int = 64
) -> Divergence:
    """KL(steered || unsteered) of the next token at each token of the answers: effort as the reader feels it.

    Blank answers have no token at which it could be taken: they are left out and counted in `Divergence.blank`. A law
    that silences a plant is measured on what is still said.

    Args:
        plant: the plant, with nothing attached that should not be in both passes.
        steering: what `plant.under(...)` returned; entered for one of the two passes.
        prompts: one for each answer.
        answers: texts written by the steered plant, so that the divergence is met where the plant goes.
        batch_size: rows at a time.

    Raises:
        MetricError: if there is not one prompt for each answer, or no answer has a token.
        NotFiniteError: if the logits are no numbers, of the plant itself or under a law too strong for its precision.
    """
    values = torch.from_numpy(np.concatenate(_traces(plant, steering, prompts, answers, batch_size, "kl_per_token")))
    blank = sum(not answer.strip() for answer in answers)
    return Divergence(float(values.mean()), float(values.quantile(0.95)), len(values), blank)


def kl_by_token(
    plant: Plant, steering: Actuator, prompts: Sequence[str], answers: Sequence[str], *, batch_size: int = 64
) -> list[Float[np.ndarray, " tokens"]]:
    """KL(steered || unsteered) at each token of each answer: how an effect lasts, or fades, as the answer goes on.

    The first number of an answer is that of its first token, which is decided at the end of the prompt. Laws that are
    compared are best given the same answers, so that token k is the same token for all. Blank answers are left out.

    Args:
        plant: the plant, with nothing attached that should not be in both passes.
        steering: what `plant.under(...)` returned; entered for one of the two passes.
        prompts: one for each answer.
        answers: texts to replay.
        batch_size: rows at a time.

    Returns:
        For each answer that is not blank, nats at each of its tokens.

    Raises:
        MetricError: if there is not one prompt for each answer, or no answer has a token.
        NotFiniteError: if the logits are no numbers, of the plant itself or under a law too strong for its precision.
    """
    return _traces(plant, steering, prompts, answers, batch_size, "kl_by_token")


def _traces(
    plant: Plant, steering: Actuator, prompts: Sequence[str], answers: Sequence[str], batch_size: int, what: str
) -> list[np.ndarray]:
    """Divergence at each token of each answer that is not blank."""
    _, rows, starts = _replayed(plant, prompts, answers, what)
    found: dict[int, np.ndarray] = {}
    for replay in _replays(plant, steering, rows, starts, batch_size):
        divergence, answer = replay.divergence().cpu(), replay.predicted.cpu()
        for i, values, own in zip(replay.chosen, divergence, answer, strict=True):
            found[i] = values[own].numpy()
    return [found[i] for i in range(len(rows))]


@dataclass(frozen=True)
class TokenEffort:
    """What each token of one answer cost.

    Attributes:
        kl: divergence of the steered plant from the unsteered one, in nats.
        energy: squared norm of what was added, summed over sites, where the token was chosen.
    """

    kl: Float[np.ndarray, " tokens"]
    energy: Float[np.ndarray, " tokens"]


def effort_by_token(
    plant: Plant, steering: Actuator, prompts: Sequence[str], answers: Sequence[str], *, batch_size: int = 64
) -> list[TokenEffort]:
    """Divergence and energy at each token of each answer, from the same two passes; see `kl_by_token`, `input_energy`.

    Blank answers are left out.

    Args:
        plant: the plant, with nothing attached.
        steering: what `plant.under(...)` returned, not yet entered.
        prompts: one for each answer.
        answers: texts to replay.
        batch_size: rows at a time.

    Raises:
        MetricError: if there is not one prompt for each answer, or no answer has a token.
        NotFiniteError: if the logits are no numbers, of the plant itself or under a law too strong for its precision.
    """
    _, rows, starts = _replayed(plant, prompts, answers, "effort_by_token")
    found: dict[int, TokenEffort] = {}
    for replay in _replays(plant, steering, rows, starts, batch_size, energy=True):
        kls, answer = replay.divergence().cpu(), replay.predicted.cpu()
        energies, counted = replay.squares().cpu(), replay.counted.cpu()
        for k, i in enumerate(replay.chosen):
            found[i] = TokenEffort(kls[k][answer[k]].numpy(), energies[k][counted[k]].numpy())
    return [found[i] for i in range(len(rows))]


@dataclass(frozen=True)
class _Replay:
    """A batch of whole texts, replayed: what both passes said, and the states around the law's sites."""

    chosen: list[int]
    batch: Tokens
    lengths: torch.Tensor
    free: torch.Tensor | None
    steered: torch.Tensor
    around: list[tuple[torch.Tensor, torch.Tensor]]

    @property
    def predicted(self) -> torch.Tensor:
        """Which columns, after the first, hold tokens of the answer."""
        ordinal = self.batch.attention_mask.cumsum(1)[:, 1:]
        return self.batch.attention_mask[:, 1:].bool() & (ordinal > self.lengths[:, None])

    @property
    def counted(self) -> torch.Tensor:
        """Which columns choose a token of the answer; the last is never continued, so what is added there is idle."""
        ordinal = self.batch.attention_mask.cumsum(1)
        last = ordinal == self.batch.attention_mask.sum(1, keepdim=True)
        return self.batch.attention_mask.bool() & (ordinal >= self.lengths[:, None]) & ~last

    def divergence(self) -> torch.Tensor:
        """KL(steered || free) of each column's next token, float64."""
        assert self.free is not None
        return (self.steered.exp() * (self.steered - self.free)).sum(-1).double()

    def added(self) -> list[torch.Tensor]:
        """Squared norm of what each site's law added at each column, float64."""
        return [(after.double() - before.double()).pow(2).sum(-1) for before, after in self.around]

    def squares(self) -> torch.Tensor:
        """The same, summed over sites."""
        zeros = torch.zeros(self.batch.attention_mask.shape, dtype=torch.float64, device=self.steered.device)
        return sum(self.added(), zeros)

    def ratios(self) -> torch.Tensor:
        """Norm of what was added over the norm of the state, mean over sites."""
        sizes = [before.double().pow(2).sum(-1).clamp_min(1e-30) for before, _ in self.around]
        zeros = torch.zeros(self.batch.attention_mask.shape, dtype=torch.float64, device=self.steered.device)
        return sum(((a / b).sqrt() / len(sizes) for a, b in zip(self.added(), sizes, strict=True)), zeros)


def _logprobs(plant: Plant, batch: Tokens) -> torch.Tensor:
    """Log probabilities of the next token at each column but the last; NotFiniteError if they are no numbers."""
    return check_logits(plant, plant._logits(batch), batch.attention_mask)[:, :-1].float().log_softmax(-1)


def _replays(
    plant: Plant,
    steering: Actuator,
    rows: list[list[int]],
    starts: list[int],
    batch_size: int,
    *,
    free: bool = True,
    energy: bool = False,
) -> Iterator[_Replay]:
    """Replay the writing of answers, so that a law acts on the tokens it acted on then; texts of one length together.

    Args:
        plant: with nothing attached.
        steering: entered for the steered pass.
        rows: tokens of whole texts.
        starts: where the answers begin.
        batch_size: rows at a time.
        free: also pass unsteered.
        energy: look at the states before and after the law, too.
    """
    # Two laws at one site are one input; a law that only looks adds nothing, and is no site.
    acting = (slot for slot, (law, _) in steering._targets if energy and getattr(law, "acts", True))
    sites = list(dict.fromkeys(acting))
    before, after = [_Tap() for _ in sites], [_Tap() for _ in sites]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = plant._pad([rows[i] for i in chosen])
        lengths = torch.tensor([starts[i] for i in chosen], device=plant.device)
        everywhere, unsteered = Scope("all"), None
        with torch.inference_mode(), plant.passing(prompt_lengths=lengths, teacher_forced=True), ExitStack() as stack:
            if free:
                unsteered = _logprobs(plant, batch)
            stack.enter_context(_attached(plant, sites, before, everywhere))
            stack.enter_context(steering)
            stack.enter_context(_attached(plant, sites, after, everywhere))
            steered = _logprobs(plant, batch)
        around = [(a.seen, b.seen) for a, b in zip(before, after, strict=True)]
        yield _Replay(chosen, batch, lengths, unsteered, steered, around)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Energy:
    """Size of the input, in squared units of the state.

    Attributes:
        per_token: mean over steered tokens of the squared norm of what was added, summed over sites.
        per_answer: mean over answers that are not blank of the sum over its tokens and sites.
        relative: mean over steered tokens and sites of the norm of what was added over the norm of the state.
        tokens: steered tokens that were counted.
        blank: answers without any token, which are left out.
    """

    per_token: float
    per_answer: float
    relative: float
    tokens: int
    blank: int = 0


class _Tap:
    """Keeps the states that pass, and changes nothing."""

    pure = True

    def __init__(self) -> None:
        self.seen: torch.Tensor | None = None

    def __call__(self, state: torch.Tensor) -> torch.Tensor:
        self.seen = state
        return state


def input_energy(
    plant: Plant, steering: Actuator, prompts: Sequence[str], answers: Sequence[str], *, batch_size: int = 64
) -> Energy:
    """How much a law adds to the states while these answers are written, whatever the law.

    Measured from outside, between the state before the law and after it, so that laws with feedback, gates and
    projections are measured like constant pushes. The pass replays the writing of the answers. The token at which
    the first word is chosen is the last of the prompt, and counts. Blank answers are left out, and counted in
    `Energy.blank`.

    Args:
        plant: the plant.
        steering: what `plant.under(...)` returned, not yet entered.
        prompts: one for each answer.
        answers: texts to replay.
        batch_size: rows at a time.

    Raises:
        MetricError: if there is not one prompt for each answer, or every answer is empty.
        NotFiniteError: if the logits are no numbers, of the plant itself or under a law too strong for its precision.
    """
    _, rows, starts = _replayed(plant, prompts, answers, "input_energy")
    squares, ratios, owners = [], [], []
    for replay in _replays(plant, steering, rows, starts, batch_size, free=False, energy=True):
        counted = replay.counted
        squares.append(replay.squares()[counted].cpu())
        ratios.append(replay.ratios()[counted].cpu())
        owner = torch.tensor(replay.chosen, device=counted.device)[:, None].expand_as(counted)
        owners.append(owner[counted].cpu())
    energy, owner = torch.cat(squares), torch.cat(owners)
    whole = torch.zeros(len(rows), dtype=torch.float64).index_add(0, owner, energy)
    return Energy(
        float(energy.mean()),
        float(whole.mean()),
        float(torch.cat(ratios).mean()),
        len(energy),
        len(answers) - len(rows),
    )


def _attached(plant: Plant, slots: Sequence[Slot], taps: Sequence[_Tap], scope: Scope) -> Actuator:
    """Taps at the sites of a law, in whatever order they are entered."""
    actuator = Actuator(plant.wiring, [])
    actuator._targets = [(slot, (tap, scope)) for slot, tap in zip(slots, taps, strict=True)]
    return actuator


def _check_pairs(prompts: Sequence[str], answers: Sequence[str], what: str) -> None:
    """Refuse lists that do not belong together, and one string where a list is expected: it is a list of letters."""
    for name, texts in (("prompts", prompts), ("answers", answers)):
        if isinstance(texts, str):
            raise MetricError(f"{what}: got one string as {name}, expected a list of strings. Fix: put it into a list.")
    if len(prompts) != len(answers):
        raise MetricError(
            f"{what}: got {len(prompts)} prompts and {len(answers)} answers, expected one prompt for each answer. "
            "Fix: repeat a prompt for each of its answers."
        )


def _replayed(
    plant: Plant, prompts: Sequence[str], answers: Sequence[str], what: str
) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Tokens of prompts and of whole texts, and where the answer begins; answers that are empty are left out."""
    _check_pairs(prompts, answers, what)
    kept = [(p, a) for p, a in zip(prompts, answers, strict=True) if a.strip()]
    if not kept:
        raise MetricError(f"{what}: every answer is empty.")
    heads, rows = plant._ids([p for p, _ in kept]), plant._ids([p + a for p, a in kept])
    # An answer may begin inside a word; its tokens are those after the ones that prompt and text share.
    return heads, rows, [len(os.path.commonprefix(pair)) for pair in zip(heads, rows, strict=True)]


def perplexity(
    plant: Plant,
    prompts: Sequence[str],
    answers: Sequence[str],
    *,
    of: Literal["completion", "whole"] = "completion",
    average: Literal["tokens", "texts"] = "tokens",
    batch_size: int = 64,
) -> float:
    """Perplexity: exp of the mean negative log probability of a token.

    Read it under another plant than the one that wrote the answers, or at least an unsteered one. Papers differ in
    two ways, each available by name: ODESteer scores the completion, A-LQR prompt plus completion, which hides a
    broken completion behind a fluent prompt; and both average exp over texts, which a single broken text dominates,
    where pooling all tokens weighs it by its length.

    Args:
        plant: the reading plant.
        prompts: one for each answer.
        answers: non-empty.
        of: which tokens count: of the answer given its prompt, or of the whole text after its first token.
        average: exp of the mean over all tokens, or the mean over texts of exp.
        batch_size: rows at a time.

    Raises:
        MetricError: if there is not one prompt for each answer, there is no answer, an answer is empty, or a variant
            is unknown.
    """
    if of not in ("completion", "whole") or average not in ("tokens", "texts"):
        raise MetricError(
            f"perplexity: got of={of!r}, average={average!r}, expected of 'completion' or 'whole' and average "
            "'tokens' or 'texts'."
        )
    _check_pairs(prompts, answers, "perplexity")
    if not answers:
        raise MetricError("perplexity: got no answer.")
    if any(not answer for answer in answers):
        raise MetricError("perplexity: got an empty answer, which has none. Fix: count empty answers on their own.")
    whole = plant._ids([p + a for p, a in zip(prompts, answers, strict=True)])
    if of == "completion":
        logs = plant.logprobs(prompts, answers, batch_size=batch_size)
        counts = torch.tensor([len(w) - len(h) for w, h in zip(whole, plant._ids(prompts), strict=True)])
    else:
        logs = _whole_logprobs(plant, whole, batch_size)
        counts = torch.tensor([len(w) - 1 for w in whole])
        if int(counts.min()) < 1:
            raise MetricError("perplexity: a text has one token, and nothing predicts the first.")
    if average == "tokens":
        return float(torch.exp(-logs.sum() / counts.sum()))
    return float(torch.exp(-logs / counts).mean())


def _whole_logprobs(plant: Plant, rows: list[list[int]], batch_size: int) -> torch.Tensor:
    """Log probability of each row after its first token."""
    out = torch.empty(len(rows), dtype=torch.float64)
    for start in range(0, len(rows), batch_size):
        batch = plant._pad(rows[start : start + batch_size])
        with torch.inference_mode():
            logs = plant._logits(batch)[:, :-1].float().log_softmax(-1)
        mask = (batch.attention_mask[:, 1:] * batch.attention_mask[:, :-1]).bool()
        taken = logs.gather(2, batch.input_ids[:, 1:, None])[..., 0]
        out[start : start + len(mask)] = torch.where(mask, taken, 0.0).double().sum(1).cpu()
    return out


@dataclass(frozen=True)
class Speed:
    """How fast answers are written.

    Attributes:
        seconds: for each generated token, median over repeats.
        slowest: the slowest repeat.
        tokens: tokens generated in the repeats together.
    """

    seconds: float
    slowest: float
    tokens: int


def decoding_time(
    plant: Plant, prompts: Sequence[str], *, tokens: int = 64, repeats: int = 3, warmup: int = 1
) -> Speed:
    """Time to generate a token, whatever is attached; compare as a ratio within one process, never across machines.

    Time is divided by the tokens that were written, so that a law that makes answers shorter does not look faster.

    Raises:
        MetricError: if there is no prompt, or tokens or repeats is below one.
    """
    if not prompts or tokens < 1 or repeats < 1:
        raise MetricError(
            f"decoding_time: got {len(prompts)} prompts, {tokens} tokens, {repeats} repeats; expected one or more."
        )
    times, written = [], 0
    for k in range(warmup + repeats):
        start = time.perf_counter()
        out = plant.generate(prompts, max_new_tokens=tokens, seed=k)  # its texts are on the host: nothing is pending
        elapsed, count = time.perf_counter() - start, sum(map(len, out.tokens))
        if k >= warmup:
            times.append(elapsed / count)
            written += count
    return Speed(float(np.median(times)), max(times), written)
