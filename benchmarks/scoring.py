"""How long every metric that needs no model takes on 1,000 generations, on one core.

    python benchmarks/scoring.py

Prints a table; the last line is JSON. Times are medians over the rounds, intervals included where a metric has one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from steerlib import metrics

#: Generations that are scored, and words in each.
TEXTS, WORDS = 1_000, 100


def tasks() -> dict[str, Callable[[], object]]:
    """Each metric on drawn texts and scores."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{k}" for k in rng.zipf(1.3, size=WORDS) % 5_000) for _ in range(TEXTS)]
    scores, other = rng.random((2, TEXTS))
    flags, flags_too = (rng.random((2, TEXTS)) < 0.5).astype(float)
    samples, grid, grid_too = rng.random((TEXTS, 25)), *rng.random((2, 5, TEXTS))
    return {
        "diversity": lambda: metrics.diversity(texts),
        "dist-1, dist-2, dist-3": lambda: [metrics.dist_n(texts, n) for n in (1, 2, 3)],
        "dist-1 to 3, pooled": lambda: [metrics.dist_n(texts, n, pooled=True) for n in (1, 2, 3)],
        "refusal by phrases": lambda: metrics.refused(texts),
        "True x Info": lambda: metrics.truth_times_info(flags, flags_too),
        "True and Info": lambda: metrics.true_and_informative(flags, flags_too),
        "toxicity, share": lambda: metrics.toxic_share(samples),
        "toxicity, expected maximum of 10 in 25": lambda: metrics.expected_maximum_toxicity(samples, k=10),
        "reward, mean": lambda: metrics.mean_interval(scores),
        "reward, 90th percentile": lambda: metrics.reward_quantile(scores),
        "win rate, three rules": lambda: [metrics.win_rate(scores, other, ties=t) for t in ("lose", "half", "dropped")],
        "mean over 5 seeds": lambda: metrics.grid_interval(grid),
        "paired difference over 5 seeds": lambda: metrics.paired_grid_difference(grid, grid_too),
    }


def main(rounds: Annotated[int, typer.Option(min=1, help="times that everything is measured")] = 3) -> None:
    """Measure and print."""
    found: dict[str, list[float]] = {}
    work = tasks()
    for _ in range(rounds):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            found.setdefault(name, []).append(time.perf_counter() - start)
    medians = {name: float(np.median(times)) for name, times in found.items()}
    table = Table(title=f"{TEXTS:,} generations of {WORDS} words", title_justify="left")
    table.add_column("metric")
    table.add_column("seconds", justify="right")
    for name, seconds in [*medians.items(), ("all", sum(medians.values()))]:
        table.add_row(name, f"{seconds:.3f}")
    Console().print(table)
    print(json.dumps({"all": round(sum(medians.values()), 3), **{k: round(v, 4) for k, v in medians.items()}}))


if __name__ == "__main__":
    typer.run(main)
