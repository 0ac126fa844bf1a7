"""Coherence: does an answer stay with its prompt?

Knows sentence embeddings behind one small interface. Knows nothing about who made the texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float

from steerlib.errors import MetricError


class Embedder(Protocol):
    """Turns texts into vectors."""

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "texts width"]:
        """One vector for each text."""
        ...


class SentenceEmbedder:
    """A Hugging Face encoder as an embedder.

    RE-Control uses `princeton-nlp/sup-simcse-bert-base-uncased`, whose embedding is the first token's.

    Args:
        name: hub id or folder; weights in safetensors.
        pooling: "first", the state of the first token, or "mean", the mean over real tokens.
        max_tokens: longer texts are cut there, as that model does at 128 word pieces.
        batch_size: texts at a time.

    Raises:
        MetricError: if the pooling is unknown.
    """

    def __init__(
        self, name: str, *, pooling: Literal["first", "mean"] = "first", max_tokens: int = 128, batch_size: int = 64
    ) -> None:
        """Load the model, in evaluation mode."""
        from transformers import AutoModel, AutoTokenizer

        if pooling not in ("first", "mean"):
            raise MetricError(f"SentenceEmbedder: got pooling={pooling!r}, expected 'first' or 'mean'.")
        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self.model = AutoModel.from_pretrained(name, use_safetensors=True).eval()
        self._pooling, self._max_tokens, self._batch_size = pooling, max_tokens, batch_size

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "texts width"]:
        """One vector for each text."""
        rows = []
        for start in range(0, len(texts), self._batch_size):
            batch = self.tokenizer(
                list(texts[start : start + self._batch_size]),
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.inference_mode():
                states = self.model(**batch).last_hidden_state
            if self._pooling == "first":
                rows.append(states[:, 0])
            else:
                mask = batch["attention_mask"][..., None]
                rows.append((states * mask).sum(1) / mask.sum(1))
        return torch.cat(rows).float().cpu().numpy()


def coherence_each(embed: Embedder, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " answers"]:
    """Cosine between the embeddings of each prompt and its answer; NaN, a stated missing value, where one is empty.

    Raises:
        MetricError: if the lengths differ, nothing can be embedded, or an embedding is zero or not finite.
    """
    if len(prompts) != len(answers):
        raise MetricError(f"coherence: got {len(prompts)} prompts and {len(answers)} answers, expected pairs.")
    kept = [i for i, (p, a) in enumerate(zip(prompts, answers, strict=True)) if p.strip() and a.strip()]
    if not kept:
        raise MetricError("coherence: no pair of a prompt and an answer that are not empty.")
    first, second = (np.asarray(embed([texts[i] for i in kept]), dtype=np.float64) for texts in (prompts, answers))
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise MetricError("coherence: an embedding is zero or not finite.")
    out = np.full(len(prompts), np.nan)
    out[kept] = (first * second).sum(1) / norms
    return out


def coherence(embed: Embedder, prompts: Sequence[str], answers: Sequence[str]) -> float:
    """Mean cosine between prompts and answers, as RE-Control reports it; empty answers count as 0.

    An answer that copies its prompt is perfectly coherent.
    """
    return float(np.nan_to_num(coherence_each(embed, prompts, answers), nan=0.0).mean())
