"""Methods as data: a law with the setting of its paper, and the negative controls it is measured against.

Knows how a method's candidates are written down and seeded. Knows nothing about races.
"""

from __future__ import annotations

import inspect
from typing import Annotated

from pydantic import Field, JsonValue, field_validator

from steerlib.experiment.cells import Fit, LawSpec, _Data
from steerlib.registry import law_class

UNSTEERED, TOLD = "unsteered", "told"


class Method(_Data):
    """A method as it enters a race.

    Attributes:
        name: for the table.
        laws: the setting of its paper: the candidates among which validation chooses, with their multipliers.
        control: it is there to fail.
    """

    name: str
    laws: Annotated[tuple[LawSpec, ...], Field(min_length=1)]
    control: bool = False

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in (UNSTEERED, TOLD):
            raise ValueError(f"got the name {name!r}, which is that of a baseline")
        return name


def controls_of(method: Method) -> tuple[Method, Method]:
    """Negative controls with the freedom of a method: random directions, and its own law fitted on shuffled labels.

    A random direction is as long as the difference of means. Beside a law whose multiplier means something else,
    compare it at equal budget only.
    """
    random = [law.model_copy(update={"name": "random-direction", "options": {}}) for law in dict.fromkeys(method.laws)]
    shuffled = [
        law.model_copy(update={"fit": law.fit.model_copy(update={"labels": "shuffled"})}) for law in method.laws
    ]
    return (
        Method(name=f"{method.name}: random direction", laws=tuple(random), control=True),
        Method(name=f"{method.name}: shuffled labels", laws=tuple(shuffled), control=True),
    )


def elsewhere(method: Method, task: str, task_options: dict[str, JsonValue] | None = None) -> Method:
    """Negative control with the freedom of a method: its own law fitted for another behaviour, such as another concept.

    It shows what a push of this kind does that has nothing to do with the behaviour that is scored. Its length is its
    own: compare it at equal budget, or with laws whose strength is a length.

    Args:
        method: whose law.
        task: the other behaviour; see `steerlib.registry.TASKS`.
        task_options: arguments of its constructor; for concepts see `steerlib.tasks.concepts.another_concept`.
    """
    fit = {"task": task, "task_options": dict(task_options or {})}
    laws = [law.model_copy(update={"fit": Fit.model_validate({**law.fit.model_dump(), **fit})}) for law in method.laws]
    other = " ".join([task, *map(str, (task_options or {}).values())])
    return Method(name=f"{method.name}: fitted for {other}", laws=tuple(laws), control=True)


def seeded(law: LawSpec, seed: int) -> LawSpec:
    """The same law under another seed: fitted on other texts, and drawn anew where it is drawn."""
    update: dict[str, object] = {"fit": law.fit.model_copy(update={"seed": law.fit.seed + seed})}
    if "seed" in inspect.signature(law_class(law.name)).parameters:
        first = law.options.get("seed", 0)
        update["options"] = {**law.options, "seed": (first if isinstance(first, int) else 0) + seed}
    return law.model_copy(update=update)
