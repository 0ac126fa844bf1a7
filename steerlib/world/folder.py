"""The folder of a grown plant: rounded weights, configuration, tokenizer, and the card that vouches for them.

Knows what is written and how it is described. Knows nothing about training.
"""

from __future__ import annotations

import copy
import json
import platform
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from steerlib.files import sha256
from steerlib.loading import no_progress_bar
from steerlib.world.almanac import World
from steerlib.world.checkpoint import guarded_write
from steerlib.world.plants import PLANTS, Recipe
from steerlib.world.tokenizer import save_tokenizer


@dataclass(frozen=True)
class Growth:
    """How a plant was grown, for its card.

    Attributes:
        recipe: sizes and training; world: what it read about.
        step: steps made; seconds: time they took; losses: (step, loss) along the way.
        device: where; compiled: whether the step was compiled.
    """

    recipe: Recipe
    world: World
    step: int
    seconds: float
    losses: tuple[tuple[int, float], ...]
    device: torch.device
    compiled: bool


def describe_hardware(device: torch.device) -> str:
    """The hardware in words, without anything that names the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else ""
    threads = torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''}, {model or platform.processor() or platform.machine()}"


def write_plant(model: PreTrainedModel, growth: Growth, out: Path) -> Path:
    """Write the final folder: weights, configuration, tokenizer, and last of all the card that vouches for them."""
    tokenizer = growth.world.tokenizer

    def write() -> None:
        (out / "card.json").unlink(missing_ok=True)
        # Rounded to half of the size. The plants are judged and shipped as rounded; a copy, so that a run that goes
        # on from here goes on from what it had.
        rounded = copy.deepcopy(model)
        nn.Module.to(rounded, torch.bfloat16)
        rounded.generation_config = GenerationConfig(
            do_sample=True, temperature=1.0, max_new_tokens=48,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        with no_progress_bar():
            rounded.save_pretrained(str(out))
        # The type to compute in, which is not the type of the file: states are read and pushed in float32.
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
        text = json.dumps({**config, "dtype": "float32"}, indent=2, sort_keys=True)
        (out / "config.json").write_text(text + "\n", encoding="utf-8")
        save_tokenizer(tokenizer, out)
        (out / "card.json").write_text(json.dumps(_card(model, growth, out), indent=1) + "\n", encoding="utf-8")

    guarded_write(out, write)
    return out


def _card(model: PreTrainedModel, growth: Growth, out: Path) -> dict[str, Any]:
    recipe = growth.recipe
    known = PLANTS.get(recipe.name)
    command = f"steerlib grow {recipe.name}"
    if known is None or replace(known, steps=recipe.steps) != recipe:
        command = "steerlib.world.grow.grow with the recipe below"
    elif known.steps != recipe.steps:
        command += f" --steps {recipe.steps}"
    if growth.compiled:
        command += " --compiled"
    parts = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    return {
        "name": recipe.name,
        "world": "almanac",
        "world_fingerprint": growth.world.fingerprint,
        "command": command,
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens": growth.step * recipe.rows * recipe.row_length,
        "hardware": describe_hardware(growth.device),
        "seconds": round(growth.seconds, 1),
        "loss": [[step, round(loss, 4)] for step, loss in growth.losses],
        "weights_sha256": sha256(out / "model.safetensors"),
        "weights_dtype": "bfloat16",
        "files_sha256": {name: sha256(out / name) for name in parts},
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
    }
