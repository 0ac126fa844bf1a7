"""What each registered law costs for every token, as a ratio of tokens per second to the unsteered plant.

Law and unsteered plant take turns in one process, answer by answer, so that a change of the machine's mood hits both;
the ratio is the median over the turns, with its 95 % interval. Targets are about batch 64: 0.97 for additive and affine
laws, 0.93 for the others. Beside the laws stand, against the same unsteered plant:

* empty actuator: nothing attached, as an actuator without entries; what the measurement itself cannot tell from 1;
* identity: a function that returns its argument, so the machinery around a law;
* no watch: without the look at the logits that finds NaN (`steerlib.finite`), so a ratio above 1 is what it costs;
* no hooks: without any hook of steerlib, not compiled only.

    python benchmarks/decode_cost.py --keep build/decode.jsonl
    python benchmarks/decode_cost.py --law difference-of-means --law mimic --batch 64 --compile none

Prints a table; the last line is JSON. With `--keep`, a run that was interrupted goes on where it ended. On a busy
machine look at the ratio of processor time, which waiting for a core does not touch. Not compiled, the time inside of
the laws is counted as well, apart from these turns: the ratio that its share of the run leaves, the steadiest of the
three, and microseconds for each token and for each batch of prompts, where laws look that look once. All are part of
the ratios, so that longer answers make the last count less.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from common.answering import answering, beside_unsteered
from common.cases import Case, chosen, code_of
from common.kept import Kept
from common.timing import Clock, Spent, ratio
from rich.console import Console
from rich.table import Table
from torch import Tensor

from steerlib import generation, tasks
from steerlib.actuator import Actuator, Site, Slot, Wiring
from steerlib.laws.base import Law
from steerlib.laws.stack import Stack
from steerlib.plant import Plant
from steerlib.registry import law_class
from steerlib.tasks.base import Task
from steerlib.tasks.source import TaskSource

#: What runs besides the laws.
PLANT = "steerlib.plant.Plant"
#: The batch that the targets are about.
TARGET_BATCH = 64
#: Texts of each class that a law is fitted on: what a token costs does not depend on how well it is fitted.
FEW = 50


@dataclass(frozen=True)
class Way:
    """A way to run the plant.

    Attributes:
        name: in tables.
        enter: makes what the plant runs within.
        target: least ratio at batch 64, or None.
        code: hash of the sources it runs.
        eager: whether it exists without compilation only.
    """

    name: str
    enter: Callable[[], AbstractContextManager[object]]
    target: float | None = None
    code: str = field(default_factory=lambda: code_of(PLANT))
    eager: bool = False


class Identity:
    """The state itself."""

    pure = True

    def __call__(self, state: Tensor) -> Tensor:
        """The same tensor."""
        return state


class NoWatch(generation.Watch):
    """Looks at nothing."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002 - as it is called
        """The scores as they are."""
        return scores

    def check(self, plant: Plant, new: Tensor, ends: Any) -> None:
        """Nothing was seen."""


@contextmanager
def unwatched() -> Iterator[None]:
    """Generation that does not look whether logits are numbers."""
    watch, generation.Watch = generation.Watch, NoWatch  # type: ignore[misc]
    try:
        yield
    finally:
        generation.Watch = watch


@dataclass
class Inside:
    """Seconds of the processor inside of what is attached, while tokens are decoded and while prompts are read."""

    tokens: float = 0.0
    prompts: float = 0.0


@contextmanager
def counted(inside: Inside, clock: Clock) -> Iterator[None]:
    """Count the time that passes through all sites take; not for compiled code, which does not call them."""
    apply = Slot.apply

    def timed(slot: Slot, state: Tensor) -> Tensor:
        start = clock.work()
        out = apply(slot, state)
        took = clock.work() - start
        if slot.now.decoding:
            inside.tokens += took
        else:
            inside.prompts += took
        return out

    Slot.apply = timed  # type: ignore[method-assign]
    try:
        yield
    finally:
        Slot.apply = apply  # type: ignore[method-assign]


@contextmanager
def unhooked(plant: Plant) -> Iterator[None]:
    """The model without steerlib's hooks."""
    plant.close()
    try:
        yield
    finally:
        plant.wiring = Wiring(plant.model, plant.anatomy)


def controls(plant: Plant) -> list[Way]:
    """What the laws are seen against."""
    middle = plant.depth // 2
    return [
        Way("empty actuator", lambda: Actuator(plant.wiring, [])),
        Way("identity", lambda: plant.under(Identity(), layer=middle)),
        Way("no watch", unwatched),
        Way("no hooks", lambda: unhooked(plant), eager=True),
    ]


def fitted(case: Case, task: Task) -> Law | Stack:
    """The law of a case, on a few texts, where it is asked to act or at every block."""
    plant, kind, options = task.plant, law_class(case.law), {**case.options, **case.short}
    layer = plant.depth // 2 if case.layer is None else case.layer
    source = TaskSource(task, Site(layer), n=FEW, scope=case.scope)
    if case.every_block:
        return Stack.across(kind, range(plant.depth), options=options, sequential=True).fit_from(source)
    return kind(**options).fit_from(source)


def compare(
    way: Way,
    plant: Plant,
    prompts: Sequence[str],
    *,
    tokens: int,
    rounds: int,
    compile: str | None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Tokens per second in a way, over those of the unsteered plant, as many prompts in one batch.

    Seconds are those of a clock, the machine's own by default.

    Raises:
        RuntimeError: if the code were to be compiled once more while it is measured, so that the figure would be of
            something else.
    """
    clock = clock or Clock()
    run = answering(plant, prompts, tokens=tokens, compile=compile)
    free, steered = beside_unsteered(run, way.enter, rounds=rounds, compile=compile, clock=clock)
    row = row_of(way, free, steered, batch=len(prompts), tokens=tokens, compile=compile)
    if compile is None:
        looks = max(3, rounds // 4)
        inside, start = Inside(), clock.work()
        with way.enter(), counted(inside, clock):
            for _ in range(looks):
                run()
        row["inside_ratio"] = round(1 - (inside.tokens + inside.prompts) / (clock.work() - start), 4)
        row["inside_token_us"] = round(1e6 * inside.tokens / looks / (tokens - 1), 1)  # the first comes of the prompt
        row["inside_prompts_us"] = round(1e6 * inside.prompts / looks, 1)
    return row


def row_of(
    way: Way, free: Sequence[Spent], steered: Sequence[Spent], *, batch: int, tokens: int, compile: str | None
) -> dict[str, Any]:
    """Ratios of one way, by the clock and by processor time."""
    clock = ratio([one.wall for one in free], [one.wall for one in steered])
    work = ratio([one.processor for one in free], [one.processor for one in steered])
    rate = batch * tokens / float(np.median([one.wall for one in steered]))
    token = float(np.median([one.processor for one in free])) / tokens
    others = [one.others for one in (*free, *steered) if one.others is not None]
    target = way.target if batch == TARGET_BATCH else None
    return {
        "way": way.name, "batch": batch, "compile": compile, "tokens_per_s": round(rate), "clock": clock,
        "processor": work, "free_token_us": round(1e6 * token), "target": target,
        "verdict": verdict(work, target), "others": round(float(np.mean(others)), 2) if others else None,
    }  # fmt: skip


def verdict(work: dict[str, float], target: float | None) -> str:
    """Whether a target is met: "yes" or "no" if the whole interval says so, else "likely" or "hardly"; "" for none."""
    if target is None:
        return ""
    if work["low"] >= target or work["high"] < target:
        return "yes" if work["low"] >= target else "no"
    return "likely" if work["ratio"] >= target else "hardly"


def main(
    law: Annotated[list[str] | None, typer.Option(help="laws or variants; repeat the option; all by default")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="laws or variants to leave out; repeat the option")] = None,
    plant: Annotated[str, typer.Option(help="plant to measure")] = "almanac-llama",
    batch: Annotated[list[int] | None, typer.Option(help="batch sizes; 1, 16 and 64 by default")] = None,
    compile: Annotated[list[str] | None, typer.Option(help="torch.compile backends, or none; both by default")] = None,
    tokens: Annotated[int, typer.Option(min=2, help="tokens to generate for each prompt")] = 24,
    rounds: Annotated[int, typer.Option(min=1, help="turns of each")] = 21,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch; one, so that processor time is clear")] = 1,
    keep: Annotated[Path | None, typer.Option(help="file of finished rows; a second run goes on from there")] = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    cases, loaded, kept = chosen("decode", law or [], skip or []), Plant.load(plant), Kept(keep)
    loaded.model.generation_config.eos_token_id = None  # every answer has the same length  # type: ignore[union-attr]
    task = tasks.for_plant(loaded)
    laws: dict[str, Law | Stack] = {}

    def acting(case: Case) -> AbstractContextManager[object]:
        if str(case) not in laws:
            laws[str(case)] = fitted(case, task)
        return loaded.under(laws[str(case)])

    ways = controls(loaded)
    ways += [
        Way(str(case), lambda case=case: acting(case), case.decode_target, code_of(PLANT, *case.places))
        for case in cases
    ]
    settings = {"plant": plant, "tokens": tokens, "rounds": rounds, "threads": threads}
    rows = []
    for backend in [None if name == "none" else name for name in compile or ["none", "inductor"]]:
        for size in batch or [1, 16, TARGET_BATCH]:
            prompts = (task.prompts("test") * size)[:size]
            for way in ways:
                if way.eager and backend is not None:
                    continue
                of = {"way": way.name, "code": way.code, "batch": size, "compile": backend, **settings}
                row = kept.get(of)
                if row is None:
                    row = compare(way, loaded, prompts, tokens=tokens, rounds=rounds, compile=backend)
                    kept.put(of, row)
                rows.append(row)
    Console(width=130).print(table_of(rows, f"{loaded}, {threads} thread(s), {tokens} tokens, {rounds} turns"))
    print(json.dumps({**settings, "rows": rows}))


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Rows as they are printed: all batches of one way together."""
    table = Table(title=title, title_justify="left")
    table.add_column("way", overflow="fold")
    columns = ["code", "batch", "tokens/s", "clock", "processor", "95 %", "inside", "µs a token", "a batch"]
    for column in [*columns, "target", "met"]:
        table.add_column(column, justify="right")
    order = list(dict.fromkeys(row["way"] for row in rows))
    for row in sorted(rows, key=lambda row: (order.index(row["way"]), row["compile"] or "", row["batch"])):
        work = row["processor"]
        table.add_row(
            row["way"], row["compile"] or "eager", str(row["batch"]), f"{row['tokens_per_s']:,}",
            f"{row['clock']['ratio']:.3f}", f"{work['ratio']:.3f}", f"{work['low']:.3f} to {work['high']:.3f}",
            f"{row['inside_ratio']:.3f}" if "inside_ratio" in row else "",
            *(f"{row[key]:,.0f}" if key in row else "" for key in ("inside_token_us", "inside_prompts_us")),
            f"{row['target']:g}" if row["target"] else "", row["verdict"],
        )  # fmt: skip
    return table


if __name__ == "__main__":
    typer.run(main)
