"""Training in sittings: what was learned is written down every so many steps, and the next sitting goes on from there.

A sitting is a trainer of its own, made anew from what was written down (adapter, other trained parameters, moments of
the optimiser, a few numbers) and seeded by the step it begins at. So a run that was broken off and taken up again ends
at the same bits as one that was not, and nothing but tensors and JSON is ever read.

Knows steps, files and seeds; knows nothing about losses.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PrinterCallback

from steerlib.files import write_atomic
from steerlib.plant import Plant
from steerlib.tuning.adapters import CARD, Lora, Tuned, TuningError, read_tuning, tuned_plant, write_adapter
from steerlib.tuning.trainers import aside, extra, learned, restore, results

STATE = "state.safetensors"


@dataclass(frozen=True)
class Training:
    """How an adapter is trained: AdamW at a constant rate.

    Attributes:
        steps: of DPO, optimiser steps; of PPO, batches of answers.
        batch: pairs of a step, or answers of a batch.
        rows: how many of them are on the device at a time; None for all. It must divide the batch.
        learning_rate: what suits a plant is for validation prompts to say, with the reward of sampled answers: DPO's
            margin goes on growing long after replies are ruined. Adapters of larger plants want smaller ones.
        save_every: steps of a sitting, after which what was learned is written down.
        seed: of the adapter's initial values, of the order of pairs or prompts, and of sampled answers.
    """

    steps: int = 100
    batch: int = 32
    rows: int | None = None
    learning_rate: float = 2e-4
    save_every: int = 25
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers out of their range."""
        small = [name for name in ("steps", "batch", "save_every") if getattr(self, name) < 1]
        if small or not self.learning_rate > 0 or self.seed < 0:
            raise TuningError(
                f"training: got {self}; expected steps, batch and save_every of at least 1, a learning rate above 0 "
                "and a seed that is not negative."
            )
        if self.rows is not None and (self.rows < 1 or self.batch % self.rows):
            raise TuningError(f"training: got rows={self.rows}, expected a divisor of the batch of {self.batch}.")

    @property
    def at_once(self) -> int:
        """Rows on the device at a time."""
        return self.rows or self.batch


@dataclass
class Progress:
    """What has been learned so far.

    Attributes:
        step: steps done.
        seconds: wall time so far.
        cpu_seconds: time of processors so far, which other work on the machine does not stretch.
        history: what the trainer logged at each step.
        tensors: trained parameters and the optimiser's moments, by name; empty before the first sitting.
        numbers: what else the method must remember.
    """

    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sitting:
    """A stretch of steps that one trainer does.

    Attributes:
        rows: which pairs or prompts, in order, one batch after the other.
        steps: how many.
        seed: for whatever is drawn.
        scratch: a folder that is gone afterwards.
        numbers: see `Progress`; may be written to.
    """

    rows: list[int]
    steps: int
    seed: int
    scratch: str
    numbers: dict[str, float]


@dataclass(frozen=True)
class Job:
    """What is trained on what.

    Attributes:
        method: its name.
        plant: whose adapter it is.
        lora: shape of the adapter.
        how: of training.
        data: everything else that decides the outcome: texts, and settings of the method.
        size: number of pairs or prompts.
        folder: where to write.
    """

    method: str
    plant: Plant
    lora: Lora
    how: Training
    data: Sequence[Any]
    size: int
    folder: Path

    def identity(self) -> dict[str, Any]:
        """What a folder must agree with for a run to be taken up again."""
        digest = hashlib.sha256(json.dumps(list(self.data)).encode()).hexdigest()
        own = {"lora": {**asdict(self.lora), "targets": list(self.lora.targets)}, "training": asdict(self.how)}
        plant = {"plant": self.plant.name, "weight_hash": self.plant.weight_hash}
        return {"method": self.method, **plant, **own, "data_hash": digest}


def run(job: Job, sit: Callable[[Sitting], Any]) -> Tuned:
    """Train until all steps are done, and give back the tuned plant; a finished run is read, without the extra.

    Args:
        job: what is trained on what.
        sit: makes the trainer of a sitting, whose `model` holds the adapter.

    Raises:
        TuningError: if an extra is missing, a law is attached, or the folder holds another run.
    """
    identity = job.identity()
    if (job.folder / CARD).exists():
        card = read_tuning(job.folder)
        _same(job.folder, card, identity)
        return _finished(job, card)
    _check_plant(job.plant)
    progress = _read(job.folder, identity)
    while progress.step < job.how.steps:
        stop = min(job.how.steps, progress.step - progress.step % job.how.save_every + job.how.save_every)
        rows = _order(job.size, job.how.steps * job.how.batch, job.how.seed)
        seed = int(np.random.SeedSequence([job.how.seed, progress.step]).generate_state(1)[0] >> 1)
        begun, worked = time.perf_counter(), time.process_time()
        with TemporaryDirectory() as scratch, aside(seed):
            chosen = rows[progress.step * job.how.batch : stop * job.how.batch]
            trainer = sit(Sitting(chosen, stop - progress.step, seed, scratch, progress.numbers))
            trainer.remove_callback(PrinterCallback)
            restore(trainer, progress.tensors)
            trainer.train()
        progress.tensors = learned(trainer)
        progress.history += results(trainer)
        progress.step = stop
        progress.seconds += time.perf_counter() - begun
        progress.cpu_seconds += time.process_time() - worked
        _write(job.folder, identity, progress)
    values = {name: tensor for name, tensor in progress.tensors.items() if name.startswith("value.")}
    adapter = {_peft_name(name): tensor for name, tensor in values.items() if ".lora_" in name}
    config = lora_config(job).to_dict()
    card = {
        **identity, "seconds": progress.seconds, "cpu_seconds": progress.cpu_seconds, "history": progress.history,
        "numbers": progress.numbers,
        "parameters": sum(t.numel() for t in adapter.values()),
        "others": sum(t.numel() for name, t in values.items() if ".lora_" not in name),
    }  # fmt: skip
    write_adapter(job.folder, adapter, _plain(config), card)
    (job.folder / STATE).unlink()
    return _finished(job, read_tuning(job.folder))


def lora_config(job: Job) -> Any:
    """The adapter's shape in the words of PEFT."""
    return extra("peft").LoraConfig(
        r=job.lora.rank, lora_alpha=job.lora.alpha, target_modules=job.lora.modules(job.plant), lora_dropout=0.0,
        bias="none", task_type="CAUSAL_LM", fan_in_fan_out=False,
    )  # fmt: skip


def arguments(job: Job, sitting: Sitting) -> dict[str, Any]:
    """What the configurations of both trainers have in common: nothing is reported, uploaded or left behind."""
    return {
        "output_dir": sitting.scratch, "report_to": "none", "push_to_hub": False, "save_strategy": "no",
        "disable_tqdm": True, "logging_steps": 1, "seed": sitting.seed, "optim": "adamw_torch",
        "learning_rate": job.how.learning_rate, "lr_scheduler_type": "constant", "weight_decay": 0.0,
        "per_device_train_batch_size": job.how.at_once,
        "gradient_accumulation_steps": job.how.batch // job.how.at_once,
        # Adapters are in float32 whatever the plant is in; PEFT converts between them.
        "bf16": False, "fp16": False, "gradient_checkpointing": False, "dataloader_pin_memory": False,
        "use_cpu": job.plant.device.type == "cpu",
    }  # fmt: skip


def _check_plant(plant: Plant) -> None:
    if plant.wiring.active():
        raise TuningError(f"{plant.name}: a law is attached, which tuning would not see. Fix: detach it.")
    if plant.device.index or hasattr(plant.model, "hf_device_map"):
        raise TuningError(
            f"{plant.name}: lies on {plant.device}, expected the CPU or the first GPU, whole. "
            "Fix: choose the GPU with CUDA_VISIBLE_DEVICES."
        )


def _order(size: int, rows: int, seed: int) -> list[int]:
    """So many rows: all in a random order, then all in another, and so on."""
    rng = np.random.default_rng([seed, 0x7E])
    return np.concatenate([rng.permutation(size) for _ in range(-(-rows // size))])[:rows].tolist()


def _peft_name(name: str) -> str:
    """The name of a parameter in an adapter's file: without the trainer's prefix and the adapter's name."""
    return "base_model." + name.partition("base_model.")[2].replace(".default", "")


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as JSON can hold it."""
    return {
        name: sorted(value) if isinstance(value, set) else getattr(value, "value", value)
        for name, value in config.items()
    }


def _write(folder: Path, identity: Mapping[str, Any], progress: Progress) -> None:
    told = {name: getattr(progress, name) for name in ("step", "seconds", "cpu_seconds", "history", "numbers")}
    metadata = {"identity": json.dumps(identity), "progress": json.dumps(told)}
    write_atomic(folder / STATE, save(progress.tensors, metadata=metadata))


def _read(folder: Path, identity: Mapping[str, Any]) -> Progress:
    """What an earlier run left, or the beginning."""
    if not (folder / STATE).exists():
        return Progress()
    with safe_open(folder / STATE, framework="pt") as file:
        metadata = file.metadata()
        _same(folder, json.loads(metadata["identity"]), identity)
        names = list(file.keys())
        return Progress(tensors={name: file.get_tensor(name) for name in names}, **json.loads(metadata["progress"]))


def _same(folder: Path, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    different = sorted(name for name in identity if found.get(name) != json.loads(json.dumps(identity[name])))
    if different:
        raise TuningError(
            f"{folder}: holds another run, which differs in {', '.join(different)}. Fix: choose another folder, or "
            "remove this one."
        )


def _finished(job: Job, card: Mapping[str, Any]) -> Tuned:
    return Tuned(
        tuned_plant(job.plant, job.folder), job.folder, card["parameters"], card["others"], card["seconds"],
        card.get("cpu_seconds", math.nan), tuple(card["history"]), card["adapter_sha256"],
    )  # fmt: skip
