"""A training run on disk: weights, moments of the optimiser and how far it is, in one safetensors file.

Knows modules, optimisers and files; knows nothing about what is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from steerlib.errors import LawError
from steerlib.files import write_atomic

_NOW, _BEST, _MOMENT = "now.", "best.", "moment."


def save_training(
    path: Path,
    network: nn.Module,
    optimiser: Optimizer,
    *,
    best: Mapping[str, Tensor],
    spec: Mapping[str, Any],
    state: Mapping[str, Any],
) -> None:
    """Write a run so that the file holds the old state or the new one, never a part.

    Args:
        path: of the file.
        network: in training.
        optimiser: of its parameters.
        best: weights that were best so far; may be empty.
        spec: what makes this run the one it is, as JSON.
        state: how far it is, as JSON.
    """
    held = {_NOW + name: tensor for name, tensor in network.state_dict().items()}
    held |= {_BEST + name: tensor for name, tensor in best.items()}
    for number, moments in optimiser.state_dict()["state"].items():
        held |= {f"{_MOMENT}{number}.{name}": tensor for name, tensor in moments.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in held.items()}
    write_atomic(path, save(tensors, metadata={"spec": json.dumps(dict(spec)), "state": json.dumps(dict(state))}))


def load_training(
    path: Path, network: nn.Module, optimiser: Optimizer, *, spec: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Put network and optimiser where a run was; its state and best weights, or None if there is no file.

    Raises:
        LawError: if the file cannot be read, or is another run's; what differs is named.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            meta = file.metadata() or {}
            before, state = json.loads(meta["spec"]), json.loads(meta["state"])
            held = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise LawError(f"{path}: cannot be read as a checkpoint ({error!r}). Fix: delete it.") from error
    differs = sorted(key for key in spec.keys() | before.keys() if spec.get(key) != before.get(key))
    if differs:
        raise LawError(f"{path}: the checkpoint of another fit ({', '.join(differs)} differ). Fix: name another file.")
    network.load_state_dict(_under(held, _NOW))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under(held, _MOMENT).items():
        number, _, which = name.partition(".")
        moments.setdefault(int(number), {})[which] = tensor
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return state, _under(held, _BEST)


def _under(held: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in held.items() if name.startswith(prefix)}
