"""What ascending a value costs while generating: tokens per second of RE-Control as a ratio to the unsteered plant.

A value network as wide as the plant (as in the paper: 4096 for 4096) with random weights acts after the final norm, for
30 steps at every token. Each way takes turns with the unsteered plant, answer by answer, so that a change of the
machine's mood hits both; ratios are medians over the turns, with their 95 % intervals. Ways: two and three layers;
plain (the state is updated) and Gram (the first pre-activation).

    python benchmarks/value_cost.py --batch 1 --batch 16 --batch 64 --compile none --keep build/value_cost.jsonl
    python benchmarks/value_cost.py --shape llama-3-8b --precision bfloat16 --batch 16 --tokens 128 --compile inductor

The second line makes a model of that shape with random weights in bfloat16, for which there must be a GPU. Prints a
table; the last line is JSON. With `--keep`, a run that was interrupted goes on where it ended. On a busy machine look
at the ratio of processor time, which waiting for a core does not touch; where a GPU does the work, at that of the
clock. `bound` is what reading weights allows where that is all that takes time: bytes of the plant over bytes of the
plant and of what the ascent reads again at each step. Prompts are short: while they are read, the law ascends at each
of their tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers as hf
import typer
from common.answering import answering, beside_unsteered
from common.cases import code_of
from common.kept import Kept
from common.timing import Clock, ratio
from rich.console import Console
from rich.table import Table

from steerlib import tasks
from steerlib.control.bellman import ValueNetwork
from steerlib.control.networks import frozen, seeded
from steerlib.laws.value import ReControl
from steerlib.plant import Plant

#: What runs.
PLACES = ("steerlib.plant.Plant", "steerlib.laws.value.ReControl")
#: Small enough that texts hardly change: what a token costs does not depend on where it leads.
ALPHA = 1e-3
WORDS = 8  # of a prompt
SHAPES: dict[str, dict[str, int]] = {
    "llama-3-8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
    },
}  # fmt: skip


def random_plant(shape: str, tokenizer: Any) -> Plant:
    """A Llama of the shape with random weights in bfloat16, on the GPU; it knows the words of another's tokenizer."""
    config = hf.LlamaConfig(**SHAPES[shape], dtype="bfloat16", eos_token_id=None, pad_token_id=0)
    with torch.device("cuda"):
        model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return Plant.from_model(model, tokenizer, name=f"random {shape}")


def law_of(plant: Plant, *, layers: int, form: str, steps: int, hidden: int | None, precision: str) -> ReControl:
    """The law with a random value."""
    size = hidden or plant.width
    value = frozen(seeded(lambda: ValueNetwork(plant.width, size, layers), seed=0))
    return ReControl(steps=steps, alpha=ALPHA, form=form, precision=precision).hold(value)  # type: ignore[arg-type]


def bound(plant: Plant, law: ReControl) -> float:
    """Share of the speed that is left where reading weights is all that takes time."""
    held = sum(weight.numel() * weight.element_size() for weight in plant.model.parameters())
    size = law.first.element_size()
    step = law.gram.numel() if len(law.gram) else 2 * law.first.numel()
    return held / (held + law.steps * size * (step + 2 * law.inner.numel()))


def compare(
    plant: Plant,
    law: ReControl,
    prompts: Sequence[str],
    *,
    tokens: int,
    rounds: int,
    compile: str | None,
    clock: Clock | None = None,
) -> dict[str, Any]:
    """Tokens per second under the law, over those of the unsteered plant, as many prompts in one batch.

    Seconds are those of a clock, the machine's own by default.

    Raises:
        RuntimeError: if the code were to be compiled once more while it is measured, so that the figure would be of
            something else.
    """
    run = answering(plant, prompts, tokens=tokens, compile=compile)
    free, steered = beside_unsteered(
        run, lambda: plant.under(law, layer=-1, point="final_norm"), rounds=rounds, compile=compile, clock=clock
    )
    rate = len(prompts) * tokens / float(np.median([one.wall for one in steered]))
    others = [one.others for one in (*free, *steered) if one.others is not None]
    return {
        "tokens_per_s": round(rate), "clock": ratio([one.wall for one in free], [one.wall for one in steered]),
        "processor": ratio([one.processor for one in free], [one.processor for one in steered]),
        "bound": round(bound(plant, law), 4), "others": round(float(np.mean(others)), 2) if others else None,
    }  # fmt: skip


def main(
    plant: Annotated[str, typer.Option(help="plant to measure")] = "almanac-llama",
    shape: Annotated[str | None, typer.Option(help="a random model of this shape in its place: llama-3-8b")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="batch sizes; repeat; 1, 16 and 64 by default")] = None,
    layers: Annotated[list[int] | None, typer.Option(help="of the value; repeat; 2 and 3 by default")] = None,
    form: Annotated[list[str] | None, typer.Option(help="plain or gram; repeat; both by default")] = None,
    compile: Annotated[list[str] | None, typer.Option(help="torch.compile backends, or none; both by default")] = None,
    steps: Annotated[int, typer.Option(help="of the ascent")] = 30,
    hidden: Annotated[int | None, typer.Option(help="of the value; as wide as the plant by default")] = None,
    precision: Annotated[str, typer.Option(help="of the value's weights")] = "float32",
    tokens: Annotated[int, typer.Option(min=1, help="tokens to generate for each prompt")] = 40,
    rounds: Annotated[int, typer.Option(min=1, help="turns of each")] = 21,
    threads: Annotated[int, typer.Option(min=1, help="threads of torch; one, so that processor time is clear")] = 1,
    keep: Annotated[Path | None, typer.Option(help="file of finished rows; a second run goes on from there")] = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    loaded, kept = Plant.load(plant), Kept(keep)
    prompt = " ".join(tasks.for_plant(loaded).prompts("test")[0].split()[:WORDS])
    if shape is not None:
        loaded = random_plant(shape, loaded.tokenizer)
    loaded.model.generation_config.eos_token_id = None  # every answer has the same length  # type: ignore[union-attr]
    settings = {
        "plant": loaded.name, "device": str(loaded.device), "threads": threads, "steps": steps, "hidden": hidden,
        "precision": precision, "tokens": tokens, "rounds": rounds,
    }  # fmt: skip
    code, rows = code_of(*PLACES), []
    for backend in [None if name == "none" else name for name in compile or ["none", "inductor"]]:
        for depth in layers or [2, 3]:
            for way in form or ["plain", "gram"]:
                law = law_of(loaded, layers=depth, form=way, steps=steps, hidden=hidden, precision=precision)
                for size in batch or [1, 16, 64]:
                    what = {"compile": backend, "layers": depth, "form": way, "batch": size}
                    of = {**what, "code": code, **settings}
                    row = kept.get(of)
                    if row is None:
                        found = compare(loaded, law, [prompt] * size, tokens=tokens, rounds=rounds, compile=backend)
                        row = {**what, **found}
                        kept.put(of, row)
                    rows.append(row)
    title = f"{loaded}, {steps} steps, values in {precision}, {threads} thread(s), {tokens} tokens, {rounds} turns"
    Console(width=130).print(table_of(rows, title))
    print(json.dumps({**settings, "rows": rows}))


def table_of(rows: Sequence[dict[str, Any]], title: str) -> Table:
    """Rows as they are printed."""
    table = Table(title=title, title_justify="left")
    for column in ("code", "layers", "form", "batch", "tokens/s", "clock", "95 %", "processor", "95 %", "bound"):
        table.add_column(column)
    for row in rows:
        clock, work = row["clock"], row["processor"]
        table.add_row(
            row["compile"] or "eager", str(row["layers"]), row["form"], str(row["batch"]), f"{row['tokens_per_s']:,}",
            f"{clock['ratio']:.3f}", f"{clock['low']:.3f} to {clock['high']:.3f}",
            f"{work['ratio']:.3f}", f"{work['low']:.3f} to {work['high']:.3f}", f"{row['bound']:.3f}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    typer.run(main)
