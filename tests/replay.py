"""The logits of a fixed answer under a law, computed in every way a plant can run.

`one_by_one` is the plainest way (single rows, no padding, no cache, no compilation); the others must agree with it.
All give a tensor (prompts, tokens of the answer, vocabulary).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from steerlib.plant import Plant, Side, Tokens
from tests.families import words


class Force:
    """A logits processor that makes `generate` write a given answer, so that logits can be compared."""

    def __init__(self, answer: Sequence[int], prompt_columns: int) -> None:
        self.answer, self.columns = answer, prompt_columns

    def __call__(self, ids: Tensor, scores: Tensor) -> Tensor:
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.answer[ids.shape[1] - self.columns]] = 0.0
        return forced


def one_by_one(p: Plant, law: Any, prompts: Sequence[str], answer: Sequence[int], **where: Any) -> Tensor:
    """Single rows, no padding, no cache; `where` goes to `plant.under`."""
    rows = []
    for prompt in prompts:
        head = p.encode([prompt]).input_ids
        whole = torch.cat([head, torch.tensor([list(answer)])], 1)
        with (
            under(p, law, **where),
            p.passing(prompt_lengths=torch.tensor([head.shape[1]]), teacher_forced=True),
            torch.inference_mode(),
        ):
            logits = p._logits(Tokens(whole, torch.ones_like(whole)))
        rows.append(logits[0, head.shape[1] - 1 : -1])
    return torch.stack(rows)


def by_generation(
    p: Plant, law: Any, prompts: Sequence[str], answer: Sequence[int], *, layer: Any = None, scope: Any = None,
    **options: Any,
) -> Tensor:  # fmt: skip
    """The bare model's own `generate` on a left-padded batch, with a cache; `options` go to it."""
    batch = p.encode(prompts)
    with under(p, law, layer=layer, scope=scope), torch.inference_mode():
        out = p.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=len(answer),
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
            logits_processor=[Force(answer, batch.input_ids.shape[1])],
            pad_token_id=0,
            disable_compile=True,
            **options,
        )
    return torch.stack(out.logits, 1)


def by_teacher(
    p: Plant, law: Any, prompts: Sequence[str], answer: Sequence[int], *, side: Side, **where: Any
) -> Tensor:
    """One pass over the padded texts, prompt and answer together."""
    lengths = p.encode(prompts).lengths
    batch = p.encode([prompt + " " + words(*answer) for prompt in prompts], side=side)
    with under(p, law, **where), p.passing(prompt_lengths=lengths, teacher_forced=True), torch.inference_mode():
        logits = p._logits(batch)
    real = batch.attention_mask.bool()
    return torch.stack([logits[i][real[i]][head - 1 : -1] for i, head in enumerate(lengths.tolist())])


def under(p: Plant, law: Any, **where: Any) -> Any:
    """The block in which the law acts; None is no law."""
    return nullcontext() if law is None else p.under(law, **where)
