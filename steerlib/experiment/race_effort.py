"""How long a race takes, before it is run.

Knows what `races.horse_race` asks for, and the pace of this machine. Knows nothing about what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass

from steerlib.experiment.methods import Method
from steerlib.experiment.race_plan import Course, RacePlan
from steerlib.experiment.races import places_of
from steerlib.experiment.racing import a_law, with_law

#: Evaluations that a calibration takes on average, the sampling of unsteered answers among them: from the method's own
#: setting, and from where another seed's ended.
EVALUATIONS, EVALUATIONS_NEAR = 6.0, 4.0
#: Prompts on which the pace of a course is measured.
PACE_PROMPTS = 24


@dataclass(frozen=True)
class Effort:
    """What a course takes.

    Attributes:
        calibrations: at most.
        validation: cells, at most: a candidate that misses the budget has none.
        test: cells, at most.
        seconds: of one worker, about, at the pace measured now; with nothing in the store.
    """

    calibrations: int
    validation: int
    test: int
    seconds: float


@dataclass(frozen=True)
class Pace:
    """Seconds that this machine takes now, measured on a few prompts: for each prompt, and for one fit."""

    exact: float
    sampled: float
    fit: float


def pace_of(plan: RacePlan, course: Course, *, device: str = "cpu") -> Pace:
    """Measure the pace on a course, with the law that its controls are made of."""
    from steerlib.experiment.running import plant_of, run_cell

    depth = plant_of(course.plant, device).depth
    law = a_law(plan, course, depth, plan.lengths(depth))
    cell = with_law(course.cell, law).model_copy(update={"limit": PACE_PROMPTS})
    fitted = run_cell(cell, device=device).fit_seconds
    again = run_cell(cell, device=device).seconds
    said = run_cell(cell.model_copy(update={"kind": "sampled"}), device=device).seconds
    return Pace(again / PACE_PROMPTS, said / PACE_PROMPTS, fitted)


def effort_of(plan: RacePlan, course: Course, pace: Pace, *, depth: int) -> Effort:
    """What a course takes at a pace; an estimate, since how often a search looks depends on the law."""
    methods: list[Method] = plan.methods_of(course, depth=depth, norms=dict.fromkeys(plan.lengths(depth), 1.0))
    places, rest = sum(len(places_of(method)) for method in methods), len(course.seeds) - plan.choose_on
    first, later = places * plan.choose_on, len(methods) * rest
    own = sum(len(method.laws) for method in methods) if plan.own else 0
    validation = (own + places) * plan.choose_on
    test = ((2 if plan.own else 1) * len(methods) + 1) * len(course.seeds) + 1
    evaluations = first * EVALUATIONS + later * EVALUATIONS_NEAR
    seconds = (
        evaluations * plan.budget.prompts * pace.sampled
        + validation * plan.validation * pace.exact
        + test * (plan.test or 100) * (pace.exact if course.plan.kind == "exact" else pace.sampled)
        + pace.fit * 2 * len(course.seeds) * len(plan.layers)
    )
    return Effort(first + later, validation, test, seconds)
