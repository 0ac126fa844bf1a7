"""A rerun of a table, small: the same command end to end in seconds, with every component real.

Each cell keeps its law, task, decoder, judges and rows; what is made small are models, data, numbers of prompts, tokens
and texts to fit on, and those options of laws that would not fit. One seed, and of each sweep and figure two values.

Knows cells and what in them is large. Knows nothing about tables.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from steerlib.dry import models
from steerlib.dry.data import write_sets
from steerlib.dry.endpoint import serving
from steerlib.experiment.cells import Cell
from steerlib.experiment.profile_tables import Fields, Given, TableSpec
from steerlib.experiment.rerun import Rerun
from steerlib.experiment.store import Store
from steerlib.registry import task_class
from steerlib.tasks.real.settings import settings_of

TESTED, VALIDATED, FITTED, TOKENS = 4, 3, 16, 6
#: A value that was trained for three passes is flat: steps along it are so many times as long.
STEEPER = 100.0
#: Largest value of an option of a law or scorer, by its name, wherever it stands.
MOST: dict[str, int] = {
    "hidden": 16, "passes": 3, "batch": 8, "steps": 4, "dimension": 128, "updates": 10, "prompts": 4, "num_heads": 4,
    "context": 12, "k": 3,
}  # fmt: skip
#: Options that a law has by default, and that are too large for a small model.
BY_LAW: dict[str, dict[str, int]] = {
    "a-lqr": {"prompts": 4},
    "householder-rotation": {"passes": 2},
    "iti": {"num_heads": 4},
    "odesteer": {"dimension": 128},
    "re-control": {"passes": 3, "batch": 8, "hidden": 16},
    "truthflow": {"updates": 10, "depth": 2},
}


@contextmanager
def dry(rerun: Rerun, home: Path, *, all_settings: bool = False) -> Iterator[tuple[Rerun, Store]]:
    """A small form of a rerun, and the store of its records; nothing outside of its folder is read or written.

    Args:
        rerun: at the size of its profile.
        home: folder of models, data, states and records; what is there is used again.
        all_settings: keep every setting; by default those of the first model alone.

    Raises:
        SteerlibError: a model of no known family.
    """
    home = home.resolve()
    if not (home / "data" / "mmlu").is_dir():  # written last
        write_sets(home / "data")
    given = {
        "STEERLIB_DATA": str(home / "data"), "STEERLIB_ROLLOUTS": str(home / "rollouts"), "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        with serving() as url:
            yield small(rerun, home, url, all_settings=all_settings), Store(home / "store")
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def small(rerun: Rerun, home: Path, url: str, *, all_settings: bool = False) -> Rerun:
    """A rerun with one seed, two values of each sweep and figure, and cells made small; see `shrunk`."""
    entry = rerun.entry
    if entry.vary is not None:
        entry = entry.model_copy(update={"vary": entry.vary.two()})
    settings = rerun.settings if all_settings else _of_one_plant(rerun)
    spec = _two(rerun.spec)
    if "model" in spec.reader:
        reader = Given(value=str(models.plant(home / "models", str(spec.reader["model"].value))), chosen="dry run")
        spec = spec.model_copy(update={"reader": {**spec.reader, "model": reader}})
    return replace(
        rerun, entry=entry, spec=spec, seeds=rerun.seeds[:1], settings=settings,
        made=lambda cell: shrunk(cell, home, url),
    )  # fmt: skip


def _of_one_plant(rerun: Rerun) -> tuple[str, ...]:
    """The settings of the first setting's plant; in a table of one plant, those of the first."""
    plants = {
        setting: (rerun.spec.settings[setting].fields.get("plant") or rerun.spec.fields["plant"]).value
        for setting in rerun.settings
    }
    return tuple(setting for setting in rerun.settings if plants[setting] == plants[rerun.settings[0]])


def _two(spec: TableSpec) -> TableSpec:
    """A table whose sweeps try two values of their first field, and one of the others."""

    def cut(sweeps: dict[str, Fields]) -> dict[str, Fields]:
        return {
            row: {
                name: Given(value=given.value[: 1 if k else 2], chosen="dry run")
                if isinstance(given.value, list)
                else given
                for k, (name, given) in enumerate(fields.items())
            }
            for row, fields in sweeps.items()
        }

    validation = spec.validation
    if validation is not None:
        validation = validation.model_copy(update={"sweeps": cut(validation.sweeps)})
    settings = {name: one.model_copy(update={"sweeps": cut(one.sweeps)}) for name, one in spec.settings.items()}
    return spec.model_copy(update={"validation": validation, "settings": settings})


def shrunk(cell: Cell, home: Path, url: str) -> Cell:
    """A cell on small models and few prompts; its law, task, decoder and judges are those that it had.

    Args:
        cell: of a profile.
        home: folder in which its models are made.
        url: address of the server that stands for APIs.

    Raises:
        SteerlibError: a model of no known family.
    """
    data = cell.model_dump(mode="json")
    data["plant"] = str(models.plant(home / "models", cell.plant))
    # Maps of small models are narrower than the weights that share a scale, and bitsandbytes is an extra.
    for held in (data, *data.get("judges", {}).values()):
        if "precision" in held:
            held["precision"].pop("weights", None)
    data["limit"] = min(cell.limit or TESTED, TESTED if cell.split == "test" else VALIDATED)
    data["task_options"] = _task(cell.task, cell.task_options)
    for role, spec in data.get("judges", {}).items():
        _judge(spec, role, home, url)
    if data.get("law"):
        _law(data["law"])
    if data.get("decoder"):
        _decoder(data["decoder"])
    return Cell.model_validate(data)


def _task(name: str, options: dict[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in options.items() if key != "data"}
    kind = task_class(name)
    if (given := options.get("settings")) is not None:
        how = settings_of(given, kind.behaviour)
        out["settings"] = {
            "max_new_tokens": min(how.max_new_tokens, TOKENS), "temperature": how.temperature, "top_p": how.top_p,
            "stop": list(how.stop),
        }  # fmt: skip
    return out


def _judge(spec: dict[str, Any], role: str, home: Path, url: str) -> None:
    options, name, folder = spec["options"], spec["model"], home / "judges"
    spec.pop("revision", None)
    make: dict[str, Callable[[], Path]] = {
        "classifier": lambda: models.classifier(folder, name, label=str(options["label"])),
        "completion": lambda: models.completion(
            folder, name, yes=options.get("yes", " yes"), no=options.get("no", " no")
        ),
        "reward": lambda: models.reward(folder, name, head=options.get("head")),
        "encoder": lambda: models.encoder(folder, name),
    }
    if spec["kind"] in make:
        spec["model"] = str(make[spec["kind"]]())
    elif spec["kind"] != "oracle":
        options |= {"url": url, "journal": str(home / "journals" / f"{role}.jsonl"), "key_variable": None}
        options["patience"] = {"timeout": 20.0, "attempts": 2, "longest_wait": 1.0}


def _law(law: dict[str, Any]) -> None:
    law["layer"] = _layer(law["layer"])
    if isinstance(law.get("layers"), list):
        law["layers"] = sorted({_layer(layer) for layer in law["layers"]})
        law["layer"] = law["layers"][-1] if law["layers"] else law["layer"]
    law["options"] = {**BY_LAW.get(law["name"], {}), **law["options"]}
    law["options"] = _capped(law["options"])
    if "alpha" in law["options"]:
        law["options"]["alpha"] *= STEEPER
    law["fit"]["n"] = min(law["fit"]["n"], FITTED)
    if law["fit"].get("task"):
        law["fit"]["task_options"] = _task(law["fit"]["task"], law["fit"].get("task_options", {}))


def _layer(layer: int) -> int:
    """A block of a small model: the same where there is one, else the middle."""
    return layer if -models.DEPTH <= layer < models.DEPTH else models.DEPTH // 2


def _decoder(by: dict[str, Any]) -> None:
    by["options"] = _capped(by["options"]) | ({"n": min(by["options"]["n"], 2)} if "n" in by["options"] else {})
    if (by.get("scorer") or {}).get("name") == "reward":
        by["scorer"] = {"name": "reward"}
    elif by.get("scorer"):
        by["scorer"]["options"] = _capped(by["scorer"]["options"])
        by["scorer"]["n"] = min(by["scorer"]["n"], FITTED)
    if by.get("inner"):
        _decoder(by["inner"])


def _capped(options: dict[str, Any]) -> dict[str, Any]:
    def cap(name: str, value: Any) -> Any:
        small = name in MOST and isinstance(value, int | float) and not isinstance(value, bool)
        return min(value, MOST[name]) if small else value

    return {name: cap(name, value) for name, value in options.items()}
