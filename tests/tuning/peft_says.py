"""What PEFT's own model says with shipped adapters, written down for machines that do not have it.

    python -m tests.tuning.peft_says

writes `peft_says.json` beside this file; it needs the extra. `test_shipped` compares plants with what is written.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

import torch

from steerlib.plant import Plant
from steerlib.tuning.adapters import WEIGHTS
from steerlib.tuning.shipped import PLANT, adapter_folder, shipped_adapters

FILE = Path(__file__).with_suffix(".json")
TEXTS = ("Wish: Help me set the tower clock of Pelldale.\nReply:", "Question: Where does the river of Pelldale rise?")
#: Logits of the last position that are kept, of each text.
KEPT = 24


def logits_of_peft(name: str) -> list[list[float]]:
    """Logits at the end of each text, of the live model with its adapter."""
    import peft

    folder = adapter_folder(name)
    plant = Plant.load(PLANT, device="cpu", dtype=torch.float32)
    live = peft.PeftModel.from_pretrained(plant.model, str(folder)).eval()  # type: ignore[arg-type]
    found = []
    for text in TEXTS:
        with torch.inference_mode():
            found.append(live(input_ids=plant.encode([text]).input_ids).logits[0, -1, :KEPT].tolist())
    return found


def adapter_file_hash(name: str) -> str:
    """SHA-256 of an adapter's file."""
    return hashlib.sha256((adapter_folder(name) / WEIGHTS).read_bytes()).hexdigest()  # type: ignore[operator]


def main() -> None:
    """Write the file."""
    names = shipped_adapters()
    says = {name: {"adapter": adapter_file_hash(name), "logits": logits_of_peft(name)} for name in names}
    made = {"by": f"peft {version('peft')}", "command": "python -m tests.tuning.peft_says", "says": says}
    FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
