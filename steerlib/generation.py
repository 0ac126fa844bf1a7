"""How a plant writes answers: the passes of generation, eager or compiled, and what comes of them.

Knows caches, compiled one-token passes and where answers end. Knows nothing about laws or tasks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import LogitsProcessorList

from steerlib.compiling import check_backend
from steerlib.errors import PlantError
from steerlib.finite import Watch
from steerlib.sampling import GumbelSampler

if TYPE_CHECKING:
    from steerlib.plant import Plant, Tokens


@dataclass(frozen=True)
class Generation:
    """Sampled answers, in the order of the prompts.

    Attributes:
        prompts: the prompts, repeated where several samples were asked for.
        texts: the answers alone, without special tokens.
        tokens: token ids of each answer up to and including the end token.
        seed: the seed that reproduces them.
    """

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    seed: int

    def __len__(self) -> int:
        """Number of answers."""
        return len(self.texts)


def answer_texts(plant: Plant, prompts: list[list[int]], answers: tuple[tuple[int, ...], ...]) -> tuple[str, ...]:
    """Decode answers in their context: alone, some tokenizers drop the space an answer begins with."""
    whole = plant.tokenizer.batch_decode(
        [[*head, *tail] for head, tail in zip(prompts, answers, strict=True)], skip_special_tokens=True
    )
    heads = plant.tokenizer.batch_decode(prompts, skip_special_tokens=True)
    return tuple(text[len(head) :] for head, text in zip(heads, whole, strict=True))


def generate_batch(
    plant: Plant,
    batch: Tokens,
    max_new_tokens: int,
    sampler: GumbelSampler | None,
    cache: str,
    compile: str | None,
) -> Int[Tensor, "batch new"]:
    """Token ids of the answers to one batch of left-padded prompts; see `Plant.generate`.

    Raises:
        NotFiniteError: if a token was chosen from logits that are no numbers.
    """
    watch = Watch()
    # Only a pass without a cache sees prompt and answer at once, and then needs to know where prompts end.
    lengths = batch.lengths if cache == "none" else None
    with (
        torch.inference_mode(),
        plant.passing(prompt_lengths=lengths),
        _decoding_with(plant, compile),
        _quiet(),
    ):
        out = plant.model.generate(  # type: ignore[operator]
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_k=None,
            top_p=None,
            logits_processor=LogitsProcessorList([watch, sampler] if sampler is not None else [watch]),
            pad_token_id=plant.pad_id,
            use_cache=cache != "none",
            cache_implementation="static" if cache == "static" else None,
            disable_compile=True,  # ours is below, where the hooks are known to be in place
        )
    new = out[:, batch.input_ids.shape[1] :]  # type: ignore[index]
    watch.check(plant, new, _ends(plant))
    return new


@contextmanager
def _decoding_with(plant: Plant, backend: str | None) -> Iterator[None]:
    """Run one-token passes through compiled code; prompts, whose length varies, run eagerly."""
    if backend is None:
        yield
        return
    eager = plant.model.forward
    if backend not in plant._compiled:
        check_backend(backend, device=plant.device)
        plant._compiled[backend] = torch.compile(eager, backend=backend, dynamic=False)
    compiled = plant._compiled[backend]

    # With its signature: transformers counts positions over real tokens only for a forward that says it takes them.
    @wraps(eager)
    def forward(*args: Any, **kwargs: Any) -> Any:
        one = kwargs["input_ids"].shape[1] == 1 if kwargs.get("input_ids") is not None else False
        return (compiled if one else eager)(*args, **kwargs)

    plant.model.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del plant.model.forward  # the class's own method shows again


def cut(plant: Plant, new: Int[Tensor, "batch new"]) -> list[tuple[int, ...]]:
    """Token ids of each answer up to its end token."""
    stop = _ends(plant)
    cut: list[tuple[int, ...]] = []
    for row in new.tolist():
        end = next((i + 1 for i, token in enumerate(row) if token in stop), len(row))
        cut.append(tuple(row[:end]))
    return cut


def _ends(plant: Plant) -> set[int]:
    """Tokens that end an answer."""
    ends = plant.model.generation_config.eos_token_id
    return set(ends if isinstance(ends, list) else [ends]) - {None}


def check_generation(
    max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None,
    samples: int, batch_size: int, cache: str, compile: str | None,
) -> None:  # fmt: skip
    """Refuse arguments of `Plant.generate` that are out of their range, with a PlantError."""
    wrong = [
        (max_new_tokens < 1, f"max_new_tokens: got {max_new_tokens}, expected at least 1."),
        (temperature < 0, f"temperature: got {temperature}, expected 0 (greedy) or more."),
        (top_k is not None and top_k < 1, f"top_k: got {top_k}, expected at least 1, or None."),
        (
            top_p is not None and not 0 < top_p <= 1,
            f"top_p: got {top_p}, expected a number in (0, 1], or None.",
        ),
        (samples < 1, f"samples: got {samples}, expected at least 1."),
        (batch_size < 1, f"batch_size: got {batch_size}, expected at least 1."),
        (
            cache not in ("dynamic", "static", "none"),
            f"cache: got {cache!r}, expected dynamic, static or none.",
        ),
        (
            compile is not None and cache != "static",
            f"compile={compile!r} needs cache='static', got {cache!r}.",
        ),
    ]
    for bad, message in wrong:
        if bad:
            raise PlantError(message)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' warnings about sampling flags that this module sets on purpose."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="transformers.generation")
        yield
