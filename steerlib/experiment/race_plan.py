"""Race files: which methods run against each other, where, and with what effort, written as data.

Knows the file and how a paper's setting becomes laws of a plant: blocks from shares of the depth, lengths from the norm
of states. Knows nothing about how a race is run (`racing`) or shipped (`race_records`).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from steerlib.errors import SteerlibError, unknown
from steerlib.experiment.calibrate import Budget
from steerlib.experiment.cells import Cell, Fit, LawSpec
from steerlib.experiment.methods import Method, controls_of, other_of
from steerlib.experiment.selecting import ScoreName
from steerlib.experiment.written import _Data
from steerlib.experiment.yaml_files import problems, read_yaml
from steerlib.registry import LAWS, TASKS, class_at, place_of
from steerlib.sites import Point

Share = Annotated[float, Field(ge=0, le=1)]


class RacePlanError(SteerlibError, ValueError):
    """A race file that cannot be read, or asks for what is not in it."""


class MethodPlan(_Data):
    """A method at its paper's setting.

    Attributes:
        name: for the table.
        law: see `steerlib.registry.LAWS`.
        source: where the setting comes from, and what of it is ours.
        strengths: multipliers among which validation chooses.
        unit: what they count: "own", the law's own unit, which goes with the states that it was fitted on; or "norm",
            the mean norm of the states where it acts, for laws whose input has length one.
        options: arguments of the law's constructor.
        choices: further arguments, one set for each candidate.
        layers: where it may act, as shares of the depth from the first block (0) to the last (1); None for the race's.
        across: at all blocks, each fitted while the earlier ones act, instead of at one layer.
        point: see `Site`.
        scope: which tokens are steered.
        at: where the states to fit on are measured; see `Fit`.
        apart: every block where it may act is a method of its own, so that none is chosen: a sweep over layers.
        fits: texts of each class, every number a method of its own: a sweep over examples; none for the race's number.
        labels: "shuffled" fits it on shuffled labels.
        control: it is there to fail.
    """

    later = frozenset({"apart", "fits", "labels", "control"})

    name: str
    law: str
    source: Annotated[str, Field(min_length=20)]
    strengths: Annotated[tuple[float, ...], Field(min_length=1)]
    unit: Literal["own", "norm"] = "own"
    options: dict[str, JsonValue] = {}
    choices: Annotated[tuple[dict[str, JsonValue], ...], Field(min_length=1)] = ({},)
    layers: tuple[Share, ...] | None = None
    across: bool = False
    point: Point = "resid_post"
    scope: Literal["prefill", "last", "generated", "all"] = "generated"
    at: Literal["choice", "end"] = "choice"
    apart: bool = False
    fits: tuple[Annotated[int, Field(ge=2)], ...] = ()
    labels: Literal["true", "shuffled"] = "true"
    control: bool = False

    @field_validator("law")
    @classmethod
    def _known(cls, name: str) -> str:
        place_of(name, LAWS, "law")
        return name

    @field_validator("strengths")
    @classmethod
    def _not_zero(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        if 0 in strengths or len(set(strengths)) < len(strengths):
            raise ValueError(f"got {strengths}, expected each once, and none zero: that is the unsteered plant")
        return strengths

    @model_validator(mode="after")
    def _makeable(self) -> MethodPlan:
        takes = inspect.signature(class_at(LAWS[self.law])).parameters
        for given in self.choices:
            if strange := sorted({*self.options, *given} - set(takes)):
                raise ValueError(unknown(f"an option of {self.law}", strange[0], sorted(set(takes) - {"strength"})))
        if self.across and (self.layers is not None or self.apart):
            raise ValueError("across acts at all blocks: leave layers and apart out")
        if len(set(self.fits)) < len(self.fits):
            raise ValueError(f"fits: got {self.fits}, expected each number once")
        return self

    def blocks(self, depth: int, layers: Sequence[float]) -> list[int]:
        """Where it may act in a plant of this depth; of a law across all, the last."""
        if self.across:
            return [depth - 1]
        shares = layers if self.layers is None else self.layers
        return list(dict.fromkeys(round(share * (depth - 1)) for share in shares))

    def made(self, depth: int, layers: Sequence[float], *, n: int, norms: Mapping[str, float]) -> list[Method]:
        """The method on one plant; of a sweep, one for each block and number of texts, which its name then says.

        Args:
            depth: blocks of the plant.
            layers: shares of the depth, for a method that names none.
            n: texts of each class, likewise.
            norms: mean norm of the states at each place; see `place`.
        """
        blocks = self.blocks(depth, layers)
        found = []
        for count in self.fits or (n,):
            for group in [[block] for block in blocks] if self.apart else [blocks]:
                name = self.name + (f", {count} texts" if self.fits else "")
                name += f", block {group[0]}" if self.apart else ""
                found.append(self._method(name, group, n=count, norms=norms))
        return found

    def _method(self, name: str, blocks: Sequence[int], *, n: int, norms: Mapping[str, float]) -> Method:
        laws = []
        for block in blocks:
            for choice in self.choices:
                for strength in self.strengths:
                    length = norms[self.place(block)] if self.unit == "norm" else 1.0
                    laws.append(
                        LawSpec(
                            name=self.law, layer=-1 if self.across else block, point=self.point, scope=self.scope,
                            strength=float(f"{strength * length:.3g}"), options=self.options | choice,
                            fit=Fit(n=n, at=self.at, labels=self.labels), layers="all" if self.across else (),
                            sequential=self.across,
                        )
                    )  # fmt: skip
        return Method(name=name, laws=tuple(laws), control=self.control)

    def place(self, block: int) -> str:
        """Name of the place whose states' norm its strengths count in."""
        return f"{self.point} {block} {self.at}"


class Behaviour(_Data):
    """A task with its options."""

    task: str
    task_options: dict[str, JsonValue] = {}

    @field_validator("task")
    @classmethod
    def _known(cls, name: str) -> str:
        place_of(name, TASKS, "task")
        return name


class TaskPlan(Behaviour):
    """A task in a race.

    Attributes:
        kind: how the test is scored.
        other: another behaviour, whose direction is a negative control here; None where the race names no `control`.
    """

    later = frozenset({"other"})

    kind: Literal["exact", "sampled"] = "sampled"
    other: Behaviour | None = None

    @model_validator(mode="after")
    def _differs(self) -> TaskPlan:
        if self.other is not None and (self.other.task, self.other.task_options) == (self.task, self.task_options):
            raise ValueError("other: got the task itself, expected another behaviour, for a control")
        return self


class BudgetPlan(_Data):
    """What every law spends, and how closely; see `steerlib.experiment.runners.Spending`."""

    amount: Annotated[float, Field(gt=0)]
    measure: Budget = "kl"
    reader: str | None = None
    prompts: Annotated[int, Field(ge=2)] = 20
    max_new_tokens: Annotated[int, Field(ge=1)] = 32
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.05
    most: Annotated[int, Field(ge=2)] = 12


class Ground(_Data):
    """Plants and tasks that are run in every combination, under the same seeds."""

    plants: Annotated[tuple[str, ...], Field(min_length=1)]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]


class Course(_Data):
    """One plant and one task of a race: what `races.horse_race` runs at once."""

    plant: str
    name: str
    plan: TaskPlan
    seeds: tuple[int, ...]

    @property
    def title(self) -> str:
        """How it is asked for: "almanac-llama/truth"."""
        return f"{self.plant}/{self.name}"

    @property
    def cell(self) -> Cell:
        """The unsteered plant on the task's validation prompts: what a law is fitted and calibrated beside."""
        return Cell(plant=self.plant, task=self.plan.task, task_options=self.plan.task_options, split="validation")


class RacePlan(_Data):
    """A race as data.

    Attributes:
        about: what it is for, in a line.
        tasks: by the names under which they are run.
        grounds: what is run where; a plant and task that comes twice is an error.
        methods: see `MethodPlan`.
        control: name of the method whose negative controls run with it: random direction, shuffled labels, and the
            direction of another behaviour; None where controls are among the methods.
        layers: shares of the depth, for methods that name none.
        fit: texts of each class.
        validation: prompts on which is chosen, exactly scored.
        test: prompts of the test.
        choose_on: how many of the seeds, the first ones, are chosen under.
        score: what is maximised.
        keep: share of the unsteered plant's other score that must be kept at a method's own setting.
        budget: of the second setting.
        own: whether the first setting, that of the papers, is run at all.
    """

    later = frozenset({"control", "own"})

    about: str
    tasks: dict[str, TaskPlan]
    grounds: Annotated[tuple[Ground, ...], Field(min_length=1)]
    methods: Annotated[tuple[MethodPlan, ...], Field(min_length=1)]
    control: str | None = None
    layers: Annotated[tuple[Share, ...], Field(min_length=1)]
    fit: Annotated[int, Field(ge=2)] = 200
    validation: Annotated[int, Field(ge=2)] = 24
    test: Annotated[int, Field(ge=2)] | None = None
    choose_on: Annotated[int, Field(ge=1)] = 1
    score: ScoreName = "combined"
    keep: Share = 0.9
    budget: BudgetPlan
    own: bool = True

    @model_validator(mode="after")
    def _whole(self) -> RacePlan:
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"methods: {twice!r} comes twice")
        if self.control is not None and self.control not in names:
            raise ValueError(f"control: {unknown('method', self.control, names)}")
        if self.control is None and not any(method.control for method in self.methods):
            raise ValueError("control: got none, and no method is a control. Fix: name whose controls are to run")
        if self.control is not None and (bare := [name for name, task in self.tasks.items() if task.other is None]):
            raise ValueError(f"tasks: {bare[0]} names no other behaviour, for the control of {self.control!r}")
        seen: set[tuple[str, str]] = set()
        for ground in self.grounds:
            for name in ground.tasks:
                if name not in self.tasks:
                    raise ValueError(f"grounds: {unknown('task', name, self.tasks)}")
            if len(set(ground.seeds)) < len(ground.seeds) or len(ground.seeds) < self.choose_on:
                raise ValueError(
                    f"grounds: got the seeds {list(ground.seeds)}, expected each once, and at least {self.choose_on} "
                    "(choose_on)"
                )
            pairs = [(plant, name) for plant in ground.plants for name in ground.tasks]
            if twice := [pair for pair in pairs if pair in seen or pairs.count(pair) > 1]:
                raise ValueError(f"grounds: {'/'.join(twice[0])} comes twice")
            seen.update(pairs)
        return self

    def courses(self, only: Sequence[str] = ()) -> list[Course]:
        """The plants and tasks of the race, in order.

        Args:
            only: titles such as "almanac-llama/truth", or plants; none for all.

        Raises:
            RacePlanError: a title or plant that the race has not.
        """
        made = [
            Course(plant=plant, name=name, plan=self.tasks[name], seeds=ground.seeds)
            for ground in self.grounds
            for plant in ground.plants
            for name in ground.tasks
        ]
        known = [course.title for course in made] + list(dict.fromkeys(course.plant for course in made))
        if strange := [name for name in only if name not in known]:
            raise RacePlanError(unknown("course", strange[0], known))
        return [course for course in made if not only or course.title in only or course.plant in only]

    def lengths(self, depth: int) -> dict[str, tuple[Point, int, Literal["choice", "end"]]]:
        """Places whose norms `methods_of` needs on a plant of this depth: name -> point, block, where texts end."""
        return {
            method.place(block): (method.point, block, method.at)
            for method in self.methods
            if method.unit == "norm"
            for block in method.blocks(depth, self.layers)
        }

    def methods_of(self, course: Course, *, depth: int, norms: Mapping[str, float]) -> list[Method]:
        """The methods on one plant and task, negative controls behind them.

        Args:
            course: where.
            depth: blocks of the plant.
            norms: see `lengths`.

        Raises:
            RacePlanError: a norm is lacking or is none.
        """
        if bad := [place for place in self.lengths(depth) if not math.isfinite(norms.get(place, math.nan))]:
            raise RacePlanError(f"{course.title}: no norm of the states at {bad[0]}; got those of {sorted(norms)}")
        made = [one for m in self.methods for one in m.made(depth, self.layers, n=self.fit, norms=norms)]
        other = course.plan.other
        if self.control is None or other is None:
            return made
        controlled = next(method for method in made if method.name == self.control)
        return [*made, *controls_of(controlled), other_of(controlled, other.task, other.task_options)]


def read_race(path: str | Path) -> RacePlan:
    """Read a race file.

    Raises:
        RacePlanError: absent, not YAML, or a field misspelt or out of range; names file and field.
    """
    file = Path(path)
    raw = read_yaml(file, wrong=RacePlanError, expected="a race such as data/races/open_loop.yml")
    if not is_race(raw):
        raise RacePlanError(f"{file}: expected a race, with `methods:` and `grounds:`; data/grids holds grids of cells")
    try:
        return RacePlan.model_validate(raw)
    except ValidationError as error:
        raise RacePlanError(f"{file}:\n{problems(error, whole='race')}") from error


def is_race(raw: object) -> bool:
    """Whether the content of a YAML file is meant as a race, not as a grid."""
    return isinstance(raw, dict) and "methods" in raw
