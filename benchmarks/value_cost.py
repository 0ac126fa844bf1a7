"""What ascending a value costs while generating: tokens per second of RE-Control as a ratio to the unsteered plant.

A value network as wide as the plant (as in the paper: 4096 for 4096) with random weights acts after the final norm, for
30 steps at every token. Each way takes turns with the unsteered plant, round by round, so that a change of the
machine's mood hits both. Ways: two and three layers; plain (the state is updated) and Gram (the first pre-activation).

    python benchmarks/value_cost.py --batch 1 --batch 16 --batch 64 --compile none --compile inductor
    python benchmarks/value_cost.py --shape llama-3-8b --precision bfloat16 --batch 16 --tokens 128 --compile inductor

The second line makes a model of that shape with random weights in bfloat16, for which there must be a GPU. Prints a
table; the last line is JSON. `bound` is what reading weights allows where that is all that takes time: bytes of the
plant over bytes of the plant and of what the ascent reads again at each step. Prompts are short: while they are read,
the law ascends at each of their tokens.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
import torch
import transformers as hf
import typer
from decode_cost import seconds
from rich.console import Console
from rich.table import Table

from steerlib import tasks
from steerlib.control.bellman import ValueNetwork
from steerlib.control.networks import frozen, seeded
from steerlib.laws.value import ReControl
from steerlib.plant import Plant

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


def turns(
    plant: Plant, law: ReControl, prompt: str, *, batch: int, tokens: int, rounds: int, compile: str | None
) -> list[tuple[float, float]]:
    """Seconds of the unsteered plant and of the steered one, in turns."""
    prompts = [prompt] * batch
    plant.model.generation_config.eos_token_id = None  # every answer has the same length
    cache: Any = "static" if compile else "dynamic"

    def free() -> object:
        return plant.generate(prompts, max_new_tokens=tokens, seed=0, batch_size=batch, cache=cache, compile=compile)

    def steered() -> object:
        with plant.under(law, layer=-1, point="final_norm"):
            return free()

    torch._dynamo.reset()
    for _ in range(2):  # caches, allocations, compiled code
        free(), steered()
    return [(seconds(free), seconds(steered)) for _ in range(rounds)]


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
    tokens: Annotated[int, typer.Option(help="tokens to generate for each prompt")] = 40,
    rounds: Annotated[int, typer.Option(help="rounds of turns")] = 7,
) -> None:
    """Measure and print."""
    loaded = Plant.load(plant)
    prompt = " ".join(tasks.for_plant(loaded).prompts("test")[0].split()[:WORDS])
    if shape is not None:
        loaded = random_plant(shape, loaded.tokenizer)
    rows = []
    for backend in compile or ["none", "inductor"]:
        for depth in layers or [2, 3]:
            for way in form or ["plain", "gram"]:
                law = law_of(loaded, layers=depth, form=way, steps=steps, hidden=hidden, precision=precision)
                for size in batch or [1, 16, 64]:
                    found = turns(
                        loaded, law, prompt, batch=size, tokens=tokens, rounds=rounds,
                        compile=None if backend == "none" else backend,
                    )  # fmt: skip
                    low, middle, high = np.quantile([free / own for free, own in found], [0.25, 0.5, 0.75])
                    rate = size * tokens / float(np.median([own for _, own in found]))
                    rows.append(
                        {"compile": backend, "layers": depth, "form": way, "batch": size, "tokens_per_s": round(rate),
                         "ratio": round(float(middle), 4), "low": round(float(low), 4), "high": round(float(high), 4),
                         "bound": round(bound(loaded, law), 4)}
                    )  # fmt: skip
    threads = torch.get_num_threads()
    table = Table(title=f"{loaded}, {steps} steps, values in {precision}, {threads} threads", title_justify="left")
    for column in ("code", "layers", "form", "batch", "tokens/s", "ratio to unsteered", "middle half", "bound"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["compile"], str(row["layers"]), row["form"], str(row["batch"]), f"{row['tokens_per_s']:,}",
            f"{row['ratio']:.3f}", f"{row['low']:.3f} to {row['high']:.3f}", f"{row['bound']:.3f}",
        )  # fmt: skip
    Console(width=120).print(table)
    print(json.dumps({"plant": loaded.name, "threads": threads, "steps": steps, "precision": precision, "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
