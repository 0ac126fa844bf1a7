"""By how much exact scoring cuts the cost of a comparison between a steered and an unsteered plant.

The comparison is a small push along the difference of means, on truth. Its exact score has one source of noise, which
prompts were drawn; a sampled score adds that of the answers. So two things are asked of sampling:

* same width: how many prompts, each answered once by both plants, give an interval as narrow as the exact one;
* equal noise: how many answers to each prompt make the noise between seeds as small as that between prompts.

Noise is "shared" where both plants answer a prompt with the same random numbers, as steerlib's sampler does, and "own"
where each draws its own, as is usual. T*I is taken to first order: each prompt by its weight in the product of means.

    python benchmarks/exact.py --plant almanac-llama --strength 0.5

The effects stand side by side because they need not be one: an exact score knows the truth, the popular error and every
way to decline, and a plant that names some third value is informative to the oracle alone. The ratio depends on the
effect as well: the smaller it is, the less do prompts differ in it, and the more does sampling cost.

Prints a table; the last line is JSON. Times are wall times of one process in one run, exact and sampled rounds
interleaved; tokenizing the grammar's forms, done once for a task, stands by itself. On a busy machine, look at
"processor_ratio": sampled over exact in processor time, which waiting does not touch.
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

from steerlib.laws.additive import DifferenceOfMeans
from steerlib.plant import Plant
from steerlib.tasks import Scores, Truth


def timed(run: Callable[[], Scores]) -> tuple[np.ndarray, Scores]:
    """Wall time and processor time of one call, and what it gave."""
    wall, processor = time.perf_counter(), time.process_time()
    found = run()
    return np.array([time.perf_counter() - wall, time.process_time() - processor]), found


def pull(scores: Scores, exact: Scores, metric: str) -> np.ndarray:
    """What each prompt adds to a metric; for T*I to first order around the exact means."""
    if metric == "True":
        return scores.wanted
    wanted, intact = float(exact.wanted.mean()), float(exact.intact.mean())
    return scores.wanted * intact + wanted * scores.intact - wanted * intact


def main(
    plant: Annotated[str, typer.Option(help="a plant grown on the Almanac")] = "almanac-llama",
    strength: Annotated[float, typer.Option(help="multiplier of the push")] = 0.5,
    layer: Annotated[int | None, typer.Option(help="block; by default the middle one")] = None,
    prompts: Annotated[int, typer.Option(min=10, help="at most so many test prompts")] = 100,
    rounds: Annotated[int, typer.Option(min=3, help="seeds sampled, and times that exact scores are computed")] = 6,
) -> None:
    """Measure and print."""
    lm = Plant.load(plant, device="cpu")
    task = Truth(lm)
    at = lm.depth // 2 if layer is None else layer
    law = DifferenceOfMeans(strength=strength).fit(task.contrast(layer=at, n=100))

    def both(run: Callable[[], Scores]) -> tuple[np.ndarray, Scores, Scores]:
        with lm.under(law):
            first, steered = timed(run)
        second, bare = timed(run)
        return first + second, steered, bare

    tokenizing = timed(lambda: task.exact(limit=prompts))[0]
    exact_times, sampled_times = [], []
    said: list[tuple[Scores, Scores]] = []
    for seed in range(rounds):
        seconds, steered, bare = both(lambda: task.exact(limit=prompts))
        exact_times.append(seconds)
        seconds, *scores = both(lambda seed=seed: task.sampled(limit=prompts, seed=seed)[0])
        sampled_times.append(seconds)
        said.append((scores[0], scores[1]))
    exact_s, exact_cpu = np.median(exact_times, axis=0).tolist()
    sampled_s, sampled_cpu = np.median(sampled_times, axis=0).tolist()
    tokenizing_s = max(0.0, float(tokenizing[0]) - exact_s / 2)
    n = len(bare.wanted)

    table = Table(
        title=f"{plant}, truth, push {strength:g} at block {at}: {n} prompts; exact {exact_s:.3f} s, one answer of "
        f"both plants to each {sampled_s:.3f} s, tokenizing once {tokenizing_s:.3f} s",
        title_justify="left",
    )
    columns = ("metric", "noise", "effect, exact", "effect, sampled", "same width: prompts", "time")
    for column in (*columns, "equal noise: answers", "time"):
        table.add_column(column, justify="left" if column in ("metric", "noise") else "right")
    out: list[dict[str, object]] = []
    for metric in ("True", "T*I"):
        exact = pull(steered, steered, metric) - pull(bare, bare, metric)
        between = float(exact.var(ddof=1))
        treated = np.array([pull(t, steered, metric) for t, _ in said])
        control = np.array([pull(c, bare, metric) for _, c in said])
        gap = treated - control
        # The noise of the mean over seeds that is left, on these prompts.
        error = float(np.sqrt(gap.var(0, ddof=1).mean() / gap.size))
        within = {
            "shared": float(gap.var(0, ddof=1).mean()),
            "own": float((treated.var(0, ddof=1) + control.var(0, ddof=1)).mean()),
        }
        for noise, variance in within.items():
            same_width = 1 + variance / between  # times as many prompts
            equal_noise = variance / between
            row = {
                "metric": metric,
                "noise": noise,
                "exact": round(float(exact.mean()), 4),
                "exact_interval": round(1.96 * float(np.sqrt(between / n)), 4),
                "sampled": round(float(gap.mean()), 4),
                "sampled_noise": round(1.96 * error, 4),
                "prompts_for_same_width": round(same_width * n),
                "time_ratio_same_width": round(same_width * sampled_s / exact_s, 1),
                "answers_for_equal_noise": round(equal_noise, 1),
                "time_ratio_equal_noise": round(equal_noise * sampled_s / exact_s, 1),
            }
            out.append(row)
            table.add_row(
                metric, noise,
                f"{row['exact']} ± {row['exact_interval']}", f"{row['sampled']} ± {row['sampled_noise']}",
                f"{row['prompts_for_same_width']:,} ({same_width:.1f} x)", f"{row['time_ratio_same_width']} x",
                f"{row['answers_for_equal_noise']} a prompt", f"{row['time_ratio_equal_noise']} x",
            )  # fmt: skip
    Console(width=160).print(table)
    print(
        json.dumps(
            {"plant": plant, "prompts": n, "exact_s": round(exact_s, 4), "sampled_s": round(sampled_s, 4),
             "processor_ratio": round(sampled_cpu / exact_cpu, 2), "tokenizing_s": round(tokenizing_s, 4), "rows": out}
        )
    )  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
