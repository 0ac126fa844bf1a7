"""A low-rank adapter as a folder, and a plant whose weights it is added to.

The folder is laid out as PEFT lays it out (adapter_config.json, adapter_model.safetensors), beside a card that says how
the adapter was made and for which weights. Knows matrices and files; needs neither PEFT nor TRL, and knows nothing
about how an adapter is trained.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from steerlib.errors import SteerlibError, unknown
from steerlib.files import write_atomic
from steerlib.loading import PlantSource
from steerlib.plant import Plant

WEIGHTS, CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "card.json"
_PREFIX = "base_model.model."
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs",
          "_forward_hooks_always_called", "_backward_hooks", "_backward_pre_hooks")  # fmt: skip


class TuningError(SteerlibError, ValueError):
    """A plant that cannot be tuned so, or an adapter that does not belong to it."""


@dataclass(frozen=True)
class Lora:
    """The shape of an adapter (Hu et al. 2021): each matrix W of the blocks becomes W + (alpha / rank) B A.

    B begins as zero, so that an untrained adapter changes nothing.

    Attributes:
        rank: rows of A and columns of B.
        alpha: scale of the update, see above.
        targets: last names of the linear modules that get one, such as "q_proj"; none means all in the blocks.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse shapes that are none."""
        if self.rank < 1 or not self.alpha > 0:
            raise TuningError(f"lora: got rank {self.rank} and alpha {self.alpha}, expected at least 1 and above 0.")
        if isinstance(self.targets, str):
            raise TuningError(
                f"lora: got targets {self.targets!r}, expected names in a tuple. Fix: ({self.targets!r},)."
            )

    def modules(self, plant: Plant) -> list[str]:
        """Dotted names of the modules of a plant that get an update.

        Raises:
            TuningError: if the plant has no such module in its blocks; says which it has.
        """
        known = linear_names(plant)
        for name in self.targets:
            if name not in known:
                raise TuningError(f"lora, {plant.name}: " + unknown("target module", name, known))
        wanted = set(self.targets or known)
        stem = plant.anatomy.blocks_name
        return [f"{stem}.{name}" for name, _ in _linear(plant) if name.rpartition(".")[2] in wanted]


@dataclass(frozen=True)
class Tuned:
    """A tuned plant, and what it took.

    Attributes:
        plant: the plant with the adapter added to its weights; no hooks, laws and tasks take it like any other.
        folder: where the adapter lies.
        parameters: numbers in the adapter.
        others: numbers that were trained besides and are not kept, such as those of a critic.
        seconds: wall time of training, over all sittings.
        cpu_seconds: time of processors that it took, which other work on the machine does not stretch; NaN if the
            card does not say.
        history: what the trainer logged, one entry for each step.
        adapter: SHA-256 of the adapter, the beginning of which is in the plant's name.
    """

    plant: Plant
    folder: Path
    parameters: int
    others: int
    seconds: float
    cpu_seconds: float
    history: tuple[Mapping[str, float], ...]
    adapter: str


def _linear(plant: Plant) -> list[tuple[str, nn.Module]]:
    return [(name, part) for name, part in plant.blocks.named_modules() if isinstance(part, (nn.Linear, Conv1D))]


def linear_names(plant: Plant) -> tuple[str, ...]:
    """Last names of the linear modules in a plant's blocks: what an adapter can change."""
    return tuple(dict.fromkeys(name.rpartition(".")[2] for name, _ in _linear(plant)))


def adapter_hash(tensors: Mapping[str, Tensor], scale: float) -> str:
    """SHA-256 over the scale and the names, types, shapes and bytes of the tensors."""
    digest = hashlib.sha256(f"{scale!r}".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().cpu().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def twin(plant: Plant) -> PreTrainedModel:
    """The same model with modules of its own and no hooks; weights are shared, and frozen in the twin alone."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in plant.model.parameters()}
    memo.update((id(buffer), buffer) for buffer in plant.model.buffers())
    for part in plant.model.modules():
        memo.update((id(getattr(part, name)), OrderedDict()) for name in _HOOKS)
    return copy.deepcopy(plant.model, memo)


def write_adapter(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], card: Mapping[str, Any]
) -> None:
    """Write the files of an adapter; the card comes last, so that a folder with a card is whole.

    Raises:
        DiskFullError: no space left.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(folder / WEIGHTS, save(kept, metadata={"format": "pt"}))
    write_atomic(folder / CONFIG, json.dumps(config, indent=1, sort_keys=True) + "\n")
    scale = float(config["lora_alpha"]) / int(config["r"])
    whole = {**card, "adapter_sha256": adapter_hash(kept, scale)}
    write_atomic(folder / CARD, json.dumps(whole, indent=1, sort_keys=True) + "\n")


def read_tuning(folder: str | Path) -> dict[str, Any]:
    """The card of an adapter.

    Raises:
        TuningError: if there is none.
    """
    file = Path(folder) / CARD
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TuningError(f"{file}: no card of an adapter ({error}). Fix: tune the plant again.") from error
    missing = {"method", "plant", "weight_hash", "adapter_sha256"} - card.keys() if isinstance(card, dict) else {"all"}
    if missing:
        raise TuningError(f"{file}: lacks {', '.join(sorted(missing))}. Fix: tune the plant again.")
    return card


def tuned_plant(plant: Plant, folder: str | Path) -> Plant:
    """A plant whose weights are those of another plus an adapter.

    The update is computed in float64 and rounded once to the type of the weights, so that machines whose libraries add
    in another order come to the same weights. The given plant stays as it is; the two share what the adapter does not
    change.

    Args:
        plant: the one that the adapter was trained for; what is attached to it does not come along.
        folder: the adapter's.

    Returns:
        A plant named ``<plant>+<method>-<first eight digits of the adapter's hash>``.

    Raises:
        TuningError: if the folder holds no whole adapter, or one for other weights.
    """
    folder = Path(folder)
    card = read_tuning(folder)
    if card["weight_hash"] != plant.weight_hash:
        raise TuningError(
            f"{folder}: an adapter for {card['plant']} with weights {card['weight_hash'][:12]}, got {plant.name} with "
            f"{plant.weight_hash[:12]}. Fix: load the plant that it was trained for."
        )
    try:
        tensors = load_file(folder / WEIGHTS)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        scale = float(config["lora_alpha"]) / int(config["r"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise TuningError(f"{folder}: the adapter cannot be read ({error}). Fix: tune the plant again.") from error
    got = adapter_hash(tensors, scale)
    if got != card["adapter_sha256"]:
        raise TuningError(
            f"{folder}: the adapter has hash {got[:12]}, but its card says {card['adapter_sha256'][:12]}. "
            "Fix: restore the folder, or tune the plant again."
        )
    model = twin(plant)
    for name, update in _updates(tensors, scale).items():
        _add(model.get_submodule(name), update)
    origin = {key: value for key, value in plant.source.card.items() if key.startswith("world")}
    name = f"{plant.name}+{card['method']}-{got[:8]}"
    return Plant(model, plant.tokenizer, PlantSource(name, str(folder), True, {**origin, "tuning": card}))


def load_tuned(
    folder: str | Path, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> Plant:
    """The plant that an adapter was trained for, as its card names it, with the adapter added; see `tuned_plant`.

    Args:
        folder: the adapter's.
        device: see `Plant.load`.
        dtype: likewise.

    Raises:
        TuningError: see `tuned_plant`.
        PlantError: if the plant cannot be loaded.
    """
    return tuned_plant(Plant.load(str(read_tuning(folder)["plant"]), device=device, dtype=dtype), folder)


def _updates(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """For each module its (alpha / rank) B A, in float64."""
    end = ".lora_A.weight"
    stems = [name.removesuffix(end) for name in tensors if name.endswith(end)]
    return {
        stem.removeprefix(_PREFIX): scale
        * tensors[f"{stem}.lora_B.weight"].double()
        @ tensors[f"{stem}.lora_A.weight"].double()
        for stem in stems
    }


def _add(module: nn.Module, update: Tensor) -> None:
    """Give a module weights of its own: the old ones and an update of (out, in)."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    # GPT-2's modules hold their matrices the other way round.
    moved = weight.detach().cpu().double() + (update.T if isinstance(module, Conv1D) else update)
    module.weight = nn.Parameter(moved.to(weight.dtype).to(weight.device), requires_grad=False)
