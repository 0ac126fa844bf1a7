"""States of a task's questions and of a right and a wrong answer to each, for laws that look at the question once.

Knows a task's pairs and how to record them; knows nothing about laws.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from steerlib.actuator import Site
from steerlib.errors import ContrastError
from steerlib.laws.answers import Answers
from steerlib.laws.base import LawHeader
from steerlib.recorder import record
from steerlib.tasks.base import Split, Task


def answers_of(task: Task, site: Site, *, n: int, seed: int, scope: str = "generated", split: Split = "fit") -> Answers:
    """Measure questions and answers, under whatever is attached to the plant.

    A question's state is that of its last token; an answer's is the mean over its tokens, read after the question.

    Args:
        task: whose pairs (`Task.pairs`).
        site: where.
        n: questions; fewer if the task has fewer, since none is used twice.
        seed: which of them.
        scope: name of the token scope that the law is meant for.
        split: whose questions.

    Raises:
        ContrastError: if n is below one, or the task has no pair in this split.
        PlantError: if a question and its answer share a token.
    """
    if n < 1:
        raise ContrastError(f"n: got {n}, expected at least one question.")
    pairs = task.pairs(split)
    if not pairs:
        raise ContrastError(f"{task.name}: got no pair of answers in split {split!r}. Fix: another task or split.")
    chosen = [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))[:n]]
    plant, site = task.plant, site.resolve(task.plant.depth)
    prompts = [pair.prompt for pair in chosen]
    found, digests = [], []
    for answers in ([pair.wanted for pair in chosen], [pair.unwanted for pair in chosen]):
        heads, _ = plant._pairs(prompts, answers)
        seen = record(
            plant, [p + a for p, a in zip(prompts, answers, strict=True)], sites=[site], position="all"
        )  # fmt: skip
        rows = seen.at(site).split(list(seen.rows))
        # A causal model's state at the end of the question does not know the answer.
        query = torch.stack([row[len(head) - 1] for row, head in zip(rows, heads, strict=True)])
        found.append((query, torch.stack([row[len(head) :].mean(0) for row, head in zip(rows, heads, strict=True)])))
        digests.append(seen.data_hash)
    (query, right), (_, wrong) = found
    header = LawHeader(
        layer=site.layer, point=site.point, scope=scope, plant=plant.name, weight_hash=plant.weight_hash,
        width=query.shape[1], data_hash=hashlib.sha256("".join(digests).encode()).hexdigest(), seed=seed,
    )  # fmt: skip
    return Answers(query, right, wrong, header)
