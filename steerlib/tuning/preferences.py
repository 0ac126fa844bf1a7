"""Direct preference optimisation: an adapter that makes preferred answers more likely than the others.

Rafailov et al. 2023 (arXiv 2305.18290): the loss is -log sigmoid(beta * margin), where the margin is how much more the
log probability of the preferred answer has grown, against the plant, than that of the other; log 2 at the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steerlib.plant import Plant
from steerlib.tasks.base import Pair, Task
from steerlib.tasks.grammar import HIGH, LOW
from steerlib.tasks.helpfulness import Helpfulness
from steerlib.tasks.real import Preference
from steerlib.tuning.adapters import Lora, Tuned, TuningError, twin
from steerlib.tuning.running import Job, Sitting, Training, arguments, lora_config, run
from steerlib.tuning.trainers import end_token, extra, padded_tokenizer
from steerlib.world.advice import advice


def dpo(
    plant: Plant,
    pairs: Sequence[Pair],
    *,
    folder: str | Path,
    lora: Lora | None = None,
    how: Training | None = None,
    beta: float = 0.1,
) -> Tuned:
    """Tune a plant to prefer the wanted answers.

    Each answer is followed by the plant's end token. Texts are never cut: one that the plant cannot read is refused.

    Args:
        plant: stays as it is.
        pairs: prompts with the preferred and the other answer; see `preferences`.
        folder: for the adapter, and for what is needed to take up a run that was broken off. A finished one is read.
        lora: shape of the adapter.
        how: of training; a step is a batch of pairs.
        beta: how dear it is to move away from the plant.

    Returns:
        The tuned plant. Its history has, for each step, before it is taken, `loss`, `rewards/margins` (beta times the
        margin) and `rewards/accuracies` (share of pairs with a margin above 0).

    Raises:
        TuningError: no pairs, answers of a pair that are alike or empty, beta not above 0, no such target module, or
            see `steerlib.tuning.running.run`.
        PlantError: a text is too long, or a prompt and its answer share a token.

    Source: RE-Control's comparator (Kong et al. 2024, section 6); its settings are not known here.
    """
    lora, how, folder = lora or Lora(), how or Training(), Path(folder)
    texts = _checked(plant, pairs, beta)
    job = Job("dpo", plant, lora, how, [texts, beta], len(texts), folder)
    lora.modules(plant)  # refused here, before anything is imported
    tokenizer, end = padded_tokenizer(plant), end_token(plant)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if tokenizer(f"{texts[0][1]}{tokenizer.eos_token}")["input_ids"][-1] != end:
        raise TuningError(
            f"{plant.name}: its tokenizer does not read {tokenizer.eos_token!r} after an answer as token {end}, which "
            "ends answers. Fix: make it a special token of the tokenizer."
        )

    def sit(sitting: Sitting) -> Any:
        trl, datasets = extra("trl"), extra("datasets")
        rows = [dict(zip(("prompt", "chosen", "rejected"), texts[i], strict=True)) for i in sitting.rows]
        settings = trl.DPOConfig(**arguments(job, sitting), max_steps=sitting.steps, beta=beta, max_length=None)
        return trl.DPOTrainer(
            model=twin(plant), args=settings, train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer, peft_config=lora_config(job),
        )  # fmt: skip

    return run(job, sit)


def _checked(plant: Plant, pairs: Sequence[Pair], beta: float) -> list[tuple[str, str, str]]:
    if not pairs:
        raise TuningError("dpo: got no pairs, expected at least one. Fix: preferences(task, n=...).")
    if not beta > 0:
        raise TuningError(f"dpo: got beta={beta}, expected a number above 0.")
    for i, pair in enumerate(pairs):
        if pair.wanted == pair.unwanted:
            raise TuningError(
                f"dpo, pair {i}: both answers are {pair.wanted[:40]!r}, which prefers nothing. Fix: leave it out."
            )
        if not pair.wanted.strip() or not pair.unwanted.strip():
            raise TuningError(f"dpo, pair {i}: an answer is empty ({pair.prompt[-40:]!r}). Fix: leave it out.")
    for answers in ([pair.wanted for pair in pairs], [pair.unwanted for pair in pairs]):
        _, rows = plant._pairs([pair.prompt for pair in pairs], answers)
        limit = plant.context_length
        if limit is not None and max(map(len, rows)) >= limit:
            raise TuningError(
                f"dpo: got a text of {limit} tokens, which leaves no room for the end token. Fix: leave it out."
            )
    return [(pair.prompt, pair.wanted, pair.unwanted) for pair in pairs]


def preferences(task: Task, *, n: int, seed: int = 0) -> list[Pair]:
    """Pairs of whole answers to learn a preference from, of the split that laws are fitted on.

    On the Almanac a careful and a careless adviser answer the same request, and the answer that earns more is
    preferred; requests are bare, as they are when answers are scored, so that nothing but the reply tells who gave it.
    On real data they are the pairs of the set.

    Args:
        task: `Helpfulness`, or the preference task of real data.
        n: at most so many.
        seed: which ones.

    Raises:
        TuningError: if the task compares no whole answers, or n is below one.
    """
    if n < 1:
        raise TuningError(f"preferences: got n={n}, expected at least one pair.")
    if isinstance(task, Helpfulness):
        return _advised(task, n=n, seed=seed)
    if isinstance(task, Preference):
        found = task.pairs("fit")
        return [found[i] for i in sorted(_chosen(len(found), n, seed))]
    raise TuningError(
        f"{task.name}: compares no whole answers. Fix: Helpfulness or Preference, or pairs of one's own for dpo."
    )


def _chosen(size: int, n: int, seed: int) -> list[int]:
    return np.random.default_rng([seed, 0xD0]).permutation(size)[:n].tolist()


def _advised(task: Helpfulness, *, n: int, seed: int) -> list[Pair]:
    # Now and then a careless adviser replies as well as a careful one: draw more, and keep where one is better.
    good, bad = (
        advice(task.world, split="fit", prudence=p, harmful=task.harmful, n=2 * n + 8, seed=seed) for p in (HIGH, LOW)
    )
    earned = [task.rewards([a.first for a in group], [a.reply for a in group]) for group in (good, bad)]
    pairs = []
    for one, other, mine, theirs in zip(good, bad, *earned, strict=True):
        # The lines before the last two tell who the adviser is.
        prompt = "\n".join(one.first.text.split("\n")[-2:])
        if mine != theirs and other.first.text.endswith(prompt):
            first, second = (one, other) if mine > theirs else (other, one)
            pairs.append(Pair(prompt, first.reply, second.reply))
    return pairs[:n]
