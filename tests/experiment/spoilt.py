"""What the files of planted mutants share: how a law is spoilt by its strength, what is read, and how it is judged.

Knows scores and claims. Knows nothing about plants, tasks or which law it is; mutants that are laws of their own are in
`tests.experiment.mutants`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from steerlib.experiment.claims import Verdict, load_claims
from steerlib.experiment.claims.paired import judge_samples
from steerlib.experiment.samples import product_scores
from steerlib.tasks.base import Scores

#: What is made of a law's strength: the law itself, and its mutants.
MUTANTS = {"law": 1.0, "idle": 0.0, "flipped": -1.0}
EXPECTED = [("law", Verdict.REPRODUCED), ("idle", Verdict.NOT_REPRODUCED), ("flipped", Verdict.CONTRADICTED)]
Part = Callable[[Scores], np.ndarray]


def product(found: Scores) -> np.ndarray:
    return product_scores(found.wanted[None], found.intact[None])[0]


def wanted(found: Scores) -> np.ndarray:
    return found.wanted


def unwanted(found: Scores) -> np.ndarray:
    return 1 - found.wanted


def verdict(claim: str, samples: dict[str, np.ndarray]) -> Verdict:
    """Of one seed: seeds are asked for by the claim, and are no matter here."""
    found = load_claims()[claim]
    once = found.model_copy(update={"tolerance": found.tolerance.model_copy(update={"seeds": 1})})  # type: ignore[union-attr]
    return judge_samples(once, {name: grid[None] for name, grid in samples.items()}).verdict  # type: ignore[arg-type]
