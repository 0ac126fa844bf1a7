"""Find a plant's files, refuse what cannot work before anything is loaded, then load it.

Knows the layout of a `transformers` folder and of the shipped plants; knows nothing about steering.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

from steerlib.errors import PlantError
from steerlib.files import data_folder, sha256

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class PlantSource:
    """Where a plant comes from.

    Attributes:
        name: what to call it in records.
        location: a local folder, or a hub id.
        local: whether it is a folder.
        card: the plant's card (growth command, weight hash, acceptance), empty for foreign models.
    """

    name: str
    location: str
    local: bool
    card: dict[str, object]


def shipped_plants() -> tuple[str, ...]:
    """Names of the plants that come with steerlib."""
    folder = data_folder() / "plants"
    return tuple(sorted(p.parent.name for p in folder.glob("*/config.json")))


def resolve_plant(name_or_path: str) -> PlantSource:
    """Tell a shipped plant, a local folder and a hub id apart, and check the files of the first two.

    Args:
        name_or_path: the name of a shipped plant, a folder in the `transformers` layout, or a hub id
            ("owner/model").

    Raises:
        PlantError: if nothing of that name can be a causal language model in safetensors.
    """
    if not name_or_path or not isinstance(name_or_path, str):
        raise PlantError(f"plant: got {name_or_path!r}, expected a shipped name, a folder, or a hub id.")
    shipped = data_folder() / "plants" / name_or_path
    if name_or_path in shipped_plants():
        check_folder(shipped)
        return PlantSource(name_or_path, str(shipped), True, read_card(shipped))
    path = Path(name_or_path).expanduser()
    if path.exists():
        if path.is_file():
            raise PlantError(_not_a_folder(path))
        check_folder(path)
        return PlantSource(path.resolve().name, str(path.resolve()), True, read_card(path))
    if name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~")):
        return PlantSource(name_or_path, name_or_path, False, {})
    raise PlantError(
        f"plant {name_or_path!r}: no such folder, and not a shipped plant. "
        f"Expected a folder that exists, a hub id such as owner/model, or one of: "
        f"{', '.join(shipped_plants()) or 'none shipped'}."
    )


def check_loadable(name_or_path: str) -> PlantSource:
    """Check, without loading weights, that a plant can be loaded; the pipeline calls this before any notebook."""
    return resolve_plant(name_or_path)


def _not_a_folder(path: Path) -> str:
    if path.suffix in PICKLES:
        return (
            f"plant {path}: got a pickle ({path.suffix}), which can run code when it is opened and is never read here. "
            "Expected a folder with config.json and model.safetensors. "
            "Fix: load it where you trust it and save it with model.save_pretrained(folder)."
        )
    return f"plant {path}: got a file, expected the folder that holds config.json and model.safetensors."


def check_folder(folder: Path) -> None:
    """Refuse a folder that is not a causal language model in safetensors with a tokenizer.

    Raises:
        PlantError: naming the missing or unfit file.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise PlantError(f"plant {folder}: no config.json. Expected a folder written by model.save_pretrained.")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PlantError(f"plant {folder}: config.json is not JSON ({error}). Fix: fetch or copy it again.") from error
    kind, architectures = config.get("model_type"), config.get("architectures") or []
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or not any(
        a.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for a in architectures
    ):
        raise PlantError(
            f"plant {folder}: got model_type {kind!r} with architectures {architectures}, "
            "expected a causal language model (an architecture that ends in ForCausalLM)."
        )
    _check_weights(folder)
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise PlantError(
            f"plant {folder}: no tokenizer (none of {', '.join(_TOKENIZER_FILES)}). "
            "Fix: tokenizer.save_pretrained(folder)."
        )


def _check_weights(folder: Path) -> None:
    """Require readable safetensors weights."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        found = f"only pickles ({', '.join(pickles)}), which are never read here" if pickles else "no weights"
        raise PlantError(
            f"plant {folder}: {found}; expected *.safetensors. "
            "Fix: load it where you trust it and save it with model.save_pretrained(folder)."
        )
    for file in weights:
        try:
            with safe_open(file, framework="pt") as tensors:
                tensors.keys()
        except Exception as error:  # safetensors raises its own type, which is not public
            raise PlantError(f"plant {folder}: {file.name} cannot be read ({error}). Fix: copy it again.") from error


def read_card(folder: Path) -> dict[str, object]:
    """The plant's card, or an empty one; the files whose hashes it names must be those it describes.

    Raises:
        PlantError: if a file that the card names is missing, or is not the one it describes.
    """
    file = folder / "card.json"
    if not file.is_file():
        return {}
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PlantError(f"plant {folder}: card.json is not JSON ({error}). Fix: {_restore(folder)}.") from error
    hashes = card.get("files_sha256", {}) if isinstance(card, dict) else None
    if not isinstance(card, dict) or not isinstance(hashes, dict):
        raise PlantError(f"plant {folder}: card.json holds no card, an object of JSON. Fix: {_restore(folder)}.")
    for name, wanted in {"model.safetensors": card.get("weights_sha256"), **hashes}.items():
        if wanted is None:
            continue
        if not (folder / name).is_file():
            raise PlantError(f"plant {folder}: no {name}, which its card names. Fix: {_restore(folder)}.")
        got = sha256(folder / name)
        if got != wanted:
            what = "weights hash" if name == "model.safetensors" else f"{name} has hash"
            raise PlantError(
                f"plant {folder}: {what} {got[:12]}, but its card says {str(wanted)[:12]}. Fix: {_restore(folder)}."
            )
    return card


def _restore(folder: Path) -> str:
    return f"restore the folder, or grow the plant again with `steerlib grow {folder.name}`"


def weight_hash(model: PreTrainedModel) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of all parameters and persistent buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().cpu().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else b"")
    return digest.hexdigest()


def load_pair(
    source: PlantSource, *, device: torch.device, dtype: torch.dtype | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load model and tokenizer, safetensors only.

    Raises:
        PlantError: if the hub cannot be reached, the model is gated, or the files do not make a model.
    """
    tokenizer = _load_tokenizer(source)
    try:
        with no_progress_bar():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source.location,
                use_safetensors=True,
                dtype=dtype if dtype is not None else "auto",
                output_loading_info=True,
            )
    except (OSError, ValueError) as error:
        raise PlantError(_load_message(source, error)) from error
    model, report = loaded
    # transformers fills these with random numbers and goes on.
    if absent := sorted(report["missing_keys"]):
        raise PlantError(
            f"plant {source.location}: its weights lack {len(absent)} of the tensors that its config.json asks for, "
            f"such as {absent[0]}. Fix: {_restore(Path(source.location)) if source.local else 'check the id'}."
        )
    model.to(device)  # type: ignore[arg-type] - transformers' stub hides the argument
    return model.eval(), tokenizer


def _load_tokenizer(source: PlantSource) -> PreTrainedTokenizerBase:
    """The tokenizer alone; a damaged file raises whatever its reader stumbles over, so everything is caught."""
    try:
        return AutoTokenizer.from_pretrained(source.location)
    except Exception as error:
        if not source.local:
            raise PlantError(_load_message(source, error)) from error
        raise PlantError(
            f"plant {source.location}: its tokenizer cannot be read ({type(error).__name__}: {error}); expected a "
            f"tokenizer.json written by save_pretrained. Fix: {_restore(Path(source.location))}."
        ) from error


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Hide the bar that transformers draws while it copies or writes weights; downloads keep theirs."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load_message(source: PlantSource, error: Exception) -> str:
    first = str(error).strip().splitlines()[0]
    if source.local:
        return f"plant {source.location}: its files do not load: {first}"
    return (
        f"plant {source.name!r} is not a folder here, and could not be fetched from the hub: {first} "
        "Fix: check the id; connect to the internet or give a local folder; for a gated model accept its licence "
        "and set HF_TOKEN."
    )
