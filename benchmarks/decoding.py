"""What decoders cost beside the plant's own sampling: tokens of answers per second, and what each token takes.

Each writes answers of one length to the same prompts, round by round in turn, so that a change of the machine's mood
hits all:

* plain: the plant's own sampling;
* CD: controlled decoding with a reward model as large as the plant, which reads the plant's tokens on its own cache;
* CD, texts: the same model reading every candidate's whole text anew, as where tokenizers differ;
* CD prefix, states: a value network on the plant's states, as wide as the plant;
* CD prefix, reader: a small model of its own;
* blocks: the same small model, on sampled blocks;
* best of n: whole answers, rewarded once.

Weights of the scorers are random: what they say is of no use, what it costs is what it always costs.

    python benchmarks/decoding.py --plant almanac-llama --batch 1 --batch 8 --batch 16 --batch 32

Prints a table; the last line is JSON. Ratios are tokens per second over those of "plain" (median of the rounds).
"""

from __future__ import annotations

import copy
import json
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForSequenceClassification

from steerlib import tasks
from steerlib.control.bellman import ValueNetwork
from steerlib.control.networks import frozen, seeded
from steerlib.decoding import (
    BestOf,
    Blockwise,
    ControlledDecoding,
    Cost,
    Decoder,
    ModelScorer,
    Plain,
    StateScorer,
    TokenScorer,
    small_reader,
)
from steerlib.plant import Plant


def decoders(plant: Plant, *, k: int) -> dict[str, Decoder]:
    """What is measured; each with k candidates, blocks or samples."""
    config = copy.deepcopy(plant.model.config)
    config.num_labels, config.pad_token_id = 1, plant.pad_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config).to(plant.device, plant.dtype).eval()
    tokenizer, reader = plant.tokenizer, small_reader(plant).to(plant.device)  # type: ignore[arg-type]
    network = frozen(seeded(lambda: ValueNetwork(plant.width, plant.width), seed=0))
    texts = ModelScorer(model, tokenizer, batch_size=1024 if tokenizer.pad_token_id is not None else 1)
    return {
        "plain": Plain(),
        "CD": ControlledDecoding(TokenScorer(model, tokenizer), k=k),
        "CD, texts": ControlledDecoding(texts, k=k),
        "CD prefix, states": ControlledDecoding(StateScorer(network), k=k),
        "CD prefix, reader": ControlledDecoding(TokenScorer(reader, tokenizer), k=k),
        "blocks": Blockwise(TokenScorer(reader, tokenizer), k=k, block=8),
        "best of n": BestOf(texts, n=k),
    }


def main(
    plant: Annotated[str, typer.Option(help="plant to measure")] = "almanac-llama",
    batch: Annotated[list[int] | None, typer.Option(help="prompts at a time; repeat the option")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="tokens of each answer")] = 24,
    k: Annotated[int, typer.Option(min=1, help="candidates, blocks or samples")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="interleaved rounds")] = 3,
    way: Annotated[list[str] | None, typer.Option(help="measure this way beside plain; repeat; all by default")] = None,
) -> None:
    """Measure and print."""
    loaded = Plant.load(plant)
    loaded.model.generation_config.eos_token_id = None  # every answer has the same length
    ways, known = decoders(loaded, k=k), tasks.for_plant(loaded).prompts("test")
    if unknown := sorted(set(way or []) - set(ways)):
        raise typer.BadParameter(f"got the way {unknown[0]!r}, expected one of {', '.join(ways)}")
    ways = {name: decoder for name, decoder in ways.items() if not way or name in ("plain", *way)}
    table = Table(
        title=f"{loaded}, k={k}, {tokens} tokens, {torch.get_num_threads()} threads, {loaded.device}",
        title_justify="left",
    )
    for column in ("batch", "way", "tokens/s", "ratio to plain", "positions/token", "reward positions/token"):
        table.add_column(column)
    out = []
    for size in batch or [1, 8, 16, 32]:
        prompts = (known * size)[:size]
        costs: dict[str, list[Cost]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, decoder in ways.items():
                found = decoder.generate(loaded, prompts, max_new_tokens=tokens, seed=turn, batch_size=size)
                if turn:  # the first warms up
                    costs[name].append(found.cost)
        base = np.array([cost.seconds for cost in costs["plain"]])
        for name, spent in costs.items():
            ratio = float(np.median(base / np.array([cost.seconds for cost in spent])))
            one, written = spent[0], spent[0].answer_tokens
            rate = float(np.median([cost.tokens_per_second for cost in spent]))
            row = {
                "batch": size, "way": name, "tokens_per_s": round(rate, 1), "ratio": round(ratio, 4),
                "positions_per_token": round(one.positions / written, 2),
                "reward_positions_per_token": round(one.reward_positions / written, 2),
            }  # fmt: skip
            table.add_row(*(str(value) for value in row.values()))
            out.append(row)
    Console(width=110).print(table)
    print(json.dumps({"plant": plant, "k": k, "tokens": tokens, "rows": out}))


if __name__ == "__main__":
    typer.run(main)
