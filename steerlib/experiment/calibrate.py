"""Equal effort: the multiplier at which a law spends a given budget.

Knows how to search one number whose cost rises with it. Knows nothing about laws or plants, except for the three costs
at the end. The number is the multiplier of a law's input, never a setpoint, along which divergence is U-shaped.

The search assumes that cost rises with the multiplier, and checks it on every point that it measures: use the same
prompts and seeds at every point, so that chance does not look like a fall.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from steerlib.actuator import Actuator
from steerlib.errors import MetricError, NotFiniteError
from steerlib.laws.base import Law
from steerlib.laws.stack import Stack
from steerlib.metrics import input_energy, kl_per_token, perplexity
from steerlib.plant import Plant

Budget = Literal["kl", "energy", "perplexity"]

#: By how much of itself a cost may fall as the multiplier rises before the search says that it is not monotone.
SLACK = 0.05
#: A cost that a doubling raises by less than this share has stopped rising.
FLAT = 0.01
#: So many multipliers, each twice the one before, may cost nothing before the law counts as one without effect: a gate
#: or a deadband costs nothing below its threshold, and its multiplier must be searched beyond it.
DEAD = 8
#: How often a search that is told how a cost grows believes it before it doubles.
GUESSES = 2
#: Share of the answers that a law may empty before a perplexity budget counts the plant as broken: perplexity knows
#: nothing of an answer that is not there, and would be that of the few that are left.
SILENCED = 0.1


class Status(StrEnum):
    """How a calibration ended."""

    REACHED = "reached"
    TOO_FEW = "too few evaluations"
    UNREACHABLE = "the cost stops rising below the budget"
    BREAKS = "the cost is not finite before the budget is reached"
    NOT_MONOTONE = "the cost falls as the multiplier rises"


@dataclass(frozen=True)
class Calibration:
    """What a search found, whether or not it reached the budget.

    Attributes:
        status: how it ended; only `Status.REACHED` means that the budget is spent.
        strength: the multiplier whose cost came closest from below, or within tolerance.
        cost: its cost.
        target: the budget.
        tried: every (multiplier, cost) that was measured, in order of the multiplier.
        message: what to do about it, "" where it was reached.
    """

    status: Status
    strength: float
    cost: float
    target: float
    tried: tuple[tuple[float, float], ...]
    message: str = ""

    @property
    def reached(self) -> bool:
        """Whether the budget is spent to within the tolerance."""
        return self.status is Status.REACHED


def calibrate(
    cost: Callable[[float], float],
    target: float,
    *,
    start: float = 1.0,
    tolerance: float = 0.02,
    most: int = 16,
    power: float | None = None,
    digits: int | None = None,
) -> Calibration:
    """Find the multiplier at which a cost that is zero at zero, and rises, has a given value.

    Doubles or halves until the budget is enclosed, then interpolates between logarithms, halving where that stalls. A
    cost that stops rising below the budget ends the search; one that is still zero does so after `DEAD` multipliers.

    Args:
        cost: cost of a multiplier; one that is not finite says that the plant broke.
        target: the budget, at least 0.
        start: first multiplier tried; negative for a law that is used against its direction.
        tolerance: how close the cost must come, as a share of the budget.
        most: evaluations of the cost.
        power: how the cost is believed to grow near the start, such as 2 for a divergence: before it doubles or halves,
            the search goes `GUESSES` times to where such a cost would meet the budget, if that is less far. A belief
            that is wrong costs evaluations; every check is made all the same. None for none.
        digits: significant ones of the multipliers that are tried; None for all. Processors that differ in the last
            digits then name one multiplier.

    Raises:
        MetricError: if target, start, tolerance, power or digits has no meaning.
    """
    if not (math.isfinite(target) and target >= 0):
        raise MetricError(f"calibrate: got a budget of {target}, expected a finite number of at least 0.")
    if not (math.isfinite(start) and start != 0) or not 0 < tolerance < 1 or most < 2:
        raise MetricError(
            f"calibrate: got start={start}, tolerance={tolerance}, most={most}; expected a start that is not 0, a "
            "tolerance between 0 and 1, and at least 2 evaluations."
        )
    if (power is not None and not power > 0) or (digits is not None and digits < 2):
        raise MetricError(
            f"calibrate: got power={power}, digits={digits}; expected a positive power, and at least 2 digits, or None."
        )
    if target == 0:
        return Calibration(Status.REACHED, 0.0, 0.0, 0.0, ((0.0, 0.0),))
    return _Search(cost, target, math.copysign(1.0, start), tolerance, most, power, digits).run(abs(start))


class _Search:
    """One search; sizes are multipliers without their sign."""

    def __init__(
        self,
        cost: Callable[[float], float],
        target: float,
        sign: float,
        tolerance: float,
        most: int,
        power: float | None,
        digits: int | None,
    ) -> None:
        self.cost, self.target, self.sign, self.tolerance, self.most = cost, target, sign, tolerance, most
        self.power, self.digits = power, digits
        self.seen: dict[float, float] = {}

    def run(self, size: float) -> Calibration:
        low, high = None, None  # sizes whose cost lies below and above the budget
        doubled = False
        size = self.short(size)
        while len(self.seen) < self.most:
            value = self.measure(size)
            if self.close(value):
                return self.end(Status.REACHED)
            if self.falls():
                return self.end(Status.NOT_MONOTONE)
            if value < self.target:
                if low is not None and high is None and doubled and self.flat(self.seen[low], value):
                    return self.end(Status.UNREACHABLE)
                low = size
            else:
                high = size
            if low is not None and high is not None:
                return self.narrow(low, high)
            factor = self.factor(value)
            doubled = factor == 2
            size = self.short(size * factor if high is None else size / factor)
        broken = all(math.isinf(cost) for cost in self.seen.values())
        return self.end(Status.BREAKS if broken else Status.TOO_FEW)

    def narrow(self, low: float, high: float) -> Calibration:
        halve = False
        while len(self.seen) < self.most:
            below, above = self.seen[low], self.seen[high]
            share = 0.5
            if not halve and math.isfinite(above) and below > 0:
                share = math.log(self.target / below) / math.log(above / below)
            size = self.short(low * (high / low) ** min(max(share, 0.05), 0.95))
            if size in self.seen:  # no multiplier of so few digits lies between
                break
            value = self.measure(size)
            if self.close(value):
                return self.end(Status.REACHED)
            if self.falls():
                return self.end(Status.NOT_MONOTONE)
            before = high / low
            low, high = (size, high) if value < self.target else (low, size)
            # Interpolation may creep towards one end; then the next step halves.
            halve = not halve and high / low > math.sqrt(before)
            if not math.isfinite(self.seen[high]) and high / low < 1 + self.tolerance:
                return self.end(Status.BREAKS)
        return self.end(Status.TOO_FEW)

    def factor(self, value: float) -> float:
        """How far to go from a multiplier of this cost: twice, or less far where a guess says so."""
        if self.power is None or len(self.seen) > GUESSES or not (math.isfinite(value) and value > 0):
            return 2.0
        apart = max(self.target / value, value / self.target)
        return min(apart ** (1 / self.power), 2.0)

    def short(self, size: float) -> float:
        """The size with as many digits as may be tried."""
        return size if self.digits is None else float(f"{size:.{self.digits}g}")

    def measure(self, size: float) -> float:
        value = float(self.cost(self.sign * size))
        self.seen[size] = value if math.isfinite(value) else math.inf
        return self.seen[size]

    def flat(self, before: float, value: float) -> bool:
        """Whether a doubling raised the cost too little to go on."""
        if value <= 0:
            return sum(cost <= 0 for cost in self.seen.values()) >= DEAD
        return value <= (1 + FLAT) * before

    def close(self, value: float) -> bool:
        return abs(value - self.target) <= self.tolerance * self.target

    def falls(self) -> bool:
        """Whether a larger multiplier cost less than a smaller one, by more than chance allows."""
        costs = [cost for _, cost in sorted(self.seen.items())]
        return any(b < (1 - SLACK) * a for a, b in zip(costs, costs[1:], strict=False) if math.isfinite(a)) or any(
            math.isinf(a) and math.isfinite(b) for a, b in zip(costs, costs[1:], strict=False)
        )

    def end(self, status: Status) -> Calibration:
        tried = tuple((self.sign * size, cost) for size, cost in sorted(self.seen.items()))
        finite = [(size, cost) for size, cost in tried if math.isfinite(cost)]
        close = [pair for pair in finite if self.close(pair[1])]
        below = [pair for pair in finite if pair[1] <= self.target]
        if close:
            size, cost = min(close, key=lambda pair: abs(pair[1] - self.target))
        else:
            size, cost = max(below, key=lambda pair: pair[1], default=(0.0, 0.0))
        return Calibration(status, size, cost, self.target, tried, self.message(status, cost))

    def message(self, status: Status, cost: float) -> str:
        if status is Status.REACHED:
            return ""
        if status is Status.UNREACHABLE and cost <= 0:
            return (
                f"{status.value}: nothing of {self.target:.4g} is spent up to a multiplier of "
                f"{self.sign * max(self.seen):.4g}. The law has no effect there. Fix: a larger start, or another law."
            )
        fix = {
            Status.TOO_FEW: f"Fix: allow more than {self.most} evaluations, or a wider tolerance.",
            Status.UNREACHABLE: "The law saturates: compare it at the budget it can spend, and say so.",
            Status.BREAKS: "The plant breaks: its numbers overflow, or its answers are empty. Fix: compute in float32, "
            "or compare at a smaller budget.",
            Status.NOT_MONOTONE: "Fix: search the multiplier of the input, not a setpoint; use the same prompts and "
            "seeds at every point.",
        }[status]
        return f"{status.value}: spent {cost:.4g} of {self.target:.4g} after {len(self.seen)} evaluations. {fix}"


def cost_of(
    plant: Plant,
    law: Law | Stack,
    prompts: Sequence[str],
    *,
    budget: Budget = "kl",
    reader: Plant | None = None,
    answers: Literal["steered", "unsteered"] = "steered",
    layer: int | None = None,
    scope: str | None = None,
    max_new_tokens: int = 32,
    seed: int = 0,
) -> Callable[[float], float]:
    """The cost of a law's multiplier on a plant: what `calibrate` searches.

    Every call uses the same prompts and the same noise, so that costs of two multipliers differ by the law alone. A
    plant that is left with nothing to say is broken, and its cost infinite: where its logits are no numbers any more,
    where every steered answer is empty, and for perplexity, which cannot be measured on an empty answer, where the law
    empties more than a share `SILENCED`.

    Args:
        plant: the plant.
        law: fitted; its strength is set by each call.
        prompts: validation prompts.
        budget: "kl", divergence from the unsteered plant in nats for each token; "energy", squared norm of what was
            added for each token; "perplexity", how many times as perplexing the answers are to the reader as those of
            the unsteered plant, less one.
        reader: for perplexity alone, and needed there: another plant than the steered one, which finds its own
            habits fluent, broken or not.
        answers: on whose answers the cost is measured: "steered" goes where the law leads, and is sampled anew for
            each multiplier; "unsteered" is one fixed text, smoother and blind to where the law leads. Perplexity
            knows only the first.
        layer: where to act; by default where the law was fitted.
        scope: which tokens; by default the law's own.
        max_new_tokens: length of the answers.
        seed: of the answers.

    Raises:
        MetricError: if there is no prompt, the combination has no meaning, the reader is missing, not needed or the
            steered plant, or the unsteered plant answers nothing.
    """
    if not prompts:
        raise MetricError("cost_of: got no prompt.")
    if budget not in ("kl", "energy", "perplexity") or (budget == "perplexity" and answers == "unsteered"):
        raise MetricError(
            f"cost_of: got budget={budget!r} on {answers} answers; expected 'kl' or 'energy' on either, or "
            "'perplexity' on steered ones."
        )
    if (reader is None) == (budget == "perplexity"):
        raise MetricError(
            "cost_of: perplexity is read by another plant than the steered one, and got none. Fix: "
            "reader=Plant.load(...)."
            if reader is None
            else f"cost_of: got a reader for a budget of {budget!r}, which needs none. Fix: leave it out."
        )
    if reader is not None and (reader is plant or reader.weight_hash == plant.weight_hash):
        raise MetricError(
            f"cost_of: the reader {reader.name!r} has the weights of the steered plant. Fix: give another plant."
        )
    own = plant.generate(prompts, max_new_tokens=max_new_tokens, seed=seed).texts
    spoken = sum(bool(text.strip()) for text in own)
    if not spoken:
        raise MetricError("cost_of: every answer of the unsteered plant is empty. Fix: give prompts that it goes on.")

    def cost(strength: float) -> float:
        acting = plant.under(law.at(strength), layer=layer, scope=scope)
        try:
            return spent(acting)
        except NotFiniteError:
            return math.inf

    def spent(acting: Actuator) -> float:
        texts: Sequence[str] = own
        if answers == "steered":
            with acting:
                texts = plant.generate(prompts, max_new_tokens=max_new_tokens, seed=seed).texts
        if not any(text.strip() for text in texts):
            return math.inf
        if budget == "energy":
            return input_energy(plant, acting, prompts, texts).per_token
        if reader is None:
            return kl_per_token(plant, acting, prompts, texts).mean
        # The same prompts on both sides, so that leaving a prompt out does not look like a change of fluency.
        both = [(p, t, o) for p, t, o in zip(prompts, texts, own, strict=True) if t.strip() and o.strip()]
        if len(both) < (1 - SILENCED) * spoken:
            return math.inf
        asked, steered, free = (list(column) for column in zip(*both, strict=True))
        return max(perplexity(reader, asked, steered) / perplexity(reader, asked, free) - 1.0, 0.0)

    return cost
