"""The same answers replayed under many laws: divergence from the unsteered plant, whose pass is made once.

Knows plants, steering and texts. The numbers are those of `kl_per_token` and `kl_by_token`, which make both passes for
every law; where many laws, layers or strengths are weighed on one set of answers, half of that is spent on repeating
what the unsteered plant says. Knows nothing of answers that the steered plant writes: those differ from law to law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlib.actuator import Actuator
from steerlib.finite import check_logits
from steerlib.metrics.effort import Divergence, _replayed
from steerlib.plant import Plant, Tokens


@dataclass(frozen=True)
class _Batch:
    """Texts of one pass, and what the unsteered plant says at the tokens of their answers."""

    tokens: Tokens
    lengths: Tensor
    answer: Bool[Tensor, "rows columns"]
    free: Float[Tensor, "answer_tokens vocabulary"]


class Replay:
    """Answers and the unsteered plant's distribution at each of their tokens.

    Blank answers are left out, as in `kl_per_token`.

    Args:
        plant: the plant, with nothing attached that should not be in both passes.
        prompts: one for each answer.
        answers: texts to replay.
        batch_size: rows at a time.

    Raises:
        MetricError: if there is not one prompt for each answer, or no answer has a token.
        NotFiniteError: if the logits of the plant are no numbers.
    """

    def __init__(self, plant: Plant, prompts: Sequence[str], answers: Sequence[str], *, batch_size: int = 64) -> None:
        """Make the unsteered pass."""
        _, rows, starts = _replayed(plant, prompts, answers, "Replay")
        self.plant, self.blank = plant, sum(not answer.strip() for answer in answers)
        self._batches: list[_Batch] = []
        for start in range(0, len(rows), batch_size):
            tokens = plant._pad(rows[start : start + batch_size])
            lengths = torch.tensor(starts[start : start + batch_size], device=plant.device)
            ordinal = tokens.attention_mask.cumsum(1)[:, 1:]
            answer = tokens.attention_mask[:, 1:].bool() & (ordinal > lengths[:, None])
            self._batches.append(_Batch(tokens, lengths, answer, self._said(tokens, lengths, answer, None)))

    def kl(self, steering: Actuator) -> Divergence:
        """KL(steered || unsteered) over all answer tokens; see `kl_per_token`.

        Args:
            steering: what `plant.under(...)` returned.

        Raises:
            NotFiniteError: if the logits are no numbers under a law too strong for its precision.
        """
        values = torch.from_numpy(np.concatenate(self.by_token(steering)))
        return Divergence(float(values.mean()), float(values.quantile(0.95)), len(values), self.blank)

    def by_token(self, steering: Actuator) -> list[Float[np.ndarray, " tokens"]]:
        """The same at each token of each answer; see `kl_by_token`.

        Args:
            steering: what `plant.under(...)` returned.

        Raises:
            NotFiniteError: as `kl`.
        """
        found: list[np.ndarray] = []
        for batch in self._batches:
            steered = self._said(batch.tokens, batch.lengths, batch.answer, steering)
            divergence = (steered.exp() * (steered - batch.free)).sum(-1).double().cpu()
            counts = batch.answer.sum(1).cpu().tolist()
            found += [values.numpy() for values in divergence.split(counts)]
        return found

    def _said(
        self, tokens: Tokens, lengths: Tensor, answer: Tensor, steering: Actuator | None
    ) -> Float[Tensor, "answer_tokens vocabulary"]:
        """Log probabilities of the next token where a token of an answer is chosen, answer after answer."""
        # Replays the writing of the answer, so that a law acts on the tokens it acted on then.
        with torch.inference_mode(), self.plant.passing(prompt_lengths=lengths, teacher_forced=True):
            if steering is None:
                logits = check_logits(self.plant, self.plant._logits(tokens), tokens.attention_mask)
            else:
                with steering:
                    logits = check_logits(self.plant, self.plant._logits(tokens), tokens.attention_mask)
            return logits[:, :-1][answer].float().log_softmax(-1)
