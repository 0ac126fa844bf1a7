"""A sentence encoder as a judge: how near an answer lies to what was asked.

Knows embeddings and cosines. Knows nothing about what the texts say; an answer that copies its prompt scores 1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from steerlib.errors import MetricError
from steerlib.files import is_place
from steerlib.judges.base import BaseJudge, JudgeError, Opinion
from steerlib.judges.classifier import _tokenizer_text
from steerlib.loading import no_progress_bar, weight_hash
from steerlib.metrics.coherence import SentenceEmbedder, coherence_each

#: What a snapshot of an encoder is made of; its pickles stay where they are.
FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


class EncoderJudge(BaseJudge):
    """Cosine between the embeddings of a prompt and of its answer, RE-Control's coherence.

    RE-Control uses `princeton-nlp/sup-simcse-bert-base-uncased`, whose embedding is the first token's, and which reads
    128 word pieces: of a long dialogue its beginning.

    Args:
        name: hub id or folder; weights in safetensors.
        revision: commit, branch or tag of a hub id; by default its main branch.
        pooling: "first", the state of the first token, or "mean", the mean over real tokens.
        max_tokens: longer texts are cut there.
        batch_size: texts at a time; does not move a score beyond rounding.
        device: by default a GPU if there is one.

    Raises:
        JudgeError: if there is no such model, or an option has no meaning.
    """

    def __init__(
        self,
        name: str,
        *,
        revision: str | None = None,
        pooling: Literal["first", "mean"] = "first",
        max_tokens: int = 128,
        batch_size: int = 64,
        device: str | torch.device | None = None,
    ) -> None:
        """Load the model."""
        here = Path(name).expanduser()
        if not here.is_dir() and is_place(name):
            raise JudgeError(f"judge {name!r}: no such folder. Expected one that exists, or a hub id (owner/model).")
        if revision is not None and here.is_dir():
            raise JudgeError(
                f"judge {name}: got revision={revision!r}, expected none for a folder, which has one only."
            )
        if max_tokens < 1 or batch_size < 1:
            raise JudgeError(
                f"judge {name}: got max_tokens={max_tokens}, batch_size={batch_size}, expected at least 1 of each."
            )
        try:
            place = str(here) if here.is_dir() else name if revision is None else _snapshot(name, revision)
            with no_progress_bar():
                self._embed = SentenceEmbedder(place, pooling=pooling, max_tokens=max_tokens, batch_size=batch_size)
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise JudgeError(
                f"judge {name!r} cannot be loaded: {first} Expected a folder, or a hub id, with config.json, a "
                "tokenizer and safetensors."
            ) from error
        self._embed.model.to(torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
        self.name = here.name if here.is_dir() else name
        parts = {
            "weights": weight_hash(self._embed.model),
            "tokenizer": hashlib.sha256(_tokenizer_text(self._embed.tokenizer).encode()).hexdigest(),
            "pooling": pooling,
            "max_tokens": max_tokens,
        }
        self.version = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def opinions(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Opinion]:
        """The cosines; a blank prompt has none."""
        asked = [i for i, prompt in enumerate(prompts) if prompt.strip()]
        found = [Opinion(None, "the prompt is empty") for _ in prompts]
        if not asked:
            return found
        try:
            scores = coherence_each(self._embed, [prompts[i] for i in asked], [answers[i] for i in asked])
        except MetricError as error:
            raise JudgeError(f"{self.name}: {error} Fix: float32, or another encoder.") from error
        for i, score in zip(asked, scores.tolist(), strict=True):
            found[i] = Opinion(score)
        return found


def _snapshot(name: str, revision: str) -> str:
    """The folder of an encoder at a revision, for a class that takes none."""
    from huggingface_hub import snapshot_download

    return snapshot_download(name, revision=revision, allow_patterns=list(FILES))
