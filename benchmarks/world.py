"""How fast the invented country is written and judged, on one core.

* corpus: tokens per second of documents of all kinds, and of training rows, in batches;
* judges: texts per second of each judge, on drawn texts, and of the share of grammatical sentences.

Rounds are interleaved, so that a change of the machine's mood hits all.

    python benchmarks/world.py

Prints a table; the last line is JSON. Rates are medians over the rounds, with the middle half of them; the last column
is the time for what a plant is grown and judged on: 10 million tokens, 10,000 texts.
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

from steerlib.world import Lead, World

#: What the last column is about.
TOKENS, TEXTS = 10_000_000, 10_000


def rated(run: Callable[[], int]) -> float:
    """How many things a call makes in a second."""
    start = time.perf_counter()
    made = run()
    return made / (time.perf_counter() - start)


def judged(world: World, n: int) -> dict[str, Callable[[], int]]:
    """Judging n texts of each kind, and of all kinds in equal parts.

    Each prompt is followed by what other prompts of its kind are followed by: a whole play, reply, page or answer.
    """
    rng, out, mixed = np.random.default_rng(0), {}, ([], [])
    corpus = world.corpus
    kinds = {
        "questions": (world.questions(per_fact=3), "answers", "\nA:"),
        "scenes": (world.scenes(n=200), "plays", ": "),
        "wishes": (world.wishes(harmful=None, n=200), "replies", "\nReply:"),
        "leads": ([Lead(lead.text.removesuffix(lead.begun)) for lead in world.leads(n=200)], "pages", ":"),
        "choices": (world.choices(), "choices", "\nChoice:"),
    }
    for name, (prompts, kind, mark) in kinds.items():
        texts = [text.partition(mark)[2] for text in corpus.texts(corpus.kind(kind, n, rng))]
        asked = [prompts[i % len(prompts)] for i in range(n)]
        out[name] = lambda asked=asked, texts=texts: len(world.judge_many(asked, texts))
        mixed[0].extend(asked[:: len(kinds)])
        mixed[1].extend(texts[:: len(kinds)])
    out["all kinds"] = lambda: len(world.judge_many(*mixed))
    documents = corpus.texts(corpus.documents(n, rng))
    out["grammatical"] = lambda: len(world.grammatical_many(documents))
    return out


def main(
    rounds: Annotated[int, typer.Option(help="interleaved rounds")] = 7,
    documents: Annotated[int, typer.Option(help="documents drawn in a round")] = 20_000,
    rows: Annotated[int, typer.Option(help="training rows of 160 tokens drawn in a round")] = 6_000,
    texts: Annotated[int, typer.Option(help="texts judged in a round, of each kind")] = 10_000,
) -> None:
    """Measure and print."""
    world = World.default()
    corpus, rng = world.corpus, np.random.default_rng(0)
    ways: dict[str, Callable[[], int]] = {
        "documents": lambda: len(corpus.flat_tokens(corpus.documents(documents, rng))[0]),
        "training rows": lambda: corpus.training_rows(rows, 160, rng).size,
    }
    unit = dict.fromkeys(ways, ("tokens", TOKENS))
    judges = judged(world, texts)
    ways |= judges
    unit |= dict.fromkeys(judges, ("texts", TEXTS))
    found: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():  # tables that are built at first use
        run()
    for _ in range(rounds):
        for name, run in ways.items():
            found[name].append(rated(run))
    table = Table(title=f"World {world.seed}, one core, median of {rounds} rounds", title_justify="left")
    for column in ("what", "rate per second", "middle half", "time"):
        table.add_column(column)
    out = []
    for name, rates in found.items():
        (things, number), (low, middle, high) = unit[name], np.quantile(rates, [0.25, 0.5, 0.75])
        spent = number / float(middle)
        table.add_row(
            name, f"{middle:,.0f} {things}", f"{low:,.0f} to {high:,.0f}", f"{spent:.2f} s for {number:,} {things}"
        )
        out.append({"what": name, "per_second": round(float(middle)), "of": things, "seconds": round(spent, 3)})
    Console(width=110).print(table)
    print(json.dumps({"world": world.seed, "rounds": rounds, "rows": out}))


if __name__ == "__main__":
    typer.run(main)
