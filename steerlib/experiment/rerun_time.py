"""How long cells may take on a GPU that has run none of them: arithmetic, with what it assumes.

A token that is written costs the time in which all weights are read once, for as many answers as are written together,
or that of its operations if that is longer; a text that is read costs its operations, two for each weight and token.
Laws that are fitted once serve all cells that share them. Where costs were measured (`data/reference/*/costs.json` on
a GPU), speeds, shares and times of fits come from there, scaled by the weights. Nobody should believe such a number
beyond `Forecast.factor`.

Knows cells and numbers. Loads nothing, measures nothing, and knows nothing about how it is shown.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from steerlib.experiment.cells import Cell, LawSpec
from steerlib.experiment.costs import Cost, cost_files, read_costs
from steerlib.experiment.decoder_spec import DecoderSpec, ScorerSpec
from steerlib.experiment.estimates import Figures, Machine, Size, figures, size_of
from steerlib.experiment.judge_spec import JudgeSpec
from steerlib.experiment.rerun_reading import OF_TASKS
from steerlib.experiment.written import canonical
from steerlib.files import data_folder
from steerlib.registry import law_class, task_class

#: Bytes of a weight, by how it is held.
HELD = {"8bit": 1.0, "4bit": 0.5}
#: Operations on a weight for each number that it is read with: a product and a sum; thrice that to learn from it.
READ, LEARN = 2.0, 6.0
#: Options of a law of value that decide what is trained.
TRAINING = ("target", "lam", "layers", "hidden", "passes", "batch", "rate", "seed")


@dataclass(frozen=True)
class Forecast:
    """What cells would cost, by arithmetic.

    Attributes:
        seconds: by what is done, on one GPU of this kind.
        disk: bytes of states of answers that go to disk.
        memory: bytes of the weights of the cell that has most, its judges included; more is needed to compute.
        questions: model behind an API -> how many answers it is asked about.
        unknown: models of which nobody here knows how large they are; what they do is not counted.
        machine: the GPU.
        factor: how far from the truth it may be, either way.
        measured: which measurements were used, for people.
        assumed: what else was, for people.
    """

    seconds: Mapping[str, float]
    disk: float
    memory: float
    questions: Mapping[str, int]
    unknown: tuple[str, ...]
    machine: Machine
    factor: float
    measured: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Seconds of all of it."""
        return sum(self.seconds.values())


def forecast(
    cells: Sequence[Cell],
    machine: Machine,
    *,
    reader: str | None = None,
    known: Figures | None = None,
    costs: Sequence[Cost] | None = None,
) -> Forecast:
    """Reckon what cells cost.

    Args:
        cells: that are to be computed.
        machine: on which GPU.
        reader: the model that reads tested answers for their perplexity, if any does.
        known: by default `figures()`.
        costs: measurements; by default those that are shipped.
    """
    known = known or figures()
    paper = _Paper(known, machine, gpu_costs() if costs is None else costs)
    for cell in dict.fromkeys(cells):
        paper.cell(cell)
        if reader is not None and cell.task in OF_TASKS and cell.split == "test":
            paper.seconds["perplexity"] += paper.read(paper.size(reader), prompts(cell, known) * _texts(cell, known))
    return paper.done()


def gpu_costs() -> list[Cost]:
    """Shipped measurements on a GPU."""
    found = (cost for file in cost_files(data_folder()) for cost in read_costs(file))
    return [cost for cost in found if cost.subject.device == "cuda" and cost.status == "measured"]


def answer_tokens(cell: Cell, known: Figures) -> float:
    """The most tokens that an answer of a cell may have."""
    from steerlib.tasks.real.settings import settings_of

    if cell.settings.max_new_tokens is not None:
        return cell.settings.max_new_tokens
    if cell.task == "mmlu":  # a letter
        return 1.0
    if (given := cell.task_options.get("settings")) is not None:
        return settings_of(given, getattr(task_class(cell.task), "behaviour", "")).max_new_tokens  # type: ignore[arg-type]
    return known.assume("new_tokens")


def prompt_tokens(cell: Cell, known: Figures) -> float:
    """About how many tokens a prompt has."""
    if cell.task == "mmlu":
        parameters = inspect.signature(task_class("mmlu")).parameters  # type: ignore[arg-type]
        shots = cell.task_options.get("shots", parameters["shots"].default)
        return known.assume("prompt_tokens") + float(shots) * known.assume("shot_tokens")  # type: ignore[arg-type]
    longest = cell.task_options.get("longest")
    return longest / 2 if isinstance(longest, int | float) else known.assume("prompt_tokens")


def prompts(cell: Cell, known: Figures) -> float:
    """How many prompts a cell asks, as far as anybody says."""
    there = known.prompts.get(cell.task)
    counts = [float(n) for n in (cell.limit, there.value if there else None) if n is not None]  # type: ignore[arg-type]
    return min(counts, default=known.assume("batch"))


def _texts(cell: Cell, known: Figures) -> float:
    """Tokens of a prompt and its answer."""
    return prompt_tokens(cell, known) + answer_tokens(cell, known)


@dataclass
class _Paper:
    """What is reckoned on."""

    known: Figures
    machine: Machine
    costs: Sequence[Cost]
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    questions: Counter[str] = field(default_factory=Counter)
    disk: float = 0.0
    memory: float = 0.0
    sizes: dict[str, Size | None] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    used: dict[str, None] = field(default_factory=dict)

    # ---- models -----------------------------------------------------------------------------------

    def size(self, name: str) -> Size | None:
        if name not in self.sizes:
            self.sizes[name] = size_of(name, known=self.known)
        return self.sizes[name]

    def _weights(self, cell: Cell, plant: Size | None) -> float:
        """Bytes of plant and judges."""
        judges = {spec.model: spec for spec in cell.judges.values() if spec.local}
        sizes = {name: self.size(name) for name in judges}
        held = sum(size.weights * _bytes(judges[name]) for name, size in sizes.items() if size is not None)
        return held + (plant.weights * _bytes(cell) if plant is not None else 0.0)

    def read(self, size: Size | None, tokens: float) -> float:
        """Seconds to read so many tokens of text."""
        rate = self.machine.bf16 * self.known.assume("compute_share")
        return READ * size.weights * tokens / rate if size else 0.0

    def write(self, cell: Cell, size: Size | None, answers: float, tokens: float, *, wide: float = 1.0) -> float:
        """Seconds to write answers, of each so many at once as there are branches."""
        if size is None:
            return 0.0
        rows = min(answers, self.known.assume("batch"))
        held = size.weights * _bytes(cell)
        step = self._measured_step(held, rows)
        if step is None:
            step = held / (self.machine.bandwidth * self.known.assume("bandwidth_share"))
        step = max(step, self.read(size, rows * wide))
        return math.ceil(answers / rows) * tokens * step

    def _measured_step(self, held: float, rows: float) -> float | None:
        """Seconds of a token, from the measurement of the plant that is nearest in size, and then in batch."""
        found = []
        for cost in self.costs:
            subject, rate = cost.subject, cost.values.get("free_tokens_per_s")
            size = size_of(subject.plant, known=self.known)
            if subject.part != "decode" or subject.compile or not rate or not subject.batch or size is None:
                continue
            theirs = size.weights * (4 if subject.dtype == "float32" else 2)
            far = abs(math.log(held / theirs)), abs(math.log(rows / subject.batch))
            found.append((far, subject.batch / rate * held / theirs, cost))
        if not found:
            return None
        _, seconds, cost = min(found, key=lambda one: one[0])
        self.used[f"speed of {cost.subject.plant} at batch {cost.subject.batch}, {cost.subject.machine.named}"] = None
        return seconds * self._faster(cost)

    def _faster(self, cost: Cost) -> float:
        """How much longer our machine takes than that of a measurement, by their bandwidths."""
        theirs = self.known.called(cost.subject.machine.gpu or "")
        return theirs.bandwidth / self.machine.bandwidth if theirs is not None else 1.0

    def kept(self, law: LawSpec | None) -> float:
        """Share of the unsteered speed under a law."""
        if law is None:
            return 1.0
        ratios = [
            cost.speed.ratio
            for cost in self.costs
            if cost.subject.part == "decode" and cost.speed and cost.subject.way.split(" ")[0] == law.name
        ]
        if not ratios:
            return self.known.assume("kept_under_a_law")
        self.used[f"share of the speed under {law.name}"] = None
        return median(ratios)

    def _once(self, *what: Any) -> bool:
        """Whether this is the first time that it is asked for."""
        told = canonical({"what": what})
        first = told not in self.seen
        self.seen.add(told)
        return first

    # ---- a cell -----------------------------------------------------------------------------------

    def cell(self, cell: Cell) -> None:
        known, plant = self.known, self.size(cell.plant)
        answers, asked, new = prompts(cell, known), prompt_tokens(cell, known), answer_tokens(cell, known)
        whole = asked + new
        self.memory = max(self.memory, self._weights(cell, plant))
        if cell.kind == "sampled":
            times, wide = _branches(cell.decoder)
            wrote = self.write(cell, plant, times * answers, new, wide=wide) / self.kept(cell.law)
            self.seconds["answers"] += wrote + self.read(plant, answers * asked)
            self._decoder(cell, plant, answers, asked, new)
        else:
            self.seconds["answers"] += self.read(plant, answers * whole)
        for spec in cell.judges.values():
            if spec.local:
                self.seconds["judges"] += self.read(self.size(spec.model), answers * whole)
            elif spec.kind != "oracle":
                self.questions[spec.model] += round(answers)
        if cell.law is not None:
            if cell.kind == "sampled":  # once with the law, once without
                self.seconds["divergence"] += 2 * self.read(plant, answers * whole)
            self._fit(cell, cell.law, plant, whole, new)

    def _decoder(self, cell: Cell, plant: Size | None, answers: float, asked: float, new: float) -> None:
        spec: DecoderSpec | None = cell.decoder
        while spec is not None:
            if spec.scorer is not None and spec.scorer.trained:
                self._scorer(cell, spec.scorer, plant, asked, new)
            elif spec.scorer is not None and (judge := cell.judges.get("judge")) is not None and judge.local:
                # Every candidate is read from its beginning, by a model that keeps nothing of it.
                each = new * int(spec.options.get("k", 10)) if spec.name == "cd" else int(spec.options.get("n", 4))  # type: ignore[arg-type]
                length = asked + (new / 2 if spec.name == "cd" else new)
                self.seconds["rewards of candidates"] += self.read(self.size(judge.model), answers * each * length)
            spec = spec.inner

    def _scorer(self, cell: Cell, spec: ScorerSpec, plant: Size | None, asked: float, new: float) -> None:
        if self._once("scorer", cell.plant, cell.tasks, spec.model_dump(mode="json")):
            self._learned(cell, plant, spec.n, asked, new, spec.options, {"layers": 2, "passes": 50}, spec.on_disk)

    # ---- fits -------------------------------------------------------------------------------------

    def _fit(self, cell: Cell, law: LawSpec, plant: Size | None, whole: float, new: float) -> None:
        fit = law.fit
        told = law.model_dump(mode="json", exclude={"strength"})
        source = [cell.plant, cell.precision.model_dump(mode="json"), cell.fitted_for]
        if fit.on_disk:  # what is trained there is found again by whoever trains it alike; see `fit_streamed`
            told = {name: law.options.get(name) for name in TRAINING} | {"labels": fit.labels, "n": fit.n}
        if not self._once("law", *source, told):
            return
        if law.name == "re-control":
            kind: Any = law_class(law.name)
            own = {name: p.default for name, p in inspect.signature(kind).parameters.items()}
            self._learned(cell, plant, 2 * fit.n, whole - new, new, law.options, own, fit.on_disk)
            return
        place = [law.layers or law.layer, law.point, law.scope]
        if self._once("states", *source, place, fit.n, fit.seed, fit.at):
            self.seconds["states to fit on"] += self.read(plant, 2 * fit.n * whole)
        fits = [c.values["seconds"] * self._faster(c) for c in self._of("fit", law.name) if "seconds" in c.values]
        self.seconds["fits"] += median(fits) if fits else self.known.assume("fit_s")
        solves = law.options.get("model", "measured") != "identity" and law.options.get("gain", "lqr") == "lqr"
        on = [law.options.get(name) for name in ("jacobian", "prompts", "context", "keep")]
        # Weights and setpoint are not in them: neighbours share them, see `running`.
        if law.name == "a-lqr" and solves and self._once("jacobians", *source, fit.n, fit.seed, fit.at, fit.labels, on):
            self._jacobians(plant, law)

    def _of(self, part: str, name: str) -> list[Cost]:
        found = [c for c in self.costs if c.subject.part == part and c.subject.way.split(" ")[0] == name]
        if found:
            self.used[f"{part} of {name}"] = None
        return found

    def _jacobians(self, plant: Size | None, law: LawSpec) -> None:
        """One pass back through all blocks, at one token, for each number of the state and each prompt."""
        if plant is None:
            return
        kind: Any = law_class(law.name)
        texts = float(law.options.get("prompts", inspect.signature(kind).parameters["prompts"].default))  # type: ignore[arg-type]
        times = []
        for cost in self._of("jacobians", "float32"):
            if (seconds := cost.values.get("seconds_per_prompt")) and (size := size_of(cost.subject.plant)):
                times.append(seconds * self._faster(cost) * (plant.weights / size.weights) ** (4 / 3))
        rate = self.machine.fp32 * self.known.assume("compute_share")
        one = median(times) if times else (plant.width or 0) * 2 * READ * plant.weights / rate
        self.seconds["Jacobians"] += texts * one

    def _learned(
        self, cell: Cell, plant: Size | None, n: float, asked: float, new: float, options: Mapping[str, Any],
        own: Mapping[str, Any], on_disk: bool,
    ) -> None:  # fmt: skip
        """A value or scorer of states: answers are written and judged once, then learned from again and again."""
        if plant is None:
            return
        assume = self.known.assume
        if (most := self.known.learned.get(str(cell.task_options.get("of")))) is not None:
            n = min(n, float(most.value))  # type: ignore[arg-type]
        if self._once("harvest", cell.plant, cell.fitted_for or cell.tasks[0], n, on_disk):
            self.seconds["answers to learn from"] += self.write(cell, plant, n, new) + self.read(plant, n * asked)
            if (judge := cell.judges.get("judge")) is not None and judge.local:
                self.seconds["answers to learn from"] += self.read(self.size(judge.model), n * (asked + new))
            self.disk += n * new * (plant.width or 0) * 2 if on_disk else 0.0
        width, layers = float(plant.width or 0), int(options.get("layers", own["layers"]))
        hidden = float(options.get("hidden") or width)
        weights = width * hidden + max(0, layers - 2) * hidden**2 + hidden
        passes, states = float(options.get("passes", own["passes"])), n * new
        compute = LEARN * weights * states * passes / (self.machine.fp32 * assume("compute_share"))
        disk = states * width * 2 * passes / assume("disk") if on_disk else 0.0
        self.seconds["values"] += max(compute, disk)

    # ---- all of it --------------------------------------------------------------------------------

    def done(self) -> Forecast:
        known = self.known
        unknown = tuple(name for name, size in self.sizes.items() if size is None)
        by: dict[str, list[str]] = defaultdict(list)
        for name, size in self.sizes.items():
            if size is not None:
                by[size.known].append(f"{name} {size.weights / 1e9:.3g} billion")
        told = [f"weights, by {source}: {', '.join(names)}" for source, names in by.items()]
        told += [f"{name} {one.value:g}: {one.chosen or one.said}" for name, one in known.assumed.items()]  # type: ignore[str-format]
        return Forecast(
            {name: s for name, s in self.seconds.items() if s > 0}, self.disk, self.memory,
            dict(self.questions), unknown, self.machine, known.assume("factor"), tuple(self.used), tuple(told),
        )  # fmt: skip


def _bytes(held: Cell | JudgeSpec) -> float:
    """Bytes of a weight of a cell's plant, or of a judge, which is held as its files have it where nobody says more."""
    stored = isinstance(held, JudgeSpec) and held.precision.dtype is None and "float32" in held.model.lower()
    full = 4.0 if stored or held.precision.dtype == "float32" else 2.0
    return HELD.get(held.precision.weights, full)


def _branches(spec: DecoderSpec | None) -> tuple[float, float]:
    """Answers written for each that is kept, and texts that a step reads for each that is written."""
    times = wide = 1.0
    while spec is not None:
        if spec.name == "best-of-n":
            times *= float(spec.options.get("n", 4))  # type: ignore[arg-type]
        elif spec.scorer is not None and spec.scorer.trained:
            wide *= float(spec.options.get("k", 10))  # type: ignore[arg-type]
        spec = spec.inner
    return times, wide
