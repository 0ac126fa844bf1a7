"""A race course in closed form: what a cell scores and what a multiplier costs are written here.

Difference of means raises the wanted score with its strength, most at block 2, and wears the intact one down with the
cost that it spends; at block 1 it does so at ten times the cost. A random direction, and shuffled labels, cost the same
and do nothing wanted. Scores vary over prompts, and a little over seeds.
"""

from __future__ import annotations

import numpy as np

from steerlib.experiment.calibrate import Calibration, calibrate
from steerlib.experiment.cells import Cell, Fit, LawSpec
from steerlib.experiment.methods import Method
from tests.experiment.toys import record

PROMPTS = 40
GAIN = {1: 0.10, 2: 0.20, 3: 0.05}


def cost(cell: Cell, strength: float) -> float:
    return (10.0 if cell.law.layer == 1 else 1.0) * 0.1 * strength**2


def measure(cell: Cell):
    rng = np.random.default_rng([len(cell.split), cell.limit or 0])
    wanted, intact = 0.3 + 0.2 * rng.random(PROMPTS), np.full(PROMPTS, 0.9)
    if cell.law is not None:
        seed = cell.law.fit.seed
        real = cell.law.name == "difference-of-means" and cell.law.fit.labels == "true"
        noise = np.random.default_rng([seed, cell.law.layer, real]).normal(0, 0.03, PROMPTS)
        wanted = np.clip(wanted + real * GAIN[cell.law.layer] * cell.law.strength + noise, 0, 1)
        intact = np.clip(intact - cost(cell, cell.law.strength), 0, 1)
    if cell.told:
        wanted = np.minimum(1, wanted + 0.4)
    return record(cell, scores={"wanted": tuple(wanted), "intact": tuple(intact)})


class Runner:
    """Measures cells and remembers which."""

    def __init__(self):
        self.batches: list[list[Cell]] = []

    def __call__(self, cells):
        self.batches.append(list(cells))
        return [measure(cell) for cell in cells]


def spend(budget):
    def one(cell: Cell) -> Calibration:
        return calibrate(lambda strength: cost(cell, strength), budget, start=cell.law.strength)

    return one


def method(name="push", layers=(1, 2, 3), strengths=(0.5, 1.0), **more) -> Method:
    laws = [
        LawSpec(name="difference-of-means", layer=layer, strength=strength, fit=Fit(n=10), **more)
        for layer in layers
        for strength in strengths
    ]
    return Method(name=name, laws=tuple(laws))
