"""The oracle of the Almanac as a judge: it is never wrong, and knows one country only.

Knows which item of the world a prompt is. What an answer amounts to stands with the task and the world.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

from steerlib.errors import unknown
from steerlib.judges.base import BaseJudge, JudgeError, Opinion
from steerlib.tasks.base import NotTellable
from steerlib.tasks.grammar import GrammarTask


class OracleJudge(BaseJudge):
    """Scores as a task of the Almanac counts them, without a model.

    `filled(0.0)` of its judgement is what `GrammarTask.sampled` scores, where an empty answer is an unreadable one.

    Args:
        task: the behaviour; its plant is not used.
        reads: "wanted", how far an answer shows the behaviour, or "intact", how far it still is an answer.
        items: the prompts that may be asked about; by default those of validation and test, bare and told
            where there are such prompts.

    Raises:
        JudgeError: if there is no such score.
    """

    def __init__(
        self,
        task: GrammarTask,
        *,
        reads: Literal["wanted", "intact"] = "wanted",
        items: Sequence[Any] | None = None,
    ) -> None:
        """Look up which prompts there are."""
        if reads not in ("wanted", "intact"):
            raise JudgeError(f"OracleJudge: {unknown('score', reads, ('wanted', 'intact'))}")
        if items is None:
            items = []
            for split in ("validation", "test"):
                items += task.items(split)
                with suppress(NotTellable):
                    items += task.items(split, told=True)
        self._task, self._reads = task, reads
        self._items = {item.text: item for item in items}
        self.name = f"oracle of {task.name}, {getattr(task.labels, reads)}"
        self.version = hashlib.sha256(f"{task.world.fingerprint} {task.name} {reads}".encode()).hexdigest()

    def opinions(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Opinion]:
        """Judge each answer by the grammar.

        Raises:
            JudgeError: if a prompt is not one of the world; it is named.
        """
        strange = next((i for i, prompt in enumerate(prompts) if prompt not in self._items), None)
        if strange is not None:
            raise JudgeError(
                f"{self.name}: prompt {prompts[strange][-60:]!r} is none of its {len(self._items)}. "
                "Fix: give the judge the items that were asked."
            )
        found = self._task.verdicts([self._items[prompt] for prompt in prompts], answers)
        return [Opinion(float(value)) for value in getattr(found, self._reads)]
