"""What Jacobians of blocks cost beside the released algorithm, as a ratio of one run: processor time, and memory.

The released algorithm differentiates a block's last row by the states of all tokens, in reverse mode over all
directions at once, and keeps the slice of the last token (`torch.autograd.functional.jacobian`, vectorized). It is
written anew here. It takes turns with ours, round by round, so that a change of the machine's mood hits both; both give
all blocks of the same prompts, and the largest difference is printed with the ratio. A batch of prompts goes through
the released algorithm one by one, as in its script, and through ours at once.

    python benchmarks/jacobians.py --context 24 --context 96
    python benchmarks/jacobians.py --family falcon --family gemma2 --width 256
    python benchmarks/jacobians.py --memory --context 24

Without a family the shipped plant is measured; with one, a model of it with random weights. `--memory` measures peaks,
each way in a process of its own, in place of times. Prints a table; the last line is JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import transformers
import typer
from common.timing import in_turn, memory_mb, peak_mb, ratio
from rich.console import Console
from rich.table import Table
from torch import Tensor

from steerlib.blocks import Frozen, freeze
from steerlib.control.jacobian import MEMORY
from steerlib.jacobians import Route, jacobian_of
from steerlib.plant import Plant, Tokens

hf: Any = transformers  # its configurations take what their families know
_SIZES = {"vocab_size": 97, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def random_plant(family: str, width: int, depth: int, tokenizer: Any) -> Plant:
    """A model of the family with random weights, four heads and an MLP four times as wide."""
    common = {
        **_SIZES, "hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": 4,
        "max_position_embeddings": 4096,
    }  # fmt: skip
    wide = {**common, "intermediate_size": 4 * width}
    grouped = {**wide, "num_key_value_heads": 4}
    gemma = {**grouped, "head_dim": width // 4}
    made: dict[str, Any] = {
        "llama": lambda: hf.LlamaConfig(**grouped),
        "mistral": lambda: hf.MistralConfig(**grouped, sliding_window=None),
        "qwen2": lambda: hf.Qwen2Config(**grouped),
        "qwen3": lambda: hf.Qwen3Config(**gemma),
        "gemma2": lambda: hf.Gemma2Config(**gemma),
        "gemma3": lambda: hf.Gemma3TextConfig(**gemma),
        "gpt_neox": lambda: hf.GPTNeoXConfig(**wide),
        "phi": lambda: hf.PhiConfig(**wide),
        "falcon": lambda: hf.FalconConfig(**common, alibi=False, parallel_attn=True, bias=False, multi_query=True),
        "opt": lambda: hf.OPTConfig(**common, ffn_dim=4 * width, word_embed_proj_dim=width),
        "gpt2": lambda: hf.GPT2Config(**_SIZES, n_embd=width, n_layer=depth, n_head=4, n_positions=4096),
    }
    if family not in made:
        raise typer.BadParameter(f"family: got {family!r}, known are {', '.join(made)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(made[family]()).eval()
    return Plant.from_model(model, tokenizer, name=f"random {family}")


def batch_of(plant: Plant, prompts: int, context: int) -> Tokens:
    """Texts of random tokens, all of one length."""
    size = plant.model.get_input_embeddings().weight.shape[0]  # type: ignore[union-attr, arg-type]
    ids = np.random.default_rng(0).integers(3, int(size), (prompts, context))
    return Tokens(
        torch.from_numpy(ids).to(plant.device), torch.ones(prompts, context, dtype=torch.long).to(plant.device)
    )


def _noted(calls: dict[int, Any], layer: int) -> Any:
    def hook(_: Any, args: Any, kwargs: Any) -> None:
        calls[layer] = (args, kwargs)

    return hook


def released(plant: Plant, batch: Tokens) -> Tensor:
    """Mean Jacobian of each block by the released algorithm."""
    total = torch.zeros(plant.depth, plant.width, plant.width, device=plant.device)
    for row in batch.input_ids:
        calls: dict[int, Any] = {}
        hooks = [b.register_forward_pre_hook(_noted(calls, i), with_kwargs=True) for i, b in enumerate(plant.blocks)]
        with torch.no_grad():
            plant.model(input_ids=row[None], use_cache=False)
        for hook in hooks:
            hook.remove()
        for layer, block in enumerate(plant.blocks):
            args, kwargs = list(calls[layer][0]), dict(calls[layer][1])
            states = args.pop(0) if args else kwargs.pop("hidden_states")

            def last(rows: Tensor, block: Any = block, args: Any = args, kwargs: Any = kwargs) -> Tensor:
                found = block.forward(rows[None], *args, **kwargs)
                return (found[0] if isinstance(found, tuple) else found)[0, -1]

            whole: Any = torch.autograd.functional.jacobian(last, states[0], vectorize=True)
            total[layer] += whole[:, -1] / len(batch.input_ids)
    return total


def ours(plant: Plant, batch: Tokens, route: Route, memory: int = MEMORY) -> Tensor:
    """The same by `steerlib.jacobians`."""
    blocks: tuple[Frozen, ...] = freeze(plant, batch)
    return torch.stack([jacobian_of(b, b.state, route=route, memory=memory, average=True) for b in blocks])


def compare(plant: Plant, batch: Tokens, routes: list[Route], rounds: int) -> list[dict[str, Any]]:
    """Processor time of each route as a ratio to the released algorithm, and how far the results are apart."""
    expected = released(plant, batch)
    off = [float((ours(plant, batch, route) - expected).norm() / expected.norm()) for route in routes]
    ways: list[Any] = [partial(released, plant, batch), *(partial(ours, plant, batch, route) for route in routes)]
    times: list[list[float]] = [[] for _ in ways]
    for number in range(rounds):
        for which in range(len(ways)) if number % 2 == 0 else reversed(range(len(ways))):
            times[which].append(in_turn([nullcontext], ways[which], rounds=1)[0][0].processor)
    return [
        {"route": route, "released_s": round(float(np.median(times[0])), 4), "seconds": round(float(np.median(own)), 4),
         **ratio(times[0], own), "off": float(f"{error:.1e}")}
        for route, own, error in zip(routes, times[1:], off, strict=True)
    ]  # fmt: skip


def peak(plant: Plant, batch: Tokens, way: str, memory: int) -> float:
    """How far above the loaded plant memory rises, in MB."""
    ours(plant, batch_of(plant, 1, 2), "auto")  # libraries and their buffers
    before = memory_mb()
    released(plant, batch) if way == "released" else ours(plant, batch, way, memory)  # type: ignore[arg-type]
    return max(0.0, peak_mb() - before)


def main(
    plant: Annotated[str, typer.Option(help="plant to measure")] = "almanac-llama",
    family: Annotated[list[str] | None, typer.Option(help="random models of these families instead; repeat")] = None,
    width: Annotated[int, typer.Option(help="of random models")] = 256,
    depth: Annotated[int, typer.Option(help="of random models")] = 2,
    context: Annotated[list[int] | None, typer.Option(help="tokens of a prompt; repeat; 24 by default")] = None,
    prompts: Annotated[int, typer.Option(help="how many")] = 4,
    route: Annotated[list[str] | None, typer.Option(help="auto, reverse, forward, products; auto by default")] = None,
    rounds: Annotated[int, typer.Option(help="rounds of turns")] = 7,
    memory: Annotated[bool, typer.Option(help="peaks in place of times")] = False,
    bound_mb: Annotated[int, typer.Option(help="memory allowed to our directions")] = MEMORY >> 20,
    only: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Measure and print."""
    shipped = Plant.load(plant)
    plants = [random_plant(name, width, depth, shipped.tokenizer) for name in family or []] or [shipped]
    routes: list[Any] = route or ["auto"]
    rows: list[dict[str, Any]] = []
    for measured in plants:
        for tokens in context or [24]:
            batch = batch_of(measured, prompts, tokens)
            about = {"plant": measured.name, "width": measured.width, "context": tokens}
            if only is not None:
                print(peak(measured, batch, only, bound_mb << 20))
                return
            if memory:
                peaks = {way: _in_process(sys.argv[1:], measured, tokens, way) for way in ("released", *routes)}
                rows.append({**about, "peak_mb": {way: round(value, 1) for way, value in peaks.items()}})
                continue
            rows += [{**about, **found} for found in compare(measured, batch, routes, rounds)]
    table = Table(title=f"{prompts} prompts, {torch.get_num_threads()} threads, all blocks", title_justify="left")
    for name in rows[0]:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=140).print(table)
    print(json.dumps({"prompts": prompts, "threads": torch.get_num_threads(), "rows": rows}))


def _in_process(arguments: list[str], plant: Plant, tokens: int, way: str) -> float:
    kept, skip = [], False
    for argument in arguments:
        if skip or argument in ("--context", "--family"):
            skip = not skip
        elif argument != "--memory":
            kept.append(argument)
    name = ["--family", plant.name.removeprefix("random ")] if plant.name.startswith("random ") else []
    line = [sys.executable, __file__, *kept, *name, "--context", str(tokens), "--only", way]
    return float(subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


if __name__ == "__main__":
    typer.run(main)
