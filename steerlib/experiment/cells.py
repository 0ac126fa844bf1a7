"""A cell of an experiment as data: which plant, which behaviour, which law, how it is scored; and its content key.

Knows what decides the outcome of a cell. Knows nothing about how it is computed (`running`) or kept (`store`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationInfo, field_validator, model_validator

import steerlib
from steerlib.closure import import_closure
from steerlib.experiment.decoder_spec import DecoderSpec
from steerlib.experiment.judge_spec import JudgeSpec
from steerlib.experiment.precision_spec import Precision
from steerlib.experiment.sampling_spec import Sampling as Sampling  # whoever writes cells writes these
from steerlib.experiment.sampling_spec import plain
from steerlib.experiment.written import _Data, canonical
from steerlib.files import sha256
from steerlib.registry import JUDGES, LAWS, TASKS, place_of
from steerlib.sites import Point

#: Packages whose version can move a number.
DECIDING = ("torch", "transformers", "numpy")
#: The option by which every task that reads files is told the folder where they lie.
DATA = "data"
#: Where decoders and their scorers are made: code that decides the outcome of a cell with a decoder.
MAKING = "steerlib.decoding.making.decoder"
#: What a cell's answers are under that says how much they may repeat themselves: likewise.
REPETITION = "steerlib.decoding.repetition.less_repetitive"
#: How states of answers go to disk and are learned from there: likewise, where a cell asks for it.
STREAMED = "steerlib.tasks.streamed.harvest"
#: Options of a task that are longer are left out of a cell's title.
LONGEST = 60
_ROOT = Path(steerlib.__file__).resolve().parents[1]


class Fit(_Data):
    """What a law is fitted on.

    Attributes:
        n: texts of each class.
        seed: which texts.
        at: where the state is measured, "choice" or "end".
        labels: "true", or "shuffled" for the negative control.
        task: the behaviour that the law is fitted for; None for the one that is scored. A law fitted for one behaviour
            and scored on another shows what else it moves.
        task_options: arguments of that task's constructor.
        on_disk: of a law of value: let the states of answers go to disk, where they are harvested and learned from by
            parts; see `steerlib.tasks.streamed`. For as many as no memory holds.
    """

    later = frozenset({"task", "task_options", "on_disk"})

    n: Annotated[int, Field(ge=1)] = 200
    seed: int = 0
    at: Literal["choice", "end"] = "choice"
    labels: Literal["true", "shuffled"] = "true"
    task: str | None = None
    task_options: dict[str, JsonValue] = {}
    on_disk: bool = False

    @field_validator("task")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None:
            place_of(name, TASKS, "task")
        return name

    def model_post_init(self, _context: Any) -> None:
        """Refuse options of no task."""
        if self.task is None and self.task_options:
            raise ValueError(
                f"fit: got task_options {self.task_options} without a task. Fix: name the task that the law is fitted "
                "for, or leave both out to fit it for the one that is scored, with that one's options"
            )


class LawSpec(_Data):
    """A law and where it acts.

    Attributes:
        name: see `steerlib.registry.LAWS`.
        layer: block; negative counts from the last. May be left out where `layers` says more. Laws that look for their
            own places, such as "iti", do not ask for it: write -1 there, so that one cell has one name.
        point: see `Site`.
        scope: which tokens are steered.
        strength: multiplier of the input.
        options: arguments of the law's constructor.
        fit: what it is fitted on.
        layers: blocks, one law for each under the one strength, or "all"; empty for the one of `layer`.
        sequential: whether each of these laws is fitted while those of earlier blocks act; see `steerlib.laws.stack`.
    """

    later = frozenset({"layers", "sequential"})

    name: str
    layer: int
    point: Point = "resid_post"
    scope: Literal["prefill", "last", "generated", "all"] = "generated"
    strength: float = 1.0
    options: dict[str, JsonValue] = {}
    fit: Fit = Fit()
    layers: tuple[int, ...] | Literal["all"] = ()
    sequential: bool = False

    @model_validator(mode="before")
    @classmethod
    def _last_layer(cls, data: Any) -> Any:
        """With several blocks, `layer` is the last of them: two names for one cell would be computed twice."""
        if isinstance(data, dict) and data.get("layers") and "layer" not in data:
            return {**data, "layer": -1 if data["layers"] == "all" else data["layers"][-1]}
        return data

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        place_of(name, LAWS, "law")
        return name

    def model_post_init(self, _context: Any) -> None:
        """Refuse layers that contradict each other."""
        if self.sequential and not self.layers:
            raise ValueError("sequential=True with one layer, where nothing comes before; expected layers, or False")
        if len(set(self.layers)) < len(self.layers) and self.layers != "all":
            raise ValueError(f"layers: got {self.layers}, expected each block once")
        last = -1 if self.layers == "all" else self.layers[-1] if self.layers else self.layer
        if self.layer != last:
            raise ValueError(
                f"got layer={self.layer} beside layers={self.layers}; expected {last}, the last. Fix: leave layer out"
            )
        if self.fit.on_disk and (self.name != "re-control" or self.layers):
            raise ValueError(f"law {self.name}: got fit.on_disk, which only re-control at one layer takes")

    @property
    def place(self) -> str:
        """Where it acts, for people: "block 3", "blocks 1, 2, 3", "all blocks in turn"."""
        if not self.layers:
            return f"block {self.layer}"
        where = "all blocks" if self.layers == "all" else f"blocks {', '.join(map(str, self.layers))}"
        return where + (" in turn" if self.sequential else "")


def labelled(law: LawSpec, name: str | None = None) -> str:
    """A law's name (its registered one, if no other is given), which says so if the labels of its fit were shuffled."""
    return (name or law.name) + ("" if law.fit.labels == "true" else ", labels shuffled")


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
        settings: how answers are sampled where that is not the task's own way. What is learned from answers is learned
            from those of the task's own way, under the penalty and the ban that stand here.
        judges: who judges sampled answers, by the argument of the task that takes the judge: "judge", and for some
            tasks another (see `steerlib.tasks.base.Task.judge_roles`).
        decoder: what answers, in the place of the plant's own sampling; None for that. A law acts on it, too.
        precision: how the plant's weights are held; by default as its files have them.
    """

    later = frozenset({"settings", "judges", "decoder", "precision"})

    plant: str
    task: str
    task_options: dict[str, JsonValue] = {}
    law: LawSpec | None = None
    told: bool = False
    kind: Literal["exact", "sampled"] = "exact"
    split: Literal["validation", "test"] = "test"
    limit: Annotated[int, Field(ge=2)] | None = None
    seed: int = 0
    settings: Sampling = Sampling()
    judges: dict[str, JudgeSpec] = {}
    decoder: DecoderSpec | None = None
    precision: Precision = Precision()

    @field_validator("task")
    @classmethod
    def _known(cls, name: str) -> str:
        place_of(name, TASKS, "task")
        return name

    @field_validator("decoder")
    @classmethod
    def _no_plain(cls, decoder: DecoderSpec | None) -> DecoderSpec | None:
        """Leave out the plant's own sampling: two names for one cell would be computed twice."""
        return None if decoder is not None and decoder.name == "plain" else decoder

    @field_validator("law")
    @classmethod
    def _one_name(cls, law: LawSpec | None, found: ValidationInfo) -> LawSpec | None:
        """Leave out a task to fit for that is the scored one: two names for one cell would be computed twice."""
        scored = (found.data.get("task"), found.data.get("task_options"))
        if law is None or (law.fit.task, law.fit.task_options) != scored:
            return law
        return law.model_copy(update={"fit": law.fit.model_copy(update={"task": None, "task_options": {}})})

    def model_post_init(self, _context: Any) -> None:
        """Refuse what says how to draw where nothing is drawn: one cell would have two names, computed twice."""
        if self.kind == "exact" and self.decoder is not None:
            raise ValueError(
                f"decoder={self.decoder.name!r} with kind='exact', where nothing is decoded; expected none"
            )
        if self.kind == "exact" and self.settings.given:
            raise ValueError(
                f"settings={self.settings.given} with kind='exact', where nothing is sampled; expected none"
            )
        acts = self.settings.repetition not in ({}, {"repetition_penalty": 1})
        if acts and self.decoder is not None and self.decoder.draws:
            raise ValueError(
                f"settings={self.settings.repetition} with decoder={self.decoder.name!r}, which scores candidates by "
                "the plant's plain probabilities; expected none, or 'prompted' or 'best-of-n'"
            )
        if self.settings.cache is not None and self.decoder is not None:
            raise ValueError(
                f"settings.cache={self.settings.cache!r} with decoder={self.decoder.name!r}, which keeps caches of its "
                "own; expected none"
            )
        if self.kind == "exact" and self.seed != 0:
            raise ValueError(f"seed={self.seed} with kind='exact', where nothing is sampled; expected 0")
        if self.kind == "exact" and self.judges:
            raise ValueError(f"judges={sorted(self.judges)} with kind='exact', where nothing is judged; expected none")

    @property
    def fitted_for(self) -> tuple[str, dict[str, JsonValue]] | None:
        """Task and options that the law is fitted for; None without a law."""
        if self.law is None:
            return None
        fit = self.law.fit
        return (self.task, self.task_options) if fit.task is None else (fit.task, fit.task_options)

    @property
    def tasks(self) -> tuple[tuple[str, dict[str, JsonValue]], ...]:
        """Tasks with their options: the one that is scored, then the one that the law is fitted for if it differs."""
        scored = (self.task, self.task_options)
        return (scored,) if self.fitted_for in (None, scored) else (scored, self.fitted_for)

    @property
    def law_names(self) -> tuple[str, ...]:
        """Registered names of the law and of the law that it holds, if any: code that decides the outcome."""
        if self.law is None:
            return ()
        held = self.law.options.get("behaviour")
        return (self.law.name, held) if isinstance(held, str) and held in LAWS else (self.law.name,)

    @property
    def on_disk(self) -> bool:
        """Whether anything of it is fitted on states that go to disk."""
        law = self.law is not None and self.law.fit.on_disk
        return law or (self.decoder is not None and self.decoder.on_disk)

    @property
    def judged(self) -> str:
        """Who judges what, for people; "" where no judge is named."""
        return "; ".join(f"{role}: {spec.title}" for role, spec in sorted(self.judges.items()))

    @property
    def title(self) -> str:
        """A line for people."""
        law = "unsteered"
        if self.law is not None:
            law = labelled(self.law, f"{self.law.name} at {self.law.place} x {self.law.strength:g}")
            if self.law.fit.task is not None:
                law += f", fitted for {' '.join([self.law.fit.task, *map(str, self.law.fit.task_options.values())])}"
        told = ", told" if self.told else ""
        told += f", {self.decoder.title}" if self.decoder is not None else ""
        # Whoever reads a line wants to know which behaviour on which data; how answers are drawn and cut is a page.
        short = (str(value) for value in self.task_options.values() if not isinstance(value, dict))
        options = "".join(f" {value}" for value in short if len(value) < LONGEST)
        seed = f", seed {self.seed}" if self.kind == "sampled" else ""
        seed += "".join(f", {name} {plain(value)}" for name, value in self.settings.given.items())
        seed += f", {self.judged}" if self.judges else ""
        seed += f", {self.precision.title}" if self.precision.title else ""
        return f"{self.plant}: {self.task}{options}, {law}{told} ({self.kind}{seed})"


def code_hash(cell: Cell, *, root: Path | None = None) -> str:
    """Hash of the sources that the cell's law, tasks, judges and decoder are made of, and of what those import."""
    places = {place_of(name, TASKS, "task") for name, _ in cell.tasks}
    if cell.decoder is not None:
        places |= {*cell.decoder.places, MAKING}
    if cell.settings.repetition:
        places.add(REPETITION)
    places |= {place_of(name, LAWS, "law") for name in cell.law_names}
    if cell.on_disk:
        places.add(STREAMED)
    for spec in cell.judges.values():
        places.add(place_of(spec.kind, JUDGES, "kind of judge"))
        if spec.kind == "oracle":
            places.add(place_of(str(spec.options["task"]), TASKS, "task of the oracle"))
    return _sources(frozenset(places), root or _ROOT)


@cache
def _sources(places: frozenset[str], root: Path) -> str:
    files = {file for place in places for file in _files_behind(place, root)}
    table = {path.relative_to(root).as_posix(): sha256(path) for path in sorted(files)}
    return hashlib.sha256(canonical(table).encode()).hexdigest()


@cache
def _files_behind(place: str, root: Path) -> list[Path]:
    """Place by place, since the combinations of a file of records are many more than their places."""
    return import_closure(root, {place})


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that can move a number; builds of torch for a CPU and for a GPU count as one."""
    return {name: version(name).partition("+")[0] for name in DECIDING}


def cell_key(
    cell: Cell, *, weights: str, data: str = "", code: str | None = None, judges: Mapping[str, str] | None = None
) -> str:
    """The content key of a cell: another plant, judge, datum, source or version gives another key.

    Args:
        cell: the measurement.
        weights: hash of the plant's weights; its name does not count, nor where it lies.
        data: hash of the data that the task reads besides the code of the world.
        code: hash of the sources; by default that of this installation.
        judges: what each judge of the cell is known by; see `keys.judge_identity`.
    """
    parts: dict[str, Any] = {
        "weights": weights,
        "data": data,
        "code": code if code is not None else code_hash(cell),
        "versions": versions(),
    }
    if judges:
        parts["judges"] = dict(judges)
    return key_from(cell, parts)


def key_from(cell: Cell, parts: dict[str, Any]) -> str:
    """The content key, from the parts that decide it besides the cell: see `keys.present_parts`.

    Raises:
        ValueError: if the parts do not say what a judge of the cell is known by: two judges would have one key.
    """
    if unknown := sorted(set(cell.judges) - set(parts.get("judges", {}))):
        raise ValueError(f"{cell.title}: the parts of its key do not say what its judge {unknown[0]!r} is known by")
    # The name of the plant does not count, nor where it lies: its weights do. So with data: their content does.
    left_out: dict[str, Any] = {"plant": True, "task_options": {DATA}}
    if cell.judges:
        left_out["judges"] = {role: spec.undecided() for role, spec in cell.judges.items()}
    return hashlib.sha256(
        canonical({"cell": cell.model_dump(mode="json", exclude=left_out), **parts}).encode()
    ).hexdigest()
