"""How one cell is computed.

Knows plants, laws and tasks. Knows nothing about grids or records on disk. A process keeps the plant it loaded last and
the laws it fitted on it, since neighbouring cells share them.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from contextlib import nullcontext
from copy import copy
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch

from steerlib.actuator import Site
from steerlib.batching import rows_at_once, whole_smaller
from steerlib.decoding.base import Decoder, answering_by
from steerlib.decoding.making import Tallied, decoder, reward_scorer, trained_scorer
from steerlib.decoding.repetition import less_repetitive
from steerlib.decoding.scoring import Scorer
from steerlib.experiment.answered import departure, effort, further, variety
from steerlib.experiment.cell_records import CellRecord, Metric, hash_of
from steerlib.experiment.cells import Cell, LawSpec, canonical, key_from
from steerlib.experiment.decoder_spec import DecoderSpec, ScorerSpec
from steerlib.experiment.drawing import CellError as CellError  # whoever runs cells catches these
from steerlib.experiment.drawing import answers_folder, drawn_as
from steerlib.experiment.judging import check_judges, seat
from steerlib.experiment.keys import judge_content, present_parts
from steerlib.experiment.precision_spec import Precision
from steerlib.experiment.provenance import provenance
from steerlib.jacobians import BlockJacobians
from steerlib.laws.base import Contrast, Law
from steerlib.laws.lqr import ALQR
from steerlib.laws.rewarded import Rewarded
from steerlib.laws.stack import Stack
from steerlib.laws.value import ReControl
from steerlib.metrics import Estimate
from steerlib.metrics.replay import Replay
from steerlib.placement import Placement, load_named
from steerlib.plant import Plant
from steerlib.recorder import Position, record
from steerlib.registry import law_class, task_class
from steerlib.tasks.base import Task, spread
from steerlib.tasks.source import Labels, TaskSource
from steerlib.tasks.streamed import fit_streamed, harvest, streamed_scorer
from steerlib.trajectories import collect, given, replayed
from steerlib.tuning.shipped import adapter_folder, base_of

#: Loops on the way of a cell that choose their batches by a default, and that default.
LOOPS = (
    record, collect, given, replayed, harvest, streamed_scorer, Replay.__init__, Decoder.generate, Plant.generate,
    Plant.logprobs,
)  # fmt: skip
ROWS = 64
_AS_IT_IS = Precision()


@lru_cache(maxsize=1)
def plant_of(name: str, device: str, precision: Precision = _AS_IT_IS) -> Plant:
    """The plant, loaded once for a run of cells.

    Args:
        name: of the plant.
        device: "cpu", "cuda:1", "auto" for all GPUs, or some of them; see `steerlib.placement.Placement.at`.
        precision: how its weights are held.

    What was made on the plant before goes with it: a task that outlived its plant would score one while the law acts
    on another, which is steering that is silently off.
    """
    for kept in (_task, _states, _answers, _jacobians, _law, _scorer, _untuned):
        kept.cache_clear()
    return _loaded(name, device, precision)


def plant_held(name: str, device: str, precision: Precision | None) -> Plant:
    """As `plant_of`, which keeps one plant: whoever says nothing of precision must find that of cells that do not."""
    return plant_of(name, device) if precision in (None, _AS_IT_IS) else plant_of(name, device, precision)


def _loaded(name: str, device: str, precision: Precision) -> Plant:
    return load_named(name, Placement.at(device, dtype=precision.dtype, weights=precision.weights))


@lru_cache(maxsize=1)
def _untuned(name: str, device: str, precision: Precision) -> Plant | None:
    """The plant that a tuned one was before; None for one that is not tuned."""
    folder = adapter_folder(name)
    return None if folder is None else _loaded(base_of(folder), device, precision)


@lru_cache(maxsize=4)
def _task(name: str, options: str, plant: str, device: str, precision: Precision) -> Task:
    kind = task_class(name)
    try:
        return kind(plant_held(plant, device, precision), **json.loads(options))
    except TypeError as error:
        raise CellError(f"task {name!r} does not take the options {options}: {error}") from error


#: Tasks that have judges, by the task that has none and by who judges; they go with it.
_seated: WeakKeyDictionary[Task, dict[str, Task]] = WeakKeyDictionary()


def _task_of(name: str, options: dict[str, Any], cell: Cell, device: str, *, alone: bool = False) -> Task:
    """A task of a cell, with the cell's judges if it is the scored one: what laws are fitted on may need them, too.

    One task for the same judges, so that laws and scorers that were fitted on it are found again.

    Args:
        name: of the task.
        options: its arguments.
        cell: names the judges.
        device: where plant and judges run.
        alone: whether rewards are all that it is asked for; see `steerlib.tasks.real.preference.Preference`.
    """
    plain = _task(name, canonical(options), cell.plant, device, cell.precision)
    if not cell.judges or name != cell.task:
        return plain
    alone = alone and hasattr(plain, "alone")
    content = {role: [canonical(spec), judge_content(spec)] for role, spec in cell.judges.items()}
    own: Any = _seated.setdefault(plain, {}).setdefault(canonical({"judges": content, "alone": alone}), copy(plain))
    if alone:
        own.alone = True
    return seat(own, cell, device=_one(device))


class _Source(TaskSource):
    """A source that remembers what it measured: most of the work of a fit, and the same for every law of one place."""

    #: What answers are under while it asks for them, which parts those that it remembers.
    repetition: str

    def _measured(self, sites: tuple[Site, ...], position: Position) -> list[Contrast]:
        if self.plant.wiring.active():  # under earlier layers of a law: not what others would measure
            return super()._measured(sites, position)
        return list(_states(self.task, sites, self.n, self.seed, self.at, self.scope, position))

    def _answered(self, site: Site) -> Rewarded:
        if self.plant.wiring.active():
            return super()._answered(site)
        return _answers(self.task, site, self.n, self.seed, self.scope, self.repetition)


@lru_cache(maxsize=16)
def _states(
    task: Task, sites: tuple[Site, ...], n: int, seed: int, at: str, scope: str, position: Position
) -> list[Contrast]:
    return task.contrasts(sites, n=n, seed=seed, at=at, scope=scope, position=position)


@lru_cache(maxsize=2)  # states of every token of every answer
def _answers(task: Task, site: Site, n: int, seed: int, scope: str, _repetition: str) -> Rewarded:
    return TaskSource(task, site, n=n, seed=seed, scope=scope)._answered(site)


@lru_cache(maxsize=1)  # a matrix of each block
def _jacobians(task: Task, n: int, seed: int, at: str, labels: Labels, how: str) -> BlockJacobians:
    return ALQR(**json.loads(how)).linearised(TaskSource(task, Site(-1), n=n, seed=seed, at=at, labels=labels))


def _linearised_once(law: ALQR, source: _Source) -> ALQR:
    """A-LQR as it fits itself, on Jacobians that neighbours share: weights and setpoint have no part in them."""
    how = canonical({name: getattr(law, name) for name in ("jacobian", "prompts", "context", "keep")})
    blocks = _jacobians(source.task, source.n, source.seed, source.at, source.labels, how)
    return law.fit([law.measured(source)], jacobians=blocks)


@lru_cache(maxsize=64)
def _law(spec: str, task: Task, repetition: str) -> Law | Stack:
    law = LawSpec.model_validate_json(spec)
    site = Site(law.layer, law.point).resolve(task.plant.depth)
    fit = law.fit
    source = _Source(task, site, n=fit.n, seed=fit.seed, at=fit.at, scope=law.scope, labels=fit.labels)
    source.repetition = repetition
    kind: Any = law_class(law.name)
    options: dict[str, Any] = dict(law.options)
    if law.layers and not issubclass(kind, Law):
        raise CellError(f"law {law.name!r} says itself at which blocks it acts: leave layers out")
    made: Any
    try:
        if law.layers:
            sites = _sites(law, task.plant.depth)
            made = Stack.across(kind, sites, options=options, sequential=law.sequential)
        else:
            made = kind(**options)
    except TypeError as error:
        raise CellError(f"law {law.name!r} does not take the options {law.options}: {error}") from error
    if not fit.on_disk:
        shares = isinstance(made, ALQR) and made.solves
        return _linearised_once(made, source) if shares else made.fit_from(source)
    # As many answers as a source gives, see `TaskSource.trajectories`.
    folder = answers_folder(repetition)
    answers = harvest(task, site, folder, n=2 * fit.n, seed=fit.seed, scope=law.scope, progress=True)
    if fit.labels == "shuffled":
        answers = answers.shuffled(seed=fit.seed)
    return fit_streamed(cast("ReControl", made), answers, device=task.plant.device, progress=True)


def _sites(law: LawSpec, depth: int) -> list[Site]:
    """The sites of a law at several layers, each once."""
    layers = range(depth) if law.layers == "all" else law.layers
    sites = [Site(layer, law.point).resolve(depth) for layer in layers]
    if len(set(sites)) < len(sites):
        raise CellError(f"law {law.name!r}: layers {law.layers} name a block twice, in a plant of {depth} blocks")
    return sites


@lru_cache(maxsize=8)
def _scorer(spec: str, task: Task, repetition: str) -> Scorer:
    """A prefix scorer, trained on the unsteered plant."""
    told = ScorerSpec.model_validate_json(spec)
    if not told.on_disk:
        return trained_scorer(task, told.name, n=told.n, seed=told.seed, options=told.options)
    return streamed_scorer(
        task, told.name, answers_folder(repetition), n=told.n, seed=told.seed, options=told.options,
        device=task.plant.device, progress=True,
    )  # fmt: skip


def _decoder(spec: DecoderSpec, task: Any, cell: Cell) -> Decoder:
    """The decoder of a cell, or one inside it; before anything is attached, since it may have to be trained."""
    inner = _decoder(spec.inner, task, cell) if spec.inner is not None else None
    scorer = None
    if spec.scorer is not None:
        trained = spec.scorer.trained
        if trained:
            with less_repetitive(task.plant, **cell.settings.repetition):
                scorer = _scorer(canonical(spec.scorer), task, canonical(cell.settings.repetition))
        else:
            scorer = reward_scorer(task, _asked(task, cell))
    return decoder(spec.name, options=spec.options, scorer=scorer, inner=inner)


def _asked(task: Any, cell: Cell) -> list[Any]:
    """The prompts that a sampled cell asks, as the task has them."""
    return _told(task, cell) if cell.told else spread(task.items(cell.split), cell.limit)


def run_cell(cell: Cell, *, device: str = "cpu") -> CellRecord:
    """Compute a cell; where memory runs out, again with fewer rows at a time, and with what was fitted by then.

    Raises:
        CellError: if the law or the task does not take its options, or the cell asks for what the task has not.
        JudgeSpecError: if the task takes no such judge, or it cannot be made.
        TooLargeError: if not even a single row fits into memory.
    """
    check_judges(cell)

    def run(rows: int) -> CellRecord:
        with rows_at_once(LOOPS, rows):
            return _computed(cell, device)

    return whole_smaller(run, ROWS, what=cell.title)


def _computed(cell: Cell, device: str) -> CellRecord:
    plant = plant_held(cell.plant, device, cell.precision)
    task: Any = _task_of(cell.task, cell.task_options, cell, device)
    _forget_peak(plant)
    start = time.perf_counter()
    by = None
    if cell.decoder is not None:
        by = Tallied(_decoder(cell.decoder, _task_of(cell.task, cell.task_options, cell, device, alone=True), cell))
    decoded = time.perf_counter() - start
    if by is not None:
        task = answering_by(task, by)
    task = drawn_as(task, cell)  # outside the decoder, which is then asked for them
    start = time.perf_counter()
    law, scope = None, "generated"
    if cell.law is not None:
        law, scope = task_and_law(cell, device=device)[1], cell.law.scope
    fitted = time.perf_counter()
    answers: tuple[str, ...] = ()
    acting = nullcontext() if law is None else plant.under(law, scope=scope)
    with acting, less_repetitive(plant, **cell.settings.repetition):
        if cell.told:
            items = _told(task, cell)
            if cell.kind == "exact":
                scores = task.scored(items)
            else:
                scores, texts = task.answered(items, seed=cell.seed)
                answers = tuple(texts)
        elif cell.kind == "exact":
            scores = task.exact(split=cell.split, limit=cell.limit)
        else:
            scores, texts = task.sampled(split=cell.split, seed=cell.seed, limit=cell.limit)
            answers = tuple(texts)
    found = {"wanted": scores.wanted_mean(), "intact": scores.intact_mean(), "combined": scores.combined()}
    if cell.kind == "sampled":
        found |= variety(answers) | further(scores.more, answers)
        before = _untuned(cell.plant, device, cell.precision) if law is None and by is None else None
        if law is not None or before is not None:
            bare = spread(task.prompts(cell.split), cell.limit)
            prompts = [item.text for item in _told(task, cell)] if cell.told else bare
            # A reading of finished answers steers every position of them: it is of generation with a cache.
            if law is not None and cell.settings.cache is None:
                found |= effort(plant, lambda: plant.under(law, scope=scope), prompts, answers)
            elif before is not None:
                found |= departure(plant, before, prompts, answers)
    done = time.perf_counter()
    parts = present_parts(device=device)(cell)
    return CellRecord(
        key=key_from(cell, parts),
        cell=cell,
        scores={"wanted": tuple(scores.wanted.tolist()), "intact": tuple(scores.intact.tolist())},
        metrics={name: _plain(estimate) for name, estimate in found.items()},
        answers=answers,
        answers_sha256=hash_of(answers) if answers else "",
        seconds=round(done - fitted, 4),
        fit_seconds=round(fitted - start + decoded, 4),
        memory_mb=round(_memory_mb(plant), 1),
        provenance=provenance(
            device=getattr(plant, "place", str(plant.device)),
            dtype=str(plant.dtype).removeprefix("torch."),
            weights=plant.weight_hash,
        ),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        parts=parts,
        missing=dict(scores.missing),
        more={name: tuple(map(_value, column.tolist())) for name, column in scores.more.items()},
        counted={} if by is None else {name: n for name, n in asdict(by.cost).items() if name != "seconds"},
    )


def task_and_law(cell: Cell, *, device: str = "cpu") -> tuple[Task, Law | Stack]:
    """The task that a cell scores and its law, fitted, at the cell's strength; a process keeps both for neighbours.

    Raises:
        CellError: if the cell has no law, or the law or a task does not take its options.
    """
    if cell.law is None or cell.fitted_for is None:
        raise CellError(f"{cell.title}: has no law")
    task = _task_of(cell.task, cell.task_options, cell, device)
    other = _task_of(*cell.fitted_for, cell, device, alone=True)
    # The strength is a buffer: one fitted law serves a whole sweep.
    under = cell.settings.repetition
    with less_repetitive(other.plant, **under):  # laws that learn from answers learn from such as will be scored
        law = _law(canonical(cell.law.model_copy(update={"strength": 1.0})), other, canonical(under))
    return task, law.at(cell.law.strength)


def _told(task: Any, cell: Cell) -> list[Any]:
    if not hasattr(task, "items"):
        raise CellError(f"task {cell.task!r} has no prompts that say what is wanted: leave told out")
    return spread(task.items(cell.split, told=True), cell.limit)


def _plain(found: Estimate) -> Metric:
    return Metric(value=found.value, low=found.low, high=found.high, n=found.n)


def _value(number: float) -> float | None:
    return None if math.isnan(number) else number


def _forget_peak(plant: Plant) -> None:
    """Let the peak of a GPU's memory begin anew, so that a cell does not show that of the one before."""
    for device in _gpus(plant):
        torch.cuda.reset_peak_memory_stats(device)


def _memory_mb(plant: Plant) -> float:
    """Largest memory: on GPUs what was allocated since `_forget_peak`, the plant included; else of the whole process.

    The system keeps one resident peak (ru_maxrss) for the life of a process, so on a CPU a cell shows that of its
    largest predecessor in the same process if that was larger.
    """
    if gpus := _gpus(plant):
        return sum(torch.cuda.max_memory_allocated(device) for device in gpus) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # macOS counts bytes, Linux kilobytes


def _gpus(plant: Plant) -> list[torch.device]:
    """The GPUs that a plant lies on."""
    found = dict.fromkeys((plant.device, *getattr(plant, "devices", ())))
    return [device for device in found if device.type == "cuda"]


def _one(device: str) -> str:
    """The one device of whatever is no plant, such as a judge, where plants are spread over "auto" or several GPUs."""
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    return auto if device == "auto" else device.partition(",")[0].strip()
