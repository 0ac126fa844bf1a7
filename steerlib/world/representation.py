"""The representation part of an acceptance: can dispositions be read from the state of a plant?

Knows how a direction is fitted on some entities and read on others, and what can be read without a plant. Knows nothing
about pushes; `accept` puts the list together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import stats

from steerlib.laws.base import Contrast
from steerlib.metrics import Estimate, auc_interval, interval_of
from steerlib.recorder import record
from steerlib.tasks.grammar import HIGH, LOW, GrammarTask
from steerlib.world.causation import FITTED_ON, Behaviour, direction
from steerlib.world.checks import Check, bounded

#: The disposition that each behaviour reads, and how often it is shown in the graded test.
READ = {"truth": "truthful", "toxicity": "civil", "refusal": "prudent"}
GRADES = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)


def representation(behaviour: Behaviour, contrasts: Sequence[Contrast]) -> tuple[list[Check], list[list[float]]]:
    """How well a direction fitted on one split of the entities orders dispositions on another.

    The layer is the one whose reading follows the grades best on the validation split; reported on the test split.
    """
    task, of = behaviour.task, READ[behaviour.name]
    layers = list(range(len(contrasts)))
    vectors = [direction(contrast).double() for contrast in contrasts]

    def read(split: str, disposition: float, seed: int, n: int) -> list[np.ndarray]:
        texts = task.world.stems(split=split, disposition=disposition, n=n, seed=seed, of=of)
        states = record(task.plant, texts, sites=layers, position="last")
        return [(states.at(site).double() @ v).numpy() for site, v in zip(states.sites, vectors, strict=True)]

    def graded(split: str, seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Readings (layers, texts) and the grade of each text."""
        by_grade = [read(split, d, seed + k, n) for k, d in enumerate(GRADES)]
        return np.concatenate(by_grade, axis=1), np.repeat(GRADES, n)

    readings, grade = graded("validation", 30, 60)
    by_layer = [float(_rank(values, grade)) for values in readings]
    best = int(np.argmax(by_layer))
    high, low = (read("test", d, 1, 200)[best] for d in (HIGH, LOW))
    readings, grade = graded("test", 10, 100)
    correlation = interval_of(_rank, readings[best], grade, resamples=200)
    checks = [
        bounded("representation", f"{of}: AUC, {HIGH} against {LOW}", auc_interval(high, low), at_least=0.9),
        bounded("representation", f"{of}: rank correlation over the range", correlation, at_least=0.7),
        bounded("representation", f"{of}: AUC of the last two tokens alone", _tokens_alone(task, of)),
    ]
    return checks, [[float(layer), value] for layer, value in enumerate(by_layer)]


def _tokens_alone(task: GrammarTask, of: str) -> Estimate:
    """AUC of a reader who sees the last two tokens of a text and nothing else: what needs no plant to be read.

    Counts pairs of tokens in texts of both kinds on the fitting split, and judges by the log of their ratio; a pair
    that was not seen there (a name) says nothing.
    """

    def ends(split: str, disposition: float, n: int, seed: int) -> list[tuple[int, ...]]:
        texts = task.world.stems(split=split, disposition=disposition, n=n, seed=seed, of=of)
        return [tuple(ids[-2:]) for ids in task.plant.tokenizer(texts)["input_ids"]]

    seen = [Counter(ends("fit", d, FITTED_ON, 0)) for d in (HIGH, LOW)]

    def judged(disposition: float) -> np.ndarray:
        found = ends("test", disposition, 200, 1)
        return np.array([math.log((seen[0][pair] + 1) / (seen[1][pair] + 1)) for pair in found])

    return auc_interval(judged(HIGH), judged(LOW))


def _rank(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation along the last axis."""
    ranks = [stats.rankdata(x, axis=-1) for x in (a, b)]
    centred = [r - r.mean(-1, keepdims=True) for r in ranks]
    return (centred[0] * centred[1]).sum(-1) / np.sqrt((centred[0] ** 2).sum(-1) * (centred[1] ** 2).sum(-1))
