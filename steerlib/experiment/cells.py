"""A cell of an experiment as data: which plant, which behaviour, which law, how it is scored; and its content key.

Knows what decides the outcome of a cell. Knows nothing about how it is computed (`running`) or kept (`store`).
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

import steerlib
from steerlib.closure import import_closure
from steerlib.files import sha256
from steerlib.registry import LAWS, TASKS, place_of

#: Packages whose version can move a number.
DECIDING = ("torch", "transformers", "numpy")
#: The option by which every task that reads files is told the folder where they lie.
DATA = "data"
_ROOT = Path(steerlib.__file__).resolve().parents[1]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __hash__(self) -> int:
        """Hash of the content; options are dictionaries, which have none of their own."""
        return hash(canonical(self))


class Fit(_Data):
    """What a law is fitted on.

    Attributes:
        n: texts of each class.
        seed: which texts.
        at: where the state is measured, "choice" or "end".
        labels: "true", or "shuffled" for the negative control.
    """

    n: Annotated[int, Field(ge=1)] = 200
    seed: int = 0
    at: Literal["choice", "end"] = "choice"
    labels: Literal["true", "shuffled"] = "true"


class LawSpec(_Data):
    """A law and where it acts.

    Attributes:
        name: see `steerlib.registry.LAWS`.
        layer: block; negative counts from the last.
        point: see `Site`.
        scope: which tokens are steered.
        strength: multiplier of the input.
        options: arguments of the law's constructor.
        fit: what it is fitted on.
    """

    name: str
    layer: int
    point: Literal["resid_pre", "resid_post", "final_norm"] = "resid_post"
    scope: Literal["prefill", "last", "generated", "all"] = "generated"
    strength: float = 1.0
    options: dict[str, JsonValue] = {}
    fit: Fit = Fit()

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        place_of(name, LAWS, "law")
        return name


class Cell(_Data):
    """One measurement.

    Attributes:
        plant: name, folder or hub id.
        task: see `steerlib.registry.TASKS`.
        task_options: arguments of the task's constructor, such as the name of a concept.
        law: None for the unsteered plant.
        told: prompts that say by name what is wanted: the prompting baseline.
        kind: "exact", from the plant's probabilities, or "sampled", one answer to each prompt.
        split: which prompts.
        limit: at most so many, spread evenly; None for all.
        seed: of the sampling; 0 where nothing is sampled.
    """

    plant: str
    task: str
    task_options: dict[str, JsonValue] = {}
    law: LawSpec | None = None
    told: bool = False
    kind: Literal["exact", "sampled"] = "exact"
    split: Literal["validation", "test"] = "test"
    limit: Annotated[int, Field(ge=2)] | None = None
    seed: int = 0

    @field_validator("task")
    @classmethod
    def _known(cls, name: str) -> str:
        place_of(name, TASKS, "task")
        return name

    def model_post_init(self, _context: Any) -> None:
        """Refuse a seed where nothing is drawn: two names for one measurement would be computed twice."""
        if self.kind == "exact" and self.seed != 0:
            raise ValueError(f"seed={self.seed} with kind='exact', where nothing is sampled; expected 0")

    @property
    def title(self) -> str:
        """A line for people."""
        law = "unsteered" if self.law is None else f"{self.law.name} at block {self.law.layer} x {self.law.strength:g}"
        if self.law is not None and self.law.fit.labels != "true":
            law += ", labels shuffled"
        told = ", told" if self.told else ""
        options = "".join(f" {value}" for value in self.task_options.values())
        seed = f", seed {self.seed}" if self.kind == "sampled" else ""
        return f"{self.plant}: {self.task}{options}, {law}{told} ({self.kind}{seed})"


def canonical(data: BaseModel | dict[str, Any]) -> str:
    """JSON with sorted keys and no spaces: equal data, equal text."""
    raw = data.model_dump(mode="json") if isinstance(data, BaseModel) else data
    return json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def code_hash(cell: Cell, *, root: Path | None = None) -> str:
    """Hash of the sources that the cell's law and task are made of, and of what those import."""
    places = {place_of(cell.task, TASKS, "task")}
    if cell.law is not None:
        places.add(place_of(cell.law.name, LAWS, "law"))
    return _sources(frozenset(places), root or _ROOT)


@cache
def _sources(places: frozenset[str], root: Path) -> str:
    files = import_closure(root, set(places))
    table = {path.relative_to(root).as_posix(): sha256(path) for path in files}
    return hashlib.sha256(canonical(table).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that can move a number; builds of torch for a CPU and for a GPU count as one."""
    return {name: version(name).partition("+")[0] for name in DECIDING}


def cell_key(cell: Cell, *, weights: str, data: str = "", code: str | None = None) -> str:
    """The content key of a cell: another plant, datum, source or version gives another key.

    Args:
        cell: the measurement.
        weights: hash of the plant's weights; its name does not count, nor where it lies.
        data: hash of the data that the task reads besides the code of the world.
        code: hash of the sources; by default that of this installation.
    """
    parts = {
        "weights": weights,
        "data": data,
        "code": code if code is not None else code_hash(cell),
        "versions": versions(),
    }
    return key_from(cell, parts)


def key_from(cell: Cell, parts: dict[str, Any]) -> str:
    """The content key, from the parts that decide it besides the cell: see `keys.present_parts`."""
    # The name of the plant does not count, nor where it lies: its weights do. So with data: their content does.
    left_out: dict[str, Any] = {"plant": True, "task_options": {DATA}}
    return hashlib.sha256(
        canonical({"cell": cell.model_dump(mode="json", exclude=left_out), **parts}).encode()
    ).hexdigest()
