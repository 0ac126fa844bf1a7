"""What surrounds a trainer of TRL: settings that both kinds share, seeds that are put back, and what it has learned.

Knows trainers of the `transformers` kind; knows nothing about losses, or about when training is over.
"""

from __future__ import annotations

import copy
import importlib
import random
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from steerlib.plant import Plant
from steerlib.tuning.adapters import TuningError

_PACKAGES = ("trl", "peft", "accelerate", "datasets")
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
#: What trainers log that is no result: counters, which begin anew in each sitting, and clocks.
_COUNTERS = {"epoch", "episode", "eps", "learning_rate", "lr", "num_tokens", "step"}


def padded_tokenizer(plant: Plant, *, used: Collection[int] = ()) -> PreTrainedTokenizerBase:
    """A copy of the plant's tokenizer that pads on the left.

    TRL tells padding in answers by its token, so that a token which says something else must not be it.

    Args:
        plant: whose tokenizer.
        used: tokens that occur in prompts.

    Raises:
        TuningError: if the tokens that could pad all occur in prompts.
    """
    tokenizer = copy.deepcopy(plant.tokenizer)
    tokenizer.padding_side = "left"
    known: list[Any] = [tokenizer.pad_token_id, tokenizer.unk_token_id, plant.pad_id]
    spare: list[int] = [token for token in known if isinstance(token, int)]
    free = [token for token in spare if token not in used]
    if not free:
        names = [str(tokenizer.convert_ids_to_tokens(token)) for token in sorted(set(spare))]
        raise TuningError(
            f"{plant.name}: every token that could pad ({', '.join(names)}) is in a prompt. Fix: leave out such "
            "prompts, or give the tokenizer a pad_token of its own."
        )
    tokenizer.pad_token_id = next((token for token in free if token != end_token(plant)), free[0])
    return tokenizer


def end_token(plant: Plant) -> int:
    """The token that ends the plant's answers.

    Raises:
        TuningError: if there is none.
    """
    ends = plant.model.generation_config.eos_token_id if plant.model.generation_config is not None else None
    found = ends[0] if isinstance(ends, list) and ends else ends
    found = found if isinstance(found, int) else plant.tokenizer.eos_token_id
    if not isinstance(found, int):
        raise TuningError(f"{plant.name}: no token ends its answers. Fix: set generation_config.eos_token_id.")
    return found


def extra(module: str) -> Any:
    """A module of the extra.

    Raises:
        TuningError: if it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise TuningError(
            f"{error.name} is not installed, so no adapter can be trained (a finished one can be read: tuned_plant). "
            "Fix: make env EXTRAS=1, or pip install 'steerlib[tuning]'."
        ) from error


@contextmanager
def aside(seed: int) -> Iterator[None]:
    """Seed the global generators, which the trainers draw from, keep the trainers quiet, and put all back."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    level, datasets = logging.get_verbosity(), extra("datasets")
    bars = datasets.are_progress_bars_disabled()
    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


def _trained(trainer: Any) -> dict[str, Tensor]:
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def restore(trainer: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put what was written down into a new trainer."""
    if not tensors:
        return
    trainer.create_optimizer()  # does nothing where there is one
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    for name, parameter in _trained(trainer).items():
        with torch.no_grad():
            parameter.copy_(tensors[f"value.{name}"])
        if f"step.{name}" in tensors:
            optimizer.state[parameter] = {
                kind: tensors[f"{kind}.{name}"].clone().to("cpu" if kind == "step" else parameter.device)
                for kind in _MOMENTS
            }


def learned(trainer: Any) -> dict[str, Tensor]:
    """What a trainer has learned, on the CPU."""
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    found: dict[str, Tensor] = {}
    for name, parameter in _trained(trainer).items():
        found[f"value.{name}"] = parameter
        for kind, tensor in optimizer.state.get(parameter, {}).items():
            found[f"{kind}.{name}"] = tensor
    kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in found.items()}
    wrong = [name for name, tensor in kept.items() if not torch.isfinite(tensor).all()]
    if wrong:
        raise TuningError(
            f"training: {wrong[0]} is no number any more. Fix: a smaller learning rate; what was written down before "
            "is kept."
        )
    return kept


def results(trainer: Any) -> list[dict[str, float]]:
    """What a trainer logged at each step."""
    steps = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    return [{name: float(value) for name, value in entry.items() if name not in _COUNTERS} for entry in steps]
