"""What each registered law costs: to fit, and for every token while generating.

Two parts, each runnable alone:

* fit: 5,000 + 5,000 made-up states of width 4096, two Gaussians with the same decaying spectrum, seconds for each law
  with its default options (one fit each);
* decode: tokens per second as a ratio to the unsteered plant. Each law takes turns with the unsteered plant, round by
  round, so that a change of the machine's mood hits both.

    python benchmarks/laws.py --part fit
    python benchmarks/laws.py --part decode --batch 1 --batch 16 --batch 64 --compile none --compile inductor
    python benchmarks/laws.py --law mimic --law repe --n 200 --width 256 --batch 1 --tokens 8 --rounds 2 --compile none

Prints a table for each part; the last line is JSON. HPR, TruthFlow and RE-Control train networks, and original ITI fits
a probe for each head: they are no part of the target for fits. RE-Control makes a single pass over the data.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Annotated, Any

import numpy as np
import torch
import typer
from decode_cost import seconds
from rich.console import Console
from rich.table import Table

from steerlib import tasks
from steerlib.actuator import Site
from steerlib.laws.answers import Answers
from steerlib.laws.base import Contrast
from steerlib.laws.rewarded import Rewarded
from steerlib.laws.scored import Scored
from steerlib.plant import Plant
from steerlib.registry import LAWS, law_class
from steerlib.tasks.source import TaskSource

TARGET = 10.0  # seconds for a fit
#: Arguments that a law cannot be made without, or that a plant of few heads asks for.
OPTIONS: dict[str, dict[str, Any]] = {
    "conditional": {"behaviour": "difference-of-means"},
    "iti": {"num_heads": 4},
    "re-control": {"passes": 1, "batch": 512},
}
#: Laws that are meant for other tokens than those of the answer.
SCOPES: dict[str, str] = {"actadd": "prefill", "iti": "last"}
#: First positions of a text, for laws that tell them apart.
POSITIONS = 8
#: Options of training, where a law has them, for laws that are only decoded with.
SHORT: dict[str, Any] = {"updates": 20, "passes": 1}


@dataclass(frozen=True)
class Shape:
    """All that a fit asks of a plant: how deep it is, and how many heads share a state."""

    depth: int
    heads: int


@dataclass(frozen=True)
class MadeUp:
    """A source of states that no plant has measured: the same two clouds wherever a law looks.

    Attributes:
        contrast: the states.
        plant: for laws that ask what it looks like.
        site: where the law is to act.
        scope: name of the token scope it is meant for.
        seed: of nothing.
    """

    contrast: Contrast
    plant: Shape
    site: Site
    scope: str
    seed: int = 0

    def contrasts(self, sites: Sequence[Site], **_: object) -> list[Contrast]:
        """The clouds, once for each site."""
        return [self.contrast for _ in sites]

    def by_position(self, sites: Sequence[Site], **_: object) -> list[list[Contrast]]:
        """The clouds, for each site once for each of a few positions."""
        return [[self.contrast] * POSITIONS for _ in sites]

    def conditions(self, sites: Sequence[Site], **_: object) -> list[Contrast]:
        """The clouds, as prompts to act on and to leave alone."""
        return self.contrasts(sites)

    def scored(self, sites: Sequence[Site]) -> list[Scored]:
        """The clouds, with a reward for those of one class."""
        return [Scored.of_classes(self.contrast) for _ in sites]

    def trajectories(self, sites: Sequence[Site]) -> list[Rewarded]:
        """The clouds as answers of one token, with a reward for those of one class."""
        return [Rewarded.of_classes(self.contrast) for _ in sites]

    def answers(self, sites: Sequence[Site]) -> list[Answers]:
        """The clouds as right and wrong answers, and what they share as the question."""
        right, wrong = self.contrast
        return [Answers((right + wrong) / 2, right, wrong) for _ in sites]


def clouds(n: int, width: int, *, seed: int = 0) -> Contrast:
    """Two Gaussians with variances that fall as 1 / (1 + index), mixed so that no neuron is alone, a unit apart."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    scales = (1 + torch.arange(width)).rsqrt()
    shared = draw(n, width)  # what both members of a pair have in common
    states = [(0.8 * shared + 0.6 * draw(n, width)) * scales for _ in range(2)]
    for _ in range(3):  # reflections mix the neurons at little cost
        mirror = torch.nn.functional.normalize(draw(width), dim=0)
        states = [rows - 2 * torch.outer(rows @ mirror, mirror) for rows in states]
    gap = torch.nn.functional.normalize(draw(width), dim=0)
    return Contrast(states[0] + gap / 2, states[1] - gap / 2, paired=True)


def fit_times(names: Sequence[str], *, n: int, width: int, shape: Shape) -> list[dict[str, Any]]:
    """Seconds of one fit of each law, and the peak of the process's memory after it."""
    contrast = clouds(n, width)
    law_class("difference-of-means")().fit(contrast)  # threads and allocations
    out = []
    for name in names:
        source: Any = MadeUp(contrast, shape, Site(shape.depth - 1), SCOPES.get(name, "generated"))
        law = law_class(name)(**OPTIONS.get(name, {}))
        spent = seconds(partial(law.fit_from, source))
        out.append({"law": name, "seconds": round(spent, 3), "peak_mb": round(_peak_mb())})
    return out


def fitted(names: Sequence[str], plant: Plant) -> dict[str, Any]:
    """The laws, fitted on a few texts: what a token costs does not depend on how well they are fitted."""
    task, found = tasks.for_plant(plant), {}
    for name in names:
        source = TaskSource(task, Site(plant.depth // 2), n=50, scope=SCOPES.get(name, "generated"))
        short = {key: value for key, value in SHORT.items() if key in signature(law_class(name)).parameters}
        found[name] = law_class(name)(**{**OPTIONS.get(name, {}), **short}).fit_from(source)
    return found


def decode_costs(
    laws: dict[str, Any], plant: Plant, *, batch: int, tokens: int, rounds: int, compile: str | None
) -> list[dict[str, Any]]:
    """Ratio of tokens per second, steered over unsteered, for each law."""
    prompts = (tasks.for_plant(plant).prompts("test") * batch)[:batch]
    plant.model.generation_config.eos_token_id = None  # every answer has the same length
    cache: Any = "static" if compile else "dynamic"

    def free() -> object:
        return plant.generate(prompts, max_new_tokens=tokens, seed=0, batch_size=batch, cache=cache, compile=compile)

    out = []
    for name, law in laws.items():

        def steered(law: Any = law) -> object:
            with plant.under(law):
                return free()

        # Compiled code of one law at a time: dynamo keeps few, and looks through all that it keeps at every step.
        torch._dynamo.reset()
        for _ in range(2):  # caches, allocations, compiled code
            free(), steered()
        turns = [(seconds(free), seconds(steered)) for _ in range(rounds)]
        ratios = np.array([base / own for base, own in turns])
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        rate = batch * tokens / float(np.median([own for _, own in turns]))
        out.append(
            {"law": name, "batch": batch, "compile": compile, "ratio": round(float(middle), 4),
             "low": round(float(low), 4), "high": round(float(high), 4), "tokens_per_s": round(rate)}
        )  # fmt: skip
    return out


def main(
    part: Annotated[list[str] | None, typer.Option(help="fit or decode; repeat the option; both by default")] = None,
    law: Annotated[list[str] | None, typer.Option(help="registered laws; repeat the option; all by default")] = None,
    plant: Annotated[str, typer.Option(help="plant to decode with")] = "almanac-llama",
    n: Annotated[int, typer.Option(help="fit: states of each class")] = 5000,
    width: Annotated[int, typer.Option(help="fit: size of a state")] = 4096,
    depth: Annotated[int, typer.Option(help="fit: layers, for laws that ask for the states of all")] = 1,
    heads: Annotated[int, typer.Option(help="fit: attention heads that share a state")] = 32,
    batch: Annotated[list[int] | None, typer.Option(help="decode: batch sizes; 1, 16 and 64 by default")] = None,
    compile: Annotated[
        list[str] | None, typer.Option(help="decode: torch.compile backends, or none; both by default")
    ] = None,
    tokens: Annotated[int, typer.Option(help="decode: tokens to generate for each prompt")] = 40,
    rounds: Annotated[int, typer.Option(help="decode: rounds of turns")] = 15,
) -> None:
    """Measure and print."""
    chosen, names = part or ["fit", "decode"], law or list(LAWS)
    console = Console(width=110)
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    if "fit" in chosen:
        found["fit"] = fit_times(names, n=n, width=width, shape=Shape(depth, heads))
        console.print(_fit_table(found["fit"], f"{n:,} + {n:,} states of width {width}, {depth} layer(s)"))
    if "decode" in chosen:
        loaded = Plant.load(plant)
        laws = fitted(names, loaded)
        found["decode"] = [
            row
            for backend in compile or ["none", "inductor"]
            for size in batch or [1, 16, 64]
            for row in decode_costs(
                laws, loaded, batch=size, tokens=tokens, rounds=rounds, compile=None if backend == "none" else backend
            )
        ]
        console.print(_decode_table(found["decode"], loaded))
    print(json.dumps(found))


def _fit_table(rows: list[dict[str, Any]], what: str) -> Table:
    table = Table(title=f"Fit on {what}, {torch.get_num_threads()} threads", title_justify="left")
    for column in ("law", "seconds", f"under {TARGET:g} s", "peak memory so far, MB"):
        table.add_column(column)
    for row in rows:
        verdict = "yes" if row["seconds"] < TARGET else "no"
        table.add_row(row["law"], f"{row['seconds']:.2f}", verdict, f"{row['peak_mb']:,}")
    return table


def _decode_table(rows: list[dict[str, Any]], plant: Plant) -> Table:
    table = Table(title=f"{plant}, {torch.get_num_threads()} threads", title_justify="left")
    for column in ("law", "batch", "code", "tokens/s", "ratio to unsteered", "middle half"):
        table.add_column(column)
    for row in sorted(rows, key=lambda row: (row["law"], row["compile"] or "", row["batch"])):
        table.add_row(
            row["law"], str(row["batch"]), row["compile"] or "not compiled", f"{row['tokens_per_s']:,}",
            f"{row['ratio']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}",
        )  # fmt: skip
    return table


def _peak_mb() -> float:
    """Largest resident memory of the process until now."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # macOS counts bytes, Linux kilobytes


if __name__ == "__main__":
    typer.run(main)
