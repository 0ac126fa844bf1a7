"""What ODESteer costs: its fit beside scikit-learn's on the same states, and a token by every route to the same field.

The fit is of 5,000 + 5,000 made-up states of width 4096 with a sketch of dimension 8,000, against scikit-learn's
PolynomialCountSketch and LogisticRegression at the settings of the released code. Each fit has a process of its own,
taking turns, and its held-out AUC beside it. Targets: under 8 seconds and 2 GB, four times as fast, at an AUC that is
no lower by more than 0.005. steerlib does not need scikit-learn, which comes with the extra "harness" alone; without it
its part is left out, and said to be. To have it for a run and leave the environment as it is:

    python -m pip install --no-deps --target build/sklearn scikit-learn==1.9.1 joblib threadpoolctl narwhals cloudpickle
    PYTHONPATH=build/sklearn python benchmarks/barrier.py --what fit --rounds 3

Decoding is at ten steps, as tokens per second over those of the unsteered plant, in turns: the sketch itself; one
product with a matrix a step; the eigenbasis, two products for all steps. Targets: 0.95 at batch 64, and compiled at
any batch. How many times as fast the exact routes are as the sketch stands beside it, from the same run.

    python benchmarks/barrier.py --keep build/barrier.jsonl
    python benchmarks/barrier.py --what decode --batch 64 --compile none --route eigen --route sketch
    python benchmarks/barrier.py --what fit --rounds 3

Prints tables; the last line is JSON. On a busy machine look at processor time. The law has a random barrier and a small
horizon, so that texts hardly change: what a token costs does not depend on where it leads.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from common.answering import answering, beside_unsteered
from common.cases import code_of
from common.kept import Kept
from common.processes import alone
from common.timing import memory_mb, peak_mb, ratio, spent
from laws import clouds
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from steerlib import tasks
from steerlib.control import barrier as barriers
from steerlib.control.barrier import SketchForm
from steerlib.control.density_ratio import Features, auc, fit_ratio
from steerlib.control.sketch import PolynomialSketch
from steerlib.laws.barrier import ODESteer
from steerlib.plant import Plant

#: What runs.
PLACES = ("steerlib.plant.Plant", "steerlib.laws.barrier.ODESteer")
FIT_SECONDS, FIT_MB, FASTER, AUC_LOST = 8.0, 2048, 4.0, 0.005
FETCH = "pip install --no-deps --target build/sklearn scikit-learn==1.9.1 joblib threadpoolctl narwhals cloudpickle"
DECODE_TARGET, TARGET_BATCH = 0.95, 64
HORIZON = 1e-3
NOISE = 0.4  # beside a gap of 1 between classes: without it every reader would have an AUC of 1
WORDS = 8  # of a prompt


def fit_ours(states: Path, dimension: int, threads: int) -> dict[str, Any]:
    """Time, memory and held-out AUC of steerlib's fit; in a process of its own."""
    torch.set_num_threads(threads)
    held = load_file(states)
    fit_ratio(held["positive"][:8], held["negative"][:8], features=Features(dimension=64))  # threads, allocations
    before, out = memory_mb(), {}
    how = Features(dimension=dimension)
    took = spent(lambda: out.update(h=fit_ratio(held["positive"], held["negative"], features=how).barrier))
    peak, h = peak_mb(), out["h"].quadratic()
    scores = [barriers.value(h, held[name].double()) for name in ("held_positive", "held_negative")]
    return _row("steerlib", took, before, peak, auc(*scores))


def fit_theirs(states: Path, dimension: int, threads: int) -> dict[str, Any]:
    """The same of scikit-learn, at the settings of ODESteer's released code; in a process of its own."""
    from sklearn.kernel_approximation import PolynomialCountSketch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer
    from threadpoolctl import threadpool_limits

    held = {name: part.numpy() for name, part in load_file(states).items()}
    rows = np.concatenate([held["positive"], held["negative"]])
    labels = np.r_[np.ones(len(held["positive"])), np.zeros(len(held["negative"]))]
    sketch = PolynomialCountSketch(gamma=0.1, degree=2, coef0=1.0, n_components=dimension, random_state=0)
    made = make_pipeline(Normalizer(), sketch, LogisticRegression(max_iter=1000))
    with threadpool_limits(threads):
        before = memory_mb()
        took = spent(lambda: made.fit(rows, labels))
        peak = peak_mb()
        scores = [torch.from_numpy(made.decision_function(held[name])) for name in ("held_positive", "held_negative")]
    return _row("scikit-learn", took, before, peak, auc(*scores))


def _row(name: str, took: Any, before: float, peak: float, area: float) -> dict[str, Any]:
    return {
        "who": name, "seconds": round(took.wall, 3), "processor_s": round(took.processor, 3),
        "others": took.others and round(took.others, 2), "peak_mb": round(peak), "before_mb": round(before),
        "auc": round(area, 4),
    }  # fmt: skip


def fits(n: int, width: int, dimension: int, threads: int, rounds: int) -> dict[str, Any]:
    """Both fits in turns on the same states, and their ratio."""
    ways: dict[str, Callable[..., dict[str, Any]]] = {"steerlib": fit_ours}
    there = beside()
    if there:
        ways["scikit-learn"] = fit_theirs
    aside = max(2, n // 5)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        states = Path(folder) / "states.safetensors"
        parts, noise = {}, torch.Generator().manual_seed(1)
        for name, rows in zip(("positive", "negative"), clouds(n + aside, width), strict=True):
            rows = rows + NOISE * torch.randn(rows.shape, generator=noise)
            parts |= {name: rows[:n].contiguous(), f"held_{name}": rows[n:].contiguous()}
        save_file(parts, states)
        del parts
        for number in range(rounds):
            for name in list(ways) if number % 2 == 0 else reversed(list(ways)):
                found[name].append(alone(ways[name], states, dimension, threads))
    out: dict[str, Any] = {"rows": [row for rows in found.values() for row in rows]}
    if not there:
        out["left_out"] = f"scikit-learn is not installed: {FETCH}, and PYTHONPATH=build/sklearn"
    if any("failed" in row for row in out["rows"]):
        return out
    if there:
        for kind in ("seconds", "processor_s"):
            theirs, ours = ([row[kind] for row in found[name]] for name in ("scikit-learn", "steerlib"))
            out[f"{kind}_ratio"] = ratio(theirs, ours)
    return out | {"targets": targets(found, out)}


def beside() -> bool:
    """Whether scikit-learn can be measured too."""
    return importlib.util.find_spec("sklearn") is not None


def targets(found: dict[str, list[dict[str, Any]]], ratios: dict[str, Any]) -> dict[str, bool]:
    """Which targets the fits meet, by the median of the rounds; those about scikit-learn only where it was measured."""
    middle = {name: {key: float(np.median([row[key] for row in rows])) for key in ("seconds", "peak_mb", "auc")}
              for name, rows in found.items()}  # fmt: skip
    ours = middle["steerlib"]
    met = {f"under {FIT_SECONDS:g} s": ours["seconds"] < FIT_SECONDS, f"under {FIT_MB} MB": ours["peak_mb"] < FIT_MB}
    if "seconds_ratio" in ratios:
        met[f"{FASTER:g} times as fast"] = ratios["seconds_ratio"]["ratio"] >= FASTER
        met[f"AUC within {AUC_LOST:g}"] = ours["auc"] >= middle["scikit-learn"]["auc"] - AUC_LOST
    return met


def law_of(plant: Plant, *, route: str, dimension: int, steps: int) -> ODESteer:
    """The law with a random barrier."""
    sketch = PolynomialSketch.draw(plant.width, dimension=dimension)
    weight = torch.randn(dimension, generator=torch.Generator().manual_seed(0))
    law = ODESteer(steps=steps, route=route, dimension=dimension, strength=HORIZON)  # type: ignore[arg-type]
    law.hold(SketchForm(sketch, weight, torch.tensor(0.0), unit=True))
    return law.to(plant.device)


def decoded(plant: Plant, law: ODESteer, size: int, *, tokens: int, rounds: int, compile: str | None) -> dict[str, Any]:
    """Tokens per second under the law over those of the unsteered plant."""
    prompt = " ".join(tasks.for_plant(plant).prompts("test")[0].split()[:WORDS])
    run = answering(plant, [prompt] * size, tokens=tokens, compile=compile)
    enter = partial(plant.under, law, layer=plant.depth // 2)
    free, steered = beside_unsteered(run, enter, rounds=rounds, compile=compile)
    others = [one.others for one in (*free, *steered) if one.others is not None]
    return {
        "clock": ratio([one.wall for one in free], [one.wall for one in steered]),
        "processor": ratio([one.processor for one in free], [one.processor for one in steered]),
        "target": DECODE_TARGET if size == TARGET_BATCH or compile else None,
        "others": round(float(np.mean(others)), 2) if others else None,
    }  # fmt: skip


def exact_over_sketch(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times as many tokens the exact routes make as the sketch does, where both were measured in one run."""
    sketch = {(row["compile"], row["batch"]): row for row in rows if row["route"] == "sketch"}
    found = []
    for row in rows:
        beside = sketch.get((row["compile"], row["batch"]))
        if beside is not None and row["route"] != "sketch":
            times = {kind: round(row[kind]["ratio"] / beside[kind]["ratio"], 3) for kind in ("clock", "processor")}
            found.append({key: row[key] for key in ("compile", "route", "batch")} | times)
    return found


def main(
    what: Annotated[list[str] | None, typer.Option(help="fit or decode; repeat; both by default")] = None,
    n: Annotated[int, typer.Option(min=8, help="states of each class, and a fifth more held out")] = 5000,
    width: Annotated[int, typer.Option(min=2, help="size of a state")] = 4096,
    dimension: Annotated[int, typer.Option(min=9, help="of the sketch")] = 8000,
    plant: Annotated[str, typer.Option(help="plant to decode with")] = "almanac-llama",
    route: Annotated[list[str] | None, typer.Option(help="eigen, matrix or sketch; repeat; all by default")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="batch sizes; repeat; 1, 16 and 64 by default")] = None,
    compile: Annotated[list[str] | None, typer.Option(help="torch.compile backends, or none; both by default")] = None,
    steps: Annotated[int, typer.Option(min=1, help="of Euler's method")] = 10,
    tokens: Annotated[int, typer.Option(min=1, help="tokens to generate for each prompt")] = 40,
    rounds: Annotated[int, typer.Option(min=1, help="turns of each way to decode; fits take three at most")] = 15,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = min(2, os.cpu_count() or 1),
    keep: Annotated[Path | None, typer.Option(help="file of finished rows; a second run goes on from there")] = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    asked, kept, code = what or ["fit", "decode"], Kept(keep), code_of(*PLACES)
    settings = {"code": code, "threads": threads, "dimension": dimension}
    out: dict[str, Any] = {"threads": threads, "dimension": dimension}
    console = Console(width=130)
    if "fit" in asked:
        of = {"what": "fit", "n": n, "width": width, "rounds": min(rounds, 3), "beside": beside(), **settings}
        out["fit"] = kept.get(of)
        if out["fit"] is None:
            out["fit"] = fits(n, width, dimension, threads, min(rounds, 3))
            kept.put(of, out["fit"])
        console.print(table_of_fits(out["fit"], f"{n:,} + {n:,} states of width {width}, dimension {dimension:,}"))
    if "decode" in asked:
        loaded, rows = Plant.load(plant), []
        loaded.model.generation_config.eos_token_id = None  # every answer has the same length  # type: ignore[union-attr]
        for backend in [None if name == "none" else name for name in compile or ["none", "inductor"]]:
            for way in route or ["eigen", "matrix", "sketch"]:
                law = law_of(loaded, route=way, dimension=dimension, steps=steps)
                for size in batch or [1, 16, 64]:
                    of = {"compile": backend, "route": way, "batch": size}
                    named = {**of, "plant": plant, "steps": steps, "tokens": tokens, "rounds": rounds, **settings}
                    row = kept.get(named)
                    if row is None:
                        found = decoded(loaded, law, size, tokens=tokens, rounds=rounds, compile=backend)
                        row = {**of, **found}
                        kept.put(named, row)
                    rows.append(row)
        out["decode"], out["exact_over_sketch"] = rows, exact_over_sketch(rows)
        console.print(table_of_routes(rows, f"{loaded}, {steps} steps, {tokens} tokens, {rounds} turns"))
        for row in out["exact_over_sketch"]:
            named = f"{row['compile'] or 'eager'}, {row['route']}, batch {row['batch']}"
            console.print(f"{named}: {row['clock']:.2f} times the sketch's tokens a second")
    print(json.dumps(out))


def table_of_fits(found: dict[str, Any], title: str) -> Table:
    """Fits as they are printed."""
    table = Table(title=f"Fit on {title}", title_justify="left")
    for column in ("whose", "seconds", "of the processor", "others", "peak, MB", "before", "held-out AUC"):
        table.add_column(column, justify="left" if column == "whose" else "right")
    for row in found["rows"]:
        if "failed" in row:
            table.add_row(row["failed"])
            continue
        table.add_row(
            row["who"], f"{row['seconds']:.2f}", f"{row['processor_s']:.2f}", str(row["others"] or ""),
            f"{row['peak_mb']:,}", f"{row['before_mb']:,}", f"{row['auc']:.4f}",
        )  # fmt: skip
    said = [found["left_out"]] if "left_out" in found else []
    if "seconds_ratio" in found:
        clock, work = found["seconds_ratio"], found["processor_s_ratio"]
        said.append(f"{clock['ratio']:.1f} times as fast by the clock, {work['ratio']:.1f} by processor time")
    said += [f"{name}: {'met' if met else 'not met'}" for name, met in found.get("targets", {}).items()]
    table.caption = "\n".join(said)
    return table


def table_of_routes(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Ways to decode as they are printed."""
    table = Table(title=title, title_justify="left")
    for column in ("code", "route", "batch", "clock", "95 %", "processor", "95 %", "target"):
        table.add_column(column)
    for row in rows:
        clock, work = row["clock"], row["processor"]
        table.add_row(
            row["compile"] or "eager", row["route"], str(row["batch"]),
            f"{clock['ratio']:.3f}", f"{clock['low']:.3f} to {clock['high']:.3f}",
            f"{work['ratio']:.3f}", f"{work['low']:.3f} to {work['high']:.3f}", str(row["target"] or ""),
        )  # fmt: skip
    return table


if __name__ == "__main__":
    typer.run(main)
