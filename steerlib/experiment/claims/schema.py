"""What a claim of a paper is as data: the schema of `data/claims/*.yml`.

Knows the eight kinds and what each needs; knows nothing of files, of how anything was measured, nor of verdicts.

What a claim is checked with stands in its `check`: "notebooks/11_name" (the page calls `page.check` itself),
"notebooks/11_name metric truth.txi" (what the page records under that name decides) or "notebooks/11_name figure
layers" (a figure of that name does). With the last two, entering a claim takes one entry here and one line there.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

#: What the suite can be run on, cheapest first.
PROFILES = ("tiny", "gpu", "paper")

CHECK = r"^notebooks/\d\d_[a-z0-9_]+( (metric|figure) [A-Za-z0-9_.-]+)?$"


class ClaimError(ValueError):
    """A claim that is unknown, malformed, or checked with the wrong quantities."""


class Verdict(StrEnum):
    """What a check can say."""

    REPRODUCED = "reproduced"
    NOT_REPRODUCED = "not reproduced"
    CONTRADICTED = "contradicted"
    CANNOT_CHECK = "cannot be checked in this profile"
    NOT_RUN = "not run"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExactTolerance(_Strict):
    """Largest deviation that floating point, or a step of finite size, may cause."""

    absolute: Annotated[float, Field(gt=0)]


class PairedTolerance(_Strict):
    """Level of the test, and the fewest seeds that may decide it; intervals have coverage 1 - level."""

    level: Annotated[float, Field(gt=0, lt=0.5)]
    seeds: Annotated[int, Field(ge=1)] = 1
    paired: Literal[True] = True


class FactorTolerance(PairedTolerance):
    """A ratio agrees when its whole interval is within this factor of the published one."""

    factor: Annotated[float, Field(gt=1)]


class BandTolerance(PairedTolerance):
    """A mean agrees when its whole interval is within this distance of the published one, in the metric's unit."""

    within: Annotated[float, Field(gt=0)]


class Versus(_Strict):
    """Keys of the samples: the method the claim is about, and those it is compared with."""

    ours: str
    rivals: Annotated[tuple[str, ...], Field(min_length=1)]

    @property
    def keys(self) -> tuple[str, ...]:
        """All of them, ours first."""
        return (self.ours, *self.rivals)


class Doses(_Strict):
    """Keys of the samples in the order of the dose, smallest first."""

    doses: Annotated[tuple[str, ...], Field(min_length=3)]

    @property
    def keys(self) -> tuple[str, ...]:
        """All of them, smallest first."""
        return self.doses


class Alone(_Strict):
    """Key of the samples of one method."""

    ours: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The one."""
        return (self.ours,)


class Reading(_Strict):
    """Which published number is meant: `published[row][value]`, over `published[row][over]` for a ratio.

    Attributes:
        row: usually the model.
        value: usually the method.
        over: the divisor of a ratio.
        scale: what turns the published number into the unit of the metric, such as 0.01 for a percentage.
    """

    row: str
    value: str
    over: str = ""
    scale: Annotated[float, Field(gt=0)] = 1.0


class Contains(_Strict):
    """What a figure must hold; a text counts where it is part of the label, in any case.

    Attributes:
        panels: at least so many.
        lines: at least so many curves in all.
        points: at least so many points on the longest curve.
        labels: each is a legend entry or the label of something drawn.
        xlabel: of some panel.
        ylabel: of some panel.
    """

    panels: Annotated[int, Field(ge=1)] = 1
    lines: Annotated[int, Field(ge=0)] = 0
    points: Annotated[int, Field(ge=0)] = 0
    labels: tuple[str, ...] = ()
    xlabel: str = ""
    ylabel: str = ""


class _Claim(_Strict):
    """What all kinds share.

    Attributes:
        says: what its source says or does, in our words, and nothing that we add.
        derived: what we derive from that and check in its place; "" if what is said is checked as it is.
        source: whether the paper says it, its released code does it, or neither ("ours": a control or a figure of this
            project, that a reader needs beside the others).
        origin: of what is derived or known at second hand, where it comes from.
        counterpart: id of the claim that says what the other of the two does, where text and code differ.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9]+(\.[a-z0-9-]+)+$")]
    paper: str
    where: str
    says: Annotated[str, Field(min_length=20)]
    published: dict[str, dict[str, float]] = {}
    check: Annotated[str, Field(pattern=CHECK)]
    profiles: Annotated[tuple[Literal["tiny", "gpu", "paper"], ...], Field(min_length=1)]
    source: Literal["text", "code", "ours"] = "text"
    derived: str = ""
    counterpart: str = ""
    origin: str = ""

    takes: ClassVar[tuple[str, ...]] = ("", "metric")

    @property
    def page(self) -> str:
        """Stem of the notebook that checks the claim."""
        return self.check.split()[0].removeprefix("notebooks/")

    @property
    def metric(self) -> str:
        """What the page must record ("" if the page checks the claim itself, or a figure does)."""
        return self._named("metric")

    @property
    def figure(self) -> str:
        """The figure that decides ("" if none does)."""
        return self._named("figure")

    def barred(self, profile: str) -> str:
        """Why the claim is not checked in a profile that is not among its own."""
        return f"it is checked in {' and '.join(self.profiles)}, not in {profile}"

    def _named(self, what: str) -> str:
        parts = self.check.split()
        return parts[2] if parts[1:2] == [what] else ""

    @field_validator("says", "derived")
    @classmethod
    def _sentence(cls, text: str) -> str:
        return " ".join(text.split())

    @model_validator(mode="after")
    def _checkable(self) -> Self:
        found = (self.check.split() + [""])[1]
        if found not in self.takes:
            wanted = " or ".join(f"notebooks/NN_name {word} NAME".replace("  NAME", "") for word in self.takes)
            raise ValueError(f"got check {self.check!r}, expected {wanted} for a claim of this kind")
        return self


class ExactClaim(_Claim):
    """An identity or a theorem: holds exactly, on every profile. A recorded metric is compared with `equals`."""

    kind: Literal["identity", "theorem"]
    equals: float = 0.0
    tolerance: ExactTolerance


class SampledClaim(_Claim):
    """A claim decided by scores of shape (seeds, prompts) of several methods."""

    methods: Versus | Doses | Alone | None
    tolerance: PairedTolerance

    takes: ClassVar[tuple[str, ...]] = ("metric",)

    @property
    def keys(self) -> tuple[str, ...]:
        """Methods that the samples must hold; none where a recorded value decides."""
        return self.methods.keys if self.methods else ()


class SignClaim(SampledClaim):
    """An effect with a direction: of our method against one rival, or of a recorded value with its interval."""

    kind: Literal["sign"]
    expects: Literal["positive", "negative"]
    methods: Versus | None = None
    tolerance: PairedTolerance

    takes: ClassVar[tuple[str, ...]] = ("", "metric")

    @model_validator(mode="after")
    def _one_rival(self) -> Self:
        if self.methods and (len(self.methods.rivals) != 1 or not self.metric):
            raise ValueError(
                f"got {len(self.methods.rivals)} rivals and check {self.check!r}, expected one rival and a metric; "
                "for several rivals the kind is rank"
            )
        if self.metric and not self.methods and self.tolerance.level != 0.05:
            raise ValueError("without methods a recorded value decides, whose interval has coverage 0.95: level 0.05")
        return self


class RankClaim(SampledClaim):
    """Our method is better than every rival: above each (positive) or below each (negative)."""

    kind: Literal["rank"]
    expects: Literal["positive", "negative"] = "positive"
    methods: Versus
    tolerance: PairedTolerance


class MonotoneClaim(SampledClaim):
    """The score rises, or falls, along a list of doses; it may level off, it may not turn."""

    kind: Literal["monotone"]
    expects: Literal["increasing", "decreasing"]
    methods: Doses
    tolerance: PairedTolerance


class _NumberClaim(SampledClaim):
    """A published number, compared where the same model and data are run: `plant` names the model."""

    plant: str
    reading: Reading

    def barred(self, profile: str) -> str:
        """Why a published number is not compared on another model."""
        return (
            f"a published number is compared only where the paper's own model and data are run; profile {profile} "
            "runs others"
        )

    @property
    def expected(self) -> float:
        """The published number, in the unit of the metric."""
        row, reading = self.published[self.reading.row], self.reading
        value = row[reading.value] * reading.scale
        return value / (row[reading.over] * reading.scale) if reading.over else value

    @model_validator(mode="after")
    def _published(self) -> Self:
        row = self.published.get(self.reading.row, {})
        lacking = [key for key in (self.reading.value, self.reading.over) if key and key not in row]
        if lacking:
            raise ValueError(f"reading: published has no {self.reading.row}: {', '.join(lacking)}")
        if "tiny" in self.profiles:
            raise ValueError("profiles: got tiny, where no published number can be checked; expected gpu or paper")
        return self


class RatioClaim(_NumberClaim):
    """Our mean over the rival's mean, against the published ratio."""

    kind: Literal["ratio"]
    methods: Versus
    tolerance: FactorTolerance

    @model_validator(mode="after")
    def _divisor(self) -> Self:
        row = self.published[self.reading.row]
        if len(self.methods.rivals) != 1 or not self.reading.over:
            raise ValueError("a ratio has one rival, and its reading names what is divided by: over")
        if row[self.reading.value] <= 0 or row[self.reading.over] <= 0:
            raise ValueError("published: a ratio needs numbers above 0")
        return self


class BandClaim(_NumberClaim):
    """Our mean against the published one."""

    kind: Literal["band"]
    methods: Alone
    tolerance: BandTolerance


class StructureClaim(_Claim):
    """What a figure of ours must show, because the paper's does."""

    kind: Literal["structure"]
    contains: Contains

    takes: ClassVar[tuple[str, ...]] = ("figure",)


Claim = ExactClaim | SignClaim | RankClaim | MonotoneClaim | RatioClaim | BandClaim | StructureClaim
