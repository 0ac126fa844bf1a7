"""How long each registered law takes to fit, in its main variants, and how much memory: each in a process of its own.

States are made up: 5,000 + 5,000 of width 4096, two Gaussians with the same decaying spectrum. The target is 10 seconds
on two processors; HPR, TruthFlow and RE-Control train networks and original ITI fits a probe for each head: they have
none. RE-Control makes a single pass over the states, which stand for answers of one token.

    python benchmarks/laws.py --keep build/laws.jsonl
    python benchmarks/laws.py --law mimic --law repe --n 200 --width 256 --most 60

With `--keep`, what is measured is kept in a file, and a run that was interrupted goes on where it ended; a law is
measured again when its code has changed. Prints a table; the last line is JSON. On a busy machine look at processor
time: "others" says how many processors other processes kept busy. Threads that wait for one another there count as
busy, so that `--threads 1` gives the clearest figure. What a token costs is in `decode_cost.py`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from common.cases import FIT_TARGET, Case, chosen, code_of
from common.kept import Kept
from common.processes import alone
from common.timing import Clock, memory_mb, peak_mb, spent
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from steerlib.actuator import Site
from steerlib.laws.answers import Answers
from steerlib.laws.base import Contrast
from steerlib.laws.rewarded import Rewarded
from steerlib.laws.scored import Scored
from steerlib.registry import law_class

#: First positions of a text, for laws that tell them apart.
POSITIONS = 8
#: Processors that others may use before a time on the clock says nothing about a free machine.
QUIET = 0.2


@dataclass(frozen=True)
class Sizes:
    """What the laws are fitted on, and with how many threads.

    Attributes:
        n: states of each class.
        width: size of a state.
        depth: layers, for laws that ask for the states of all.
        heads: attention heads that share a state.
        threads: of torch.
    """

    n: int
    width: int
    depth: int
    heads: int
    threads: int


@dataclass(frozen=True)
class MadeUp:
    """A source of states that no plant has measured: the same two clouds wherever a law looks.

    Attributes:
        contrast: the states.
        plant: for laws that ask how deep it is, and how many heads share a state.
        site: where the law is to act.
        scope: name of the token scope it is meant for.
        seed: of nothing.
    """

    contrast: Contrast
    plant: Sizes
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


def fit_once(case: Case, states: Path, sizes: Sizes, clock: Clock | None = None) -> dict[str, Any]:
    """Time and memory of one fit in this process, which must be a new one: a peak of memory is that of its life."""
    torch.set_num_threads(sizes.threads)
    held = load_file(states)
    contrast = Contrast(held["positive"], held["negative"], paired=True)
    few = Contrast(contrast.positive[:8], contrast.negative[:8])
    law_class("difference-of-means")().fit(few)  # threads and first allocations
    law = law_class(case.law)(**case.options)
    source: Any = MadeUp(contrast, sizes, Site(sizes.depth - 1), case.scope)
    before = memory_mb()
    took = spent(partial(law.fit_from, source), clock)
    return {
        "law": str(case), "seconds": round(took.wall, 3), "processor_s": round(took.processor, 3),
        "others": took.others and round(took.others, 2), "peak_mb": round(peak_mb()), "before_mb": round(before),
        "verdict": verdict(case, took.wall, took.processor, took.others, sizes.threads),
    }  # fmt: skip


def verdict(case: Case, wall: float, processor: float, others: float | None, threads: int) -> str:
    """Whether a fit met the target: "yes", "no", "none" for a law without one, or that a busy machine cannot tell.

    A fit with so many threads takes no less time than its processor time shared out among them.
    """
    if case.trained:
        return "none"
    if wall < FIT_TARGET:
        return "yes"
    return "busy" if (others or 0) > QUIET and processor / threads < FIT_TARGET else "no"


def main(
    law: Annotated[list[str] | None, typer.Option(help="laws or variants; repeat the option; all by default")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="laws or variants to leave out; repeat the option")] = None,
    n: Annotated[int, typer.Option(min=8, help="states of each class")] = 5000,
    width: Annotated[int, typer.Option(min=2, help="size of a state")] = 4096,
    depth: Annotated[int, typer.Option(min=1, help="layers, for laws that ask for the states of all")] = 1,
    heads: Annotated[int, typer.Option(min=1, help="attention heads that share a state")] = 32,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = min(2, os.cpu_count() or 1),
    most: Annotated[float | None, typer.Option(min=0.1, help="seconds after which a fit is ended")] = None,
    keep: Annotated[Path | None, typer.Option(help="file of finished rows; a second run goes on from there")] = None,
) -> None:
    """Measure and print."""
    cases, sizes = chosen("fit", law or [], skip or []), Sizes(n, width, depth, heads, threads)
    kept, rows = Kept(keep), []
    with tempfile.TemporaryDirectory() as folder:
        states = Path(folder) / "states.safetensors"
        for case in cases:
            of = {"law": str(case), "code": code_of(*case.places), **vars(sizes)}
            row = kept.get(of)
            if row is None:
                if not states.exists():
                    positive, negative = clouds(n, width)
                    save_file({"positive": positive.contiguous(), "negative": negative.contiguous()}, states)
                row = {"law": str(case), **alone(fit_once, case, states, sizes, most=most)}
                kept.put(of, row)
            rows.append(row)
    Console(width=130).print(table_of(rows, sizes))
    print(json.dumps({"threads": threads, "n": n, "width": width, "depth": depth, "heads": heads, "fit": rows}))


def table_of(rows: Sequence[dict[str, Any]], sizes: Sizes) -> Table:
    """Rows as they are printed, in the order in which they were measured."""
    what = f"{sizes.n:,} + {sizes.n:,} states of width {sizes.width}, {sizes.depth} layer(s), {sizes.threads} threads"
    table = Table(title=f"Fit on {what}", title_justify="left")
    columns = ("seconds", "of the processor", "others", f"under {FIT_TARGET:g} s", "peak, MB", "before the fit")
    table.add_column("law", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        if "failed" in row:
            table.add_row(row["law"], row["failed"])
            continue
        others = "" if row["others"] is None else f"{row['others']:.1f}"
        table.add_row(
            row["law"], f"{row['seconds']:.2f}", f"{row['processor_s']:.2f}", others, row["verdict"],
            f"{row['peak_mb']:,}", f"{row['before_mb']:,}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    typer.run(main)
