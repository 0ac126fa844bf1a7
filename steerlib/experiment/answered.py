"""What sampled answers say besides their scores: how varied they are, what judges said of them, and what they cost.

Knows texts, columns of numbers, a plant and what steers it. Knows nothing about tasks, cells or records. Perplexity is
not here: it needs a reader other than the plant that wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from jaxtyping import Float
from scipy import stats

from steerlib.actuator import Actuator
from steerlib.errors import MetricError
from steerlib.judges import Judgement, agreement
from steerlib.metrics import (
    Estimate,
    dist_n,
    diversity_each,
    effort_by_token,
    mean_interval,
    metric_named,
    reward_quantile,
)
from steerlib.plant import Plant

#: Parts into which answers are divided for intervals of effort: enough for a spread, few enough to batch.
SECTIONS = 8
_LEVEL = 0.95


def variety(answers: Sequence[str]) -> dict[str, Estimate]:
    """Diversity and Dist-1 to Dist-3 by their catalogue names, with intervals over answers.

    Every answer counts: one of fewer than n words has Dist-n 0, so that silence earns nothing; see `dist_n`.
    """
    found = {metric_named("diversity").name: mean_interval(diversity_each(answers))}
    for n in (1, 2, 3):
        found[metric_named(f"dist-{n}").name] = mean_interval([dist_n([answer], n) for answer in answers])
    return found


def further(columns: Mapping[str, Float[np.ndarray, " answers"]], answers: Sequence[str]) -> dict[str, Estimate]:
    """Means of what else was measured of each answer, by catalogue names; their `n` is how many answers have a value.

    Of rewards also the 90th percentile. Where attacks were judged by phrases and by a judge of harm, the agreement of
    the two on the answers that say something: they cannot but agree on silence. A metric is left out where fewer than
    two answers have a value, and the agreement where the two are too one-sided for it to mean anything.

    Args:
        columns: values, NaN where there is none; see `steerlib.tasks.base.Scores.more`.
        answers: the texts.
    """
    found = {}
    for name, column in columns.items():
        values = column[np.isfinite(column)]
        if len(values) > 1:
            found[metric_named(name).name] = mean_interval(values)
            if name == "reward":
                found[metric_named("reward-p90").name] = reward_quantile(values, 0.9)
    if {"attack-success", "attack-success-phrases"} <= set(columns):
        spoken = np.array([bool(answer.strip()) for answer in answers])
        harm, phrases = (_judgement(columns[name][spoken]) for name in ("attack-success", "attack-success-phrases"))
        with suppress(MetricError):
            found[metric_named("attack-agreement").name] = agreement(harm, phrases).kappa
    return found


def _judgement(column: Float[np.ndarray, " answers"]) -> Judgement:
    """Scores that were kept without the judgement they come from."""
    return Judgement(column, {i: "no score" for i in np.flatnonzero(np.isnan(column)).tolist()}, "kept scores", "")


def effort(
    plant: Plant, steering: Callable[[], Actuator], prompts: Sequence[str], answers: Sequence[str]
) -> dict[str, Estimate]:
    """Divergence from the unsteered plant and energy of the input on the answers, by their catalogue names.

    The answers are replayed in both plants, so that no noise of sampling lies between them. Values are over all tokens
    of all answers; intervals come from sections of the answers (Asmussen and Glynn 2007, III.5): Student's t around
    the value, with the spread of the sections' own values.

    Blank answers have no token and are left out; the `n` of each metric is how many answers it is over, so a record
    shows by how much that falls short of its prompts. No metric if fewer than two answers say anything.

    Args:
        plant: with nothing attached.
        steering: gives what `plant.under(...)` gives, anew at each call.
        prompts: one for each answer.
        answers: written by the steered plant.
    """
    kept = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if answer.strip()]
    if len(kept) < 2:
        return {}
    count = min(SECTIONS, len(kept))
    each = effort_by_token(plant, steering(), *zip(*kept, strict=True))
    kl, energy = [one.kl for one in each], [one.energy for one in each]
    kls = [np.concatenate(kl[k::count]) for k in range(count)]
    energies = [np.concatenate(energy[k::count]) for k in range(count)]

    def p95(values: np.ndarray) -> float:
        return float(np.quantile(values, 0.95))

    rows = {
        "kl": (np.concatenate(kl).mean(), [part.mean() for part in kls]),
        "kl-p95": (p95(np.concatenate(kl)), [p95(part) for part in kls]),
        "energy": (np.concatenate(energy).mean(), [part.mean() for part in energies]),
    }
    return {
        metric_named(name).name: _sectioned(float(value), parts, len(kept)) for name, (value, parts) in rows.items()
    }


def _sectioned(value: float, sections: Sequence[float], n: int) -> Estimate:
    """A value that cannot be negative, with Student's interval from what sections of the data say."""
    count = len(sections)
    spread = np.sqrt(np.mean((np.asarray(sections) - value) ** 2) * count / (count - 1))
    half = float(stats.t.ppf((1 + _LEVEL) / 2, count - 1) * spread / np.sqrt(count))
    return Estimate(value, min(value, max(0.0, value - half)), value + half, n)
