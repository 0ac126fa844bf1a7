"""Growing a plant: next-token training of a small causal language model on the Almanac.

Knows the training loop, its noise, its checkpoints and the folder it leaves behind. Knows nothing
about steering or how a plant is judged.

Two disturbances while training make plants that can be steered (see `NoisyBlock`):

- Noise on the residual stream. A model that must work on states that are slightly off carries what it
  needs redundantly, and a push of the size of the noise does not take it to states that it has never seen.
- Short sight. On some rows the upper half of the blocks may look back a few tokens only, or at none but
  their own. Without it the disposition of the speaker is looked up by attention in block 4 of 6, in the
  very block that uses it, and no push before that block does anything (measured: a tenth of the gap). With
  it the disposition must be gathered early and carried in the state of the token where the choice is made.
"""

from __future__ import annotations

import json
import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm import tqdm
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from steerlib.files import sha256
from steerlib.world.almanac import World
from steerlib.world.checkpoint import GrowthError, guarded_write, load_checkpoint, save_checkpoint
from steerlib.world.plants import PLANTS, Recipe, recipe_named
from steerlib.world.tokenizer import EOS, PAD, save_tokenizer, token_id

__all__ = ["PLANTS", "GrowthError", "GrowthInterrupted", "build_model", "grow"]

#: Positions a plant can read.
CONTEXT = 512


class GrowthInterrupted(RuntimeError):
    """Growth was stopped by the user; a checkpoint has been written."""


class NoisyBlock(nn.Module):
    """A block whose output, a state of the residual stream, is disturbed on some rows of the batch.

    Attributes:
        rows: number of rows, from the first, that are disturbed; 0 turns the noise off.
        scale: expected norm of the disturbance as a share of the norm of the state.
        horizon: how many tokens each row may look back in this block; None for all.
    """

    horizon: Int[Tensor, " rows"] | None

    def __init__(self, block: nn.Module, generator: torch.Generator, scale: float) -> None:
        super().__init__()
        self.block, self.generator, self.scale, self.rows = block, generator, scale, 0
        self.horizon = None

    def __getattr__(self, name: str) -> Any:
        """Show the attributes of the block: some architectures ask their blocks for their kind."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the block and disturb its output."""
        if self.horizon is not None:
            kwargs["attention_mask"] = short_sighted(self.horizon, length=args[0].shape[1])
        out = self.block(*args, **kwargs)
        state = out[0] if isinstance(out, tuple) else out
        if self.rows:
            state = torch.cat([state[: self.rows] + self._noise(state[: self.rows]), state[self.rows :]])
        return (state, *out[1:]) if isinstance(out, tuple) else state

    def _noise(self, state: Float[Tensor, "rows tokens width"]) -> Float[Tensor, "rows tokens width"]:
        size = self.scale * state.detach().norm(dim=-1, keepdim=True) / math.sqrt(state.shape[-1])
        noise = torch.randn(state.shape, generator=self.generator, device=state.device, dtype=torch.float32)
        return (size * noise).to(state.dtype)


def short_sighted(horizon: Int[Tensor, " rows"], *, length: int) -> Bool[Tensor, "rows 1 length length"]:
    """Causal attention mask in which each row looks back fewer tokens than its horizon."""
    position = torch.arange(length, device=horizon.device)
    back = position[:, None] - position[None, :]
    return ((back >= 0) & (back < horizon[:, None, None]))[:, None]


@contextmanager
def noisy(blocks: nn.ModuleList, generator: torch.Generator, scale: float) -> Iterator[list[NoisyBlock]]:
    """Put noise on the output of every block for as long as the context lasts."""
    originals = list(blocks)
    wrapped = [NoisyBlock(block, generator, scale) for block in originals]
    try:
        for i, block in enumerate(wrapped):
            blocks[i] = block
        yield wrapped
    finally:
        for i, block in enumerate(originals):
            blocks[i] = block


def build_model(recipe: Recipe, *, vocabulary: int, pad: int, end: int) -> PreTrainedModel:
    """A randomly initialised model of the recipe's family, the same for the same seed.

    Raises:
        ValueError: for a family that this version cannot grow.
    """
    if recipe.family != "llama":
        raise ValueError(f"cannot grow family {recipe.family!r}; this version grows: llama")
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=recipe.width, intermediate_size=recipe.hidden,
        num_hidden_layers=recipe.depth, num_attention_heads=recipe.heads, num_key_value_heads=recipe.heads,
        max_position_embeddings=CONTEXT, tie_word_embeddings=True, rms_norm_eps=1e-5,
        bos_token_id=None, eos_token_id=end, pad_token_id=pad,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


class _Grower:
    """One growth run: model, optimiser, documents, and where they are kept."""

    def __init__(self, recipe: Recipe, out: Path, device: torch.device) -> None:
        self.recipe, self.out, self.device = recipe, out, device
        self.world = World.build(recipe.country)
        tokenizer = self.world.tokenizer
        pad, end = (token_id(tokenizer, token) for token in (PAD, EOS))
        self.model = build_model(recipe, vocabulary=len(tokenizer), pad=pad, end=end)
        nn.Module.to(self.model, device)
        matrices = [p for p in self.model.parameters() if p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.dim() <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=recipe.learning_rate, betas=(0.9, 0.98),
        )  # fmt: skip
        # Taken before any block is wrapped, so that the names are those of the finished plant.
        self.parameters = dict(self.model.named_parameters())
        self.generator = torch.Generator(device=device)
        self.forward: Callable[..., Any] = self.model
        self.step, self.seconds = 0, 0.0
        self.losses: list[tuple[int, float]] = []

    def learning_rate(self, step: int) -> float:
        recipe = self.recipe
        if step < recipe.warmup:
            return recipe.learning_rate * (step + 1) / recipe.warmup
        done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
        return recipe.learning_rate * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * done)))

    def advance(self, blocks: list[NoisyBlock]) -> float:
        """One optimiser step; everything random in it depends on seed and step only."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, self.step])
        rows = torch.from_numpy(self.world.corpus.training_rows(recipe.rows, recipe.row_length, rng)).to(self.device)
        self.generator.manual_seed(recipe.seed * 1_000_003 + self.step)
        for block in blocks:
            block.rows = round(recipe.noisy_share * recipe.rows)
        if recipe.horizon_from is not None and self.step >= recipe.horizon_from:
            horizon = self._horizon(np.random.default_rng([recipe.seed, self.step, 0x40]))
            for block in blocks[len(blocks) // 2 :]:
                block.horizon = horizon
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(self.step)
        loss = self._loss(rows)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    def _horizon(self, rng: np.random.Generator) -> Int[Tensor, " rows"]:
        recipe = self.recipe
        horizon = np.full(recipe.rows, recipe.row_length)
        short = round(recipe.horizon_share * recipe.rows)
        horizon[:short] = rng.choice(recipe.horizons, size=short)
        return torch.from_numpy(horizon).to(self.device)

    def _loss(self, rows: Int[Tensor, "rows tokens"]) -> Float[Tensor, ""]:
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            logits = self.forward(input_ids=rows[:, :-1], use_cache=False).logits
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())

    # ---- checkpoints -----------------------------------------------------------------------------

    def save(self) -> None:
        tensors = {f"model.{name}": p for name, p in self.parameters.items()}
        for name, p in self.parameters.items():
            state = self.optimiser.state.get(p, {})
            tensors |= {
                f"optimiser.{name}.{key}": state[key] for key in ("exp_avg", "exp_avg_sq", "step") if key in state
            }
        state = {"recipe": asdict(self.recipe), "step": self.step, "seconds": self.seconds, "losses": self.losses}
        save_checkpoint(self.out / "checkpoint", tensors, state)

    def load(self) -> bool:
        found = load_checkpoint(self.out / "checkpoint")
        if found is None:
            return False
        tensors, state = found
        recipe = json.loads(json.dumps(asdict(self.recipe)))
        if state["recipe"] != recipe:
            differ = [k for k, v in recipe.items() if state["recipe"].get(k) != v]
            raise GrowthError(
                f"checkpoint in {self.out} was grown from another recipe (differs in: {', '.join(differ)}); "
                "choose another folder, or pass resume=False to start again"
            )
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(tensors[f"model.{name}"])
                keys = ("exp_avg", "exp_avg_sq", "step")
                kept = {key: tensors[f"optimiser.{name}.{key}"] for key in keys if f"optimiser.{name}.{key}" in tensors}
                self.optimiser.state[p] = {k: t if k == "step" else t.to(self.device) for k, t in kept.items()}
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.losses = [(int(s), float(v)) for s, v in state["losses"]]
        return True


@contextmanager
def _stop_signal() -> Iterator[threading.Event]:
    """An event that is set by Ctrl-C or a termination signal, so that a step is never torn apart."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe_hardware(device: torch.device) -> str:
    """The hardware in words, without anything that names the machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else ""
    return f"{torch.get_num_threads()} CPU threads, {model or platform.processor() or platform.machine()}"


def _write_plant(grower: _Grower, out: Path) -> Path:
    """Write the final folder: weights, configuration, tokenizer, card."""
    recipe, tokenizer = grower.recipe, grower.world.tokenizer

    def write() -> None:
        grower.model.generation_config = GenerationConfig(
            do_sample=True, temperature=1.0, max_new_tokens=48,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        grower.model.save_pretrained(str(out))
        save_tokenizer(tokenizer, out)
        card = {
            "name": recipe.name,
            "world": "almanac",
            "command": f"steerlib grow {recipe.name}",
            "recipe": asdict(recipe),
            "parameters": sum(p.numel() for p in grower.model.parameters()),
            "tokens": grower.step * recipe.rows * recipe.row_length,
            "hardware": describe_hardware(grower.device),
            "seconds": round(grower.seconds, 1),
            "loss": [[step, round(loss, 4)] for step, loss in grower.losses],
            "weights_sha256": sha256(out / "model.safetensors"),
            "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")},
        }
        (out / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")

    guarded_write(out, write)
    return out


def grow(
    name: str,
    out: str | Path,
    *,
    steps: int | None = None,
    device: str | None = None,
    resume: bool = True,
    checkpoint_every: int = 200,
    compiled: bool = False,
    progress: bool = True,
) -> Path:
    """Grow a plant from its recipe and write its folder.

    Args:
        name: a name in `PLANTS`.
        out: folder to write; ``out/checkpoint`` holds the state of an unfinished run, ``out/log.jsonl`` its log.
        steps: optimiser steps, instead of the recipe's (the schedule is stretched to it).
        device: "cpu", "cuda", ...; by default a GPU where there is one.
        resume: go on from a checkpoint if there is one; otherwise start again.
        checkpoint_every: steps between checkpoints.
        compiled: compile the training step (needs a C++ compiler; about 1.4 times as fast on a CPU).
        progress: show a progress bar.

    Returns:
        The folder: model.safetensors, config.json, generation_config.json, tokenizer files, card.json.

    Raises:
        ValueError: unknown plant, or steps or checkpoint_every below one.
        GrowthError: a checkpoint that cannot be used, or a disk that cannot be written.
        GrowthInterrupted: stopped by Ctrl-C or a termination signal, after writing a checkpoint.
    """
    recipe = recipe_named(name)
    for label, value in (("steps", steps), ("checkpoint_every", checkpoint_every)):
        if value is not None and value < 1:
            raise ValueError(f"{label}={value}; expected at least 1")
    if steps is not None:
        recipe = Recipe(**{**asdict(recipe), "steps": steps})
    out = Path(out)
    guarded_write(out, lambda: out.mkdir(parents=True, exist_ok=True))
    grower = _Grower(recipe, out, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")))
    if resume:
        grower.load()
    _train(grower, checkpoint_every=checkpoint_every, compiled=compiled, progress=progress)
    return _write_plant(grower, out)


def _train(grower: _Grower, *, checkpoint_every: int, compiled: bool, progress: bool) -> None:
    recipe, log = grower.recipe, grower.out / "log.jsonl"
    mode = "a" if grower.step else "w"
    bar = tqdm(
        total=recipe.steps, initial=grower.step, desc=f"growing {recipe.name}", unit="step", disable=not progress
    )
    blocks = grower.model.get_submodule("model.layers")
    assert isinstance(blocks, nn.ModuleList)
    grower.model.train()
    with bar, _stop_signal() as stop, noisy(blocks, grower.generator, recipe.noise) as wrapped:
        if compiled:
            grower.forward = torch.compile(grower.model, dynamic=False)
        stream = guarded_write(log, lambda: log.open(mode, encoding="utf-8"))
        with stream:
            while grower.step < recipe.steps and not stop.is_set():
                started = time.perf_counter()
                loss = grower.advance(wrapped)
                grower.seconds += time.perf_counter() - started
                _note(grower, loss, stream)
                bar.update(1)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                if grower.step % checkpoint_every == 0 and grower.step < recipe.steps:
                    grower.save()
    if grower.step < recipe.steps:
        grower.save()
        raise GrowthInterrupted(
            f"stopped at step {grower.step} of {recipe.steps}; run the same command again to go on from there"
        )
    grower.save()
    grower.model.eval()


def _note(grower: _Grower, loss: float, stream: Any) -> None:
    if not math.isfinite(loss):
        raise GrowthError(f"the loss is {loss} at step {grower.step}; lower the learning rate of the recipe")
    if grower.step % 25 == 0 or grower.step == grower.recipe.steps:
        grower.losses.append((grower.step, loss))
        line = {"step": grower.step, "loss": round(loss, 5), "seconds": round(grower.seconds, 2)}

        def write() -> None:
            stream.write(json.dumps(line) + "\n")
            stream.flush()

        guarded_write(grower.out / "log.jsonl", write)
