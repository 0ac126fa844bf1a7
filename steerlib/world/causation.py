"""The causal part of an acceptance: does a constant push change a behaviour, and that one alone?

Knows how a push is swept, chosen on validation prompts and measured on test prompts, and its negative controls.
Knows nothing about the rest of the list; `accept` puts it together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from steerlib.laws.additive import Additive, DifferenceOfMeans, RandomDirection, shuffled
from steerlib.laws.base import Contrast
from steerlib.metrics import Estimate, interval_of
from steerlib.tasks import Scores
from steerlib.tasks.base import spread
from steerlib.tasks.grammar import GrammarTask
from steerlib.world.checks import Cell, Check, Push, bounded

#: Texts of each class that a direction is fitted on.
FITTED_ON = 300
#: Strengths tried at every layer, in units of the difference of means.
STRENGTHS = (0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.25, 2.0)
#: A push so large that it must break the plant.
BREAKING = 8.0
#: What a push may cost of Info, or of well-formed answers.
INTACT_LOSS = 0.05
#: What a push may move another behaviour, as a share of what it does to its own; and how much of a gap one constant
#: push may close, so that better methods have room.
SIDE_EFFECT, HEADROOM = 1 / 3, 0.85
#: The least that naming the best voice must move a score for shares of that move to mean anything; and the least share
#: of its own gap that a push must close for its side effects to be compared with it.
GAP, OWN = 0.10, 0.05
#: Prompts of the validation split that a layer and a strength are chosen on.
CHOSEN_ON = 36


@dataclass(frozen=True)
class Bounds:
    """What differs between the plants that must pass everything and those that need not.

    Attributes:
        closed: least share of the gap that the push must close.
        concepts: of how many concepts.
    """

    closed: float = 0.35
    concepts: int = 8


#: Families other than the first meet the causal part at a lower bound.
FIRST, OTHERS = Bounds(0.35), Bounds(0.25)


@dataclass(frozen=True)
class Behaviour:
    """A task with the score that counts: True times Info for truth, the wanted share for the others."""

    task: GrammarTask
    product: bool = False

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task.name

    def score(self, wanted: np.ndarray, intact: np.ndarray) -> np.ndarray:
        """The score, over the last axis."""
        return wanted.mean(-1) * intact.mean(-1) if self.product else wanted.mean(-1)

    def of(self, scores: Scores) -> float:
        """The score of one measurement."""
        return float(self.score(scores.wanted, scores.intact))

    def share(self, bare: Scores, best: Scores, pushed: Scores) -> Estimate | None:
        """Share of the way from bare to best that a push has come, over the prompts; None where there is no gap."""
        if self.of(best) - self.of(bare) < GAP:
            return None

        def closed(*data: np.ndarray) -> np.ndarray:
            start, goal, reached = (self.score(*data[k : k + 2]) for k in (0, 2, 4))
            gap = goal - start
            return np.where(gap > 0, (reached - start) / np.where(gap > 0, gap, 1.0), 0.0)

        return interval_of(closed, *(values for s in (bare, best, pushed) for values in (s.wanted, s.intact)))


def direction(contrast: Contrast) -> torch.Tensor:
    """Difference of the class means; strength 1 moves a state from one mean to the other."""
    return DifferenceOfMeans().fit(contrast).vector


def pushed(task: GrammarTask, vector: torch.Tensor, *, layer: int, strength: float, items: Sequence[Any]) -> Scores:
    """Exact scores under a constant push at the output of a block, while answering."""
    with task.plant.under(Additive(vector.float(), strength=strength), layer=layer, scope="generated"):
        return task.scored(items)


def sweep(behaviour: Behaviour, contrasts: Sequence[Contrast], items: Sequence[Any]) -> list[Cell]:
    """Scores for every layer and strength."""
    cells = []
    for layer, contrast in enumerate(contrasts):
        vector = direction(contrast)
        for strength in STRENGTHS:
            found = pushed(behaviour.task, vector, layer=layer, strength=strength, items=items)
            cells.append(Cell(layer, strength, behaviour.of(found), float(found.intact.mean())))
    return cells


def choose(cells: Sequence[Cell], unsteered: Scores, selective: Callable[[Cell], bool] = lambda _: True) -> Cell:
    """The cell with the highest score among those that keep answers intact and leave other behaviours alone.

    Where no push is selective, the best of those that keep answers intact; where none is that either, the gentlest.

    Args:
        cells: pushes that were tried.
        unsteered: scores without a push.
        selective: whether a push leaves other behaviours alone; asked from the best cell downwards, and no further
            than the first that is granted, since each answer is a measurement.
    """
    kept = [cell for cell in cells if cell.intact >= unsteered.intact.mean() - INTACT_LOSS]
    if not kept:
        return min(cells, key=lambda cell: cell.strength)
    kept.sort(key=lambda cell: cell.score, reverse=True)
    return next((cell for cell in kept if selective(cell)), kept[0])


def rise(cells: Sequence[Cell], start: float, *, layer: int) -> float:
    """By what factor the strength at a layer can grow, from the smallest tried, with the score rising at each step."""
    column = sorted((cell for cell in cells if cell.layer == layer), key=lambda cell: cell.strength)
    reached, before = column[0].strength, start
    for cell in column:
        if cell.score <= before:
            break
        reached, before = cell.strength, cell.score
    return reached / column[0].strength


@dataclass(frozen=True)
class Effect:
    """What the chosen push of one behaviour does on the test split."""

    behaviour: Behaviour
    push: Push
    vector: torch.Tensor
    bare: Scores
    best: Scores
    reached: Scores
    checks: tuple[Check, ...]
    share: Estimate | None

    @property
    def passed(self) -> bool:
        """Whether every figure lies within its bounds."""
        return all(check.passed for check in self.checks)

    @property
    def moves(self) -> bool:
        """Whether the push does what it should, though it may leave better methods no room."""
        return all(
            check.passed or (check.at_most == HEADROOM and (check.value or 0.0) > HEADROOM) for check in self.checks
        )


@dataclass(frozen=True)
class Gauge:
    """A behaviour between its two ends on the prompts that pushes are chosen on.

    Attributes:
        behaviour: what is gauged.
        items: prompts of the validation split.
        bare: scores of the unsteered plant.
        best: scores with the best voice named.
    """

    behaviour: Behaviour
    items: Sequence[Any]
    bare: Scores
    best: Scores

    @classmethod
    def of(cls, behaviour: Behaviour) -> Gauge:
        """Measure the two ends."""
        task = behaviour.task
        items, told = (spread(task.items("validation", told=t), CHOSEN_ON) for t in (False, True))
        return cls(behaviour, items, task.scored(items), task.scored(told))

    @property
    def gap(self) -> float:
        """By how much naming the best voice moves the score."""
        return self.behaviour.of(self.best) - self.behaviour.of(self.bare)

    def share(self, score: float) -> float:
        """What part of the gap lies below a score; zero where there is no gap to speak of."""
        return (score - self.behaviour.of(self.bare)) / self.gap if self.gap >= GAP else 0.0

    def moved(self, vector: torch.Tensor, cell: Cell) -> float:
        """What part of the gap a push covers, in whichever direction."""
        found = pushed(self.behaviour.task, vector, layer=cell.layer, strength=cell.strength, items=self.items)
        return abs(self.share(self.behaviour.of(found)))


@dataclass(frozen=True)
class Chosen:
    """A push and the sweep that it was chosen from.

    Attributes:
        push: the push.
        factor: by what factor of strength the score rises at its layer.
        furthest: the largest share of the gap that any push of the sweep closes with answers intact, selective or not;
            None where there is no gap.
    """

    push: Push
    factor: float
    furthest: float | None


def chosen_push(own: Gauge, contrasts: Sequence[Contrast], others: Sequence[Gauge] = ()) -> Chosen:
    """The best push on the validation split that leaves the other behaviours alone."""
    behaviour, vectors = own.behaviour, [direction(contrast) for contrast in contrasts]
    cells = sweep(behaviour, contrasts, own.items)

    def selective(cell: Cell) -> bool:
        most = SIDE_EFFECT * own.share(cell.score)
        return all(other.moved(vectors[cell.layer], cell) <= most for other in others)

    cell = choose(cells, own.bare, selective)
    kept = [own.share(c.score) for c in cells if c.intact >= own.bare.intact.mean() - INTACT_LOSS]
    return Chosen(
        Push(
            behaviour.name,
            cell.layer,
            cell.strength,
            tuple(cells),
            (behaviour.of(own.bare), float(own.bare.intact.mean())),
        ),
        rise(cells, behaviour.of(own.bare), layer=cell.layer),
        max(kept, default=0.0) if own.gap >= GAP else None,
    )


def effect(
    behaviour: Behaviour,
    contrasts: Sequence[Contrast],
    bounds: Bounds,
    *,
    randoms: int,
    known: Push | None = None,
    others: Sequence[Gauge] = (),
    stretched: bool = False,
) -> Effect:
    """Choose a push on the validation split, or take a known one, and measure it on the test split.

    Args:
        behaviour: what is pushed.
        contrasts: states that the direction is fitted on, for each layer.
        bounds: what the push must reach.
        randoms: random directions, and shuffles of the labels.
        known: a push to measure instead of choosing one.
        others: behaviours that the push should leave alone.
        stretched: report also what shuffled labels do when their direction is as long as the push.
    """
    task, name = behaviour.task, behaviour.name
    chosen, push = None, known
    if push is None:
        chosen = chosen_push(Gauge.of(behaviour), contrasts, others)
        push = chosen.push
    contrast = contrasts[push.layer]
    vector = direction(contrast)
    items = task.items("test")
    bare, best = task.scored(items), task.scored(task.items("test", told=True))

    def under(v: torch.Tensor, strength: float = push.strength) -> Scores:
        return pushed(task, v, layer=push.layer, strength=strength, items=items)

    reached, broken = under(vector), under(vector, BREAKING)
    chance = [under(RandomDirection(seed=seed).fit(contrast).vector) for seed in range(randoms)]
    # One random direction may help by luck, and so may one shuffle: what counts is what they do on average.
    blanks = [direction(shuffled(contrast, seed=seed)) for seed in range(randoms)]
    mixed = Scores.pooled([under(blank) for blank in blanks])
    share = behaviour.share(bare, best, reached)
    pooled = behaviour.share(bare, best, Scores.pooled(chance))
    lost = interval_of(lambda a, b: (a - b).mean(-1), bare.intact, reached.intact)
    left = interval_of(
        lambda a, b, c, d: behaviour.score(a, b) / np.maximum(behaviour.score(c, d), 1e-9),
        broken.wanted, broken.intact, reached.wanted, reached.intact,
    )  # fmt: skip
    part = "causation"
    checks = [
        bounded(part, f"{name}: share of the gap closed", share, at_least=bounds.closed, at_most=HEADROOM),
        bounded(part, f"{name}: intact answers lost", lost, at_most=INTACT_LOSS),
        bounded(part, f"{name}: share closed by {randoms} random directions", pooled, at_most=0.05),
        bounded(part, f"{name}: share closed with shuffled labels", behaviour.share(bare, best, mixed), at_most=0.05),
        bounded(part, f"{name}: score left at strength {BREAKING:g}", left, at_most=0.8),
    ]
    if stretched:
        # Means of mixed labels lie close together: as fitted, the control is short, and could hardly do harm or good.
        # As long as the push it holds a piece of the true direction, by chance and of either sign, so that it is no
        # blank either; its mirror image is as likely as itself, and what is first order in that piece cancels.
        long = [blank * (sign * vector.norm() / blank.norm()) for blank in blanks for sign in (1, -1)]
        found = behaviour.share(bare, best, Scores.pooled([under(blank) for blank in long]))
        checks.append(bounded(part, f"{name}: shuffled labels, as long as the push", found))
    if chosen is not None:
        checks += [
            _plain(f"{name}: factor of strength over which it rises", chosen.factor, at_least=4.0),
            _plain(f"{name}: most that any push of the sweep closes", chosen.furthest, at_most=HEADROOM),
        ]
    return Effect(behaviour, push, vector, bare, best, reached, tuple(checks), share)


def _plain(name: str, value: float | None, **bounds: float) -> Check:
    """A figure of the causal part that has no interval."""
    return Check("causation", name, value, value, value, **bounds)


def cross_effects(effects: Sequence[Effect]) -> np.ndarray:
    """What each push (rows) does to each behaviour (columns), as a share of that behaviour's gap, with its sign.

    Behaviours are compared by the shares of their own gaps, since a point of toxicity is not a point of truth. NaN
    where a behaviour has no gap.
    """
    table = np.full((len(effects), len(effects)), np.nan)
    for row, own in enumerate(effects):
        for column, off in enumerate(effects):
            found = own.reached
            if off is not own:
                task, push = off.behaviour.task, own.push
                found = pushed(task, own.vector, layer=push.layer, strength=push.strength, items=task.items("test"))
            share = off.behaviour.share(off.bare, off.best, found)
            if share is not None:
                table[row, column] = share.value
    return table


def selectivity(effects: Sequence[Effect], table: np.ndarray) -> list[Check]:
    """How far each push moves the other behaviours, as a share of what it does to its own; see `cross_effects`.

    There is no such figure for a push that hardly moves its own behaviour: everything is large beside nothing.
    """
    checks = []
    for row, own in enumerate(effects):
        moved = np.nan_to_num(np.abs(table[row]))
        moved[row] = -1.0
        worst = int(np.argmax(moved))
        ratio = float(moved[worst] / own.share.value) if own.share is not None and own.share.value >= OWN else None
        name = f"{own.behaviour.name}: largest side effect ({effects[worst].behaviour.name}), relative to its own"
        checks.append(_plain(name, ratio, at_most=SIDE_EFFECT))
    return checks


def confirm(found: Effect, *, seeds: int) -> list[Check]:
    """Share of the gap closed once more, from sampled answers that the oracle has read."""
    task, behaviour = found.behaviour.task, found.behaviour
    items, told = task.items("test"), task.items("test", told=True)

    def rates(prompts: Sequence[Any]) -> Scores:
        return Scores.pooled([task.answered(prompts, seed=seed)[0] for seed in range(seeds)])

    bare, best = rates(items), rates(told)
    law = Additive(found.vector.float(), strength=found.push.strength)
    with task.plant.under(law, layer=found.push.layer, scope="generated"):
        reached = rates(items)
    share = behaviour.share(bare, best, reached)
    return [bounded("causation", f"{behaviour.name}: share of the gap closed, sampled", share, at_least=0.2)]


def concept_checks(effects: Sequence[Effect], bounds: Bounds) -> list[Check]:
    """Of how many concepts the push passes every bound, with and without that of headroom, and how far each came."""
    wanted = min(bounds.concepts, len(effects))
    passed = sum(one.passed for one in effects)
    moved = sum(one.moves for one in effects)
    return [
        _plain("concepts whose push passes every bound but headroom", float(moved), at_least=wanted),
        _plain("concepts whose push leaves better methods room, too", float(passed), at_least=wanted),
        *(bounded("causation", f"{e.behaviour.name}: share of the gap closed", e.share) for e in effects),
    ]
