"""What steering costs while generating, as a ratio to the unsteered plant in the same run.

Three ways to generate the same number of tokens, interleaved, so that a change of the machine's mood hits all:

* bare: the model without any of steerlib's hooks;
* unsteered: the plant, hooks in place, nothing attached;
* steered: a difference of means attached at the middle layer.

    python benchmarks/decode_cost.py --plant almanac-llama --batch 1 --batch 64

Prints a table; the last line is JSON. Ratios are tokens per second over those of the unsteered plant (median of
the rounds, with the middle half of them).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from steerlib import tasks
from steerlib.actuator import Wiring
from steerlib.laws.additive import DifferenceOfMeans
from steerlib.plant import Plant


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call, waiting for a GPU if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(
    plant: Plant, *, batch: int, tokens: int, rounds: int, cache: str, compile: str | None
) -> dict[str, list[float]]:
    """Seconds of each way, round by round."""
    task = tasks.for_plant(plant)
    law = DifferenceOfMeans().fit(task.contrast(layer=plant.depth // 2, n=50))
    prompts = (task.prompts("test") * batch)[:batch]
    plant.model.generation_config.eos_token_id = None  # every answer has the same length

    def generate() -> object:
        return plant.generate(prompts, max_new_tokens=tokens, seed=0, batch_size=batch, cache=cache, compile=compile)  # type: ignore[arg-type]

    def steered() -> object:
        with plant.under(law):
            return generate()

    found: dict[str, list[float]] = {"bare": [], "unsteered": [], "steered": []}
    for _ in range(2):  # caches, allocations, compiled code
        generate(), steered()
    for _ in range(rounds):
        found["unsteered"].append(seconds(generate))
        found["steered"].append(seconds(steered))
        if compile is None:  # taking hooks off would need another compilation
            plant.close()
            found["bare"].append(seconds(generate))
            plant.wiring = Wiring(plant.model, plant.anatomy)
    return {name: values for name, values in found.items() if values}


def main(
    plant: Annotated[str, typer.Option(help="plant to measure")] = "almanac-llama",
    batch: Annotated[list[int] | None, typer.Option(help="batch sizes; repeat the option")] = None,
    tokens: Annotated[int, typer.Option(help="tokens to generate for each prompt")] = 40,
    rounds: Annotated[int, typer.Option(help="interleaved rounds")] = 15,
    cache: Annotated[str, typer.Option(help="dynamic or static")] = "dynamic",
    compile: Annotated[str | None, typer.Option(help="torch.compile backend, with --cache static")] = None,
) -> None:
    """Measure and print."""
    loaded = Plant.load(plant)
    table = Table(
        title=f"{loaded}, {cache} cache, {compile or 'eager'}, {torch.get_num_threads()} threads", title_justify="left"
    )
    for column in ("batch", "way", "tokens/s", "ratio to unsteered", "middle half"):
        table.add_column(column)
    out = []
    for size in batch or [1, 64]:
        found = measure(loaded, batch=size, tokens=tokens, rounds=rounds, cache=cache, compile=compile)
        base = np.array(found["unsteered"])
        for way, values in found.items():
            ratios = base / np.array(values)
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
            rate = size * tokens / float(np.median(values))
            table.add_row(str(size), way, f"{rate:,.0f}", f"{middle:.3f}", f"{low:.3f} to {high:.3f}")
            out.append({"batch": size, "way": way, "tokens_per_s": round(rate), "ratio": round(float(middle), 4)})
    Console(width=110).print(table)
    print(json.dumps({"plant": plant, "cache": cache, "compile": compile, "rows": out}))


if __name__ == "__main__":
    typer.run(main)
