"""How the answers of a cell are drawn, as data, where that is not its task's own way.

Knows what decides which answers come. Knows nothing about how they are drawn (`running`, `drawing`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from steerlib.experiment.written import _Data


class Sampling(_Data):
    """How answers are sampled; None is the task's own way.

    The first three are settings of the task on public data, if it has settings; the others are of no task, and stand
    beside whatever it has.

    Attributes:
        max_new_tokens: longest answer, in tokens.
        temperature: 0 for greedy.
        top_p: keep the smallest set of tokens whose probability reaches p.
        top_k: keep the k most likely tokens, before top_p.
        repetition_penalty: see `steerlib.decoding.repetition`; None is what the plant's own generation_config says.
        no_repeat_ngram_size: likewise.
        cache: "none" to read the whole text anew for each token, as A-LQR's earlier code does: a law of scope "last"
            then steers one position at a time, and none stays steered. "dynamic" is as leaving it out.
    """

    later = frozenset(
        {"max_new_tokens", "temperature", "top_p", "top_k", "repetition_penalty", "no_repeat_ngram_size", "cache"}
    )
    #: Those that a task on public data has itself.
    of_tasks: ClassVar[tuple[str, ...]] = ("max_new_tokens", "temperature", "top_p")

    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=1)] | None = None
    cache: Literal["none"] | None = None

    @field_validator("cache", mode="before")
    @classmethod
    def _no_default(cls, cache: Any) -> Any:
        """Leave out the plant's own cache: two names for one cell would be computed twice."""
        return None if cache == "dynamic" else cache

    @property
    def given(self) -> dict[str, Any]:
        """Those that are not the task's own."""
        return {name: value for name, value in self if value is not None}

    @property
    def repetition(self) -> dict[str, Any]:
        """Those of them that say how much answers may repeat themselves."""
        return {name: value for name, value in self.given.items() if name in _REPETITION}

    @property
    def drawn(self) -> dict[str, Any]:
        """The others: what the plant's own sampling is asked for."""
        return {name: value for name, value in self.given.items() if name not in _REPETITION}


def plain(value: float | str) -> str:
    """A setting as people write it: 1.1, 50, none."""
    return value if isinstance(value, str) else f"{value:g}"


_REPETITION = ("repetition_penalty", "no_repeat_ngram_size")
