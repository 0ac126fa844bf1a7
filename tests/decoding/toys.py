"""Rewards that are known, and decoding by the plain way: everything read anew for every candidate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from steerlib.plant import Plant
from tests.families import VOCABULARY, plant, words

PROMPTS = [words(5, 9, 30), words(7), words(40, 41, 42, 43, 44), words(8, 8)]
ENDS = [2, *range(60, 75)]


def worth(token: int) -> float:
    """A number for each token; special tokens have none, since texts do not show them."""
    return 0.0 if token < 3 else ((37 * token) % 101) / 25


def word_rewards(prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
    """Sum of the worth of the words."""
    assert len(prompts) == len(answers)
    return [sum(worth(int(word[1:])) for word in answer.split()) for answer in answers]


def toy(*, seed: int = 0, ending: bool = False) -> Plant:
    """A random Llama; with `ending`, many tokens end an answer."""
    made = plant("llama", seed=seed)
    if ending:
        made.model.generation_config.eos_token_id = ENDS
    return made


def reader(*, seed: int = 5, labels: int = 1) -> LlamaForSequenceClassification:
    """A random reward model of tokens, with large weights."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_labels=labels, pad_token_id=0, max_position_embeddings=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForSequenceClassification(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() >= 2:
                    parameter.normal_(std=0.5)
    return model


def ids_of(text: str) -> list[int]:
    return [int(word[1:]) for word in text.split()]


def next_logits(p: Plant, ids: Sequence[int]) -> torch.Tensor:
    return p.forward(p._pad([list(ids)]))[0, -1].float()


def plainly(
    p: Plant, prompt: str, score: Callable[[list[int], int], float], *, k: int, weight: float, most: int
) -> tuple[int, ...]:
    """Greedy controlled decoding of one prompt; `score` is asked of (all ids so far, candidate)."""
    ends = p.model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    ids, answer = ids_of(prompt), []
    for _ in range(most):
        logits = next_logits(p, ids)
        best = logits.topk(k).indices.tolist()
        totals = {token: float(logits[token]) + weight * score(ids, token) for token in best}
        token = max(sorted(totals), key=lambda t: totals[t])
        ids.append(token)
        answer.append(token)
        if token in ends:
            break
    return tuple(answer)
