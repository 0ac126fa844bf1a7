"""Win rates that a paper printed, and how much they can prove: counts behind percentages, and paired bounds.

A table says that one method won 75.6 % of 300 prompts and another 74.6 %. Which prompts they won is not said, and the
test for paired answers (McNemar 1947) needs it: it counts the prompts that only ours won, b, and those that only
theirs did, c. From the two counts of wins, k and m, only b - c = k - m is known. But b and c are bounded,

    max(0, m - k)  <=  c  <=  min(m, n - k),

and for a given difference the p-value grows with c (proved in the audit chapter). So the two ends of that range give
the smallest and the largest p-value that any table behind the printed numbers can have: a difference that is not
significant at the first is not significant at all; one that is at the second is, whichever prompts were won.

Knows counts; knows nothing about papers, methods or judges.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from scipy.stats import binomtest, fisher_exact, norm

from steerlib.errors import MetricError

Printing = Literal["truncated", "rounded"]
Standing = Literal["survives", "depends on the pairing", "cannot be told"]
#: Far smaller than what a decimal of a percentage is worth, and far larger than the rounding of its division.
_SLACK = 1e-9


def printed(wins: int, n: int, *, how: Printing = "truncated", digits: int = 1) -> float:
    """A count as the percentage that a table shows.

    Args:
        wins: prompts won.
        n: prompts asked.
        how: further decimals are cut off, or rounded half up.
        digits: decimals shown.

    Raises:
        MetricError: if the count is not between 0 and n, or n is below one.
    """
    _counts(wins, wins, n)
    scale = 10**digits
    # In whole numbers: 1000 * 227 // 300 is exact, 100 * (227 / 300) is not.
    cut = (100 * scale * wins * 2 + (n if how == "rounded" else 0)) // (2 * n)
    return cut / scale


def counts_behind(rate: float, n: int, *, how: Printing = "truncated", digits: int = 1) -> list[int]:
    """Every number of wins among n that would be printed as this percentage; none if the table cannot be of n.

    Args:
        rate: percentage as printed.
        n: prompts asked.
        how: see `printed`.
        digits: decimals shown.

    Raises:
        MetricError: if the percentage is not between 0 and 100, or n is below one.
    """
    if not 0 <= rate <= 100:
        raise MetricError(f"rate: got {rate!r}, expected a percentage from 0 to 100.")
    near = round(rate * n / 100)
    reach = 1 + math.ceil(n * 10 ** (-digits) / 100)
    around = range(max(0, near - reach), min(n, near + reach) + 1)
    return [k for k in around if abs(printed(k, n, how=how, digits=digits) - rate) < _SLACK]


def sizes_that_fit(rates: Sequence[float], *, most: int, how: Printing = "truncated", digits: int = 1) -> list[int]:
    """Numbers of prompts, up to `most`, of which every one of these percentages can be a count.

    Args:
        rates: percentages as printed.
        most: largest number of prompts tried.
        how: see `printed`.
        digits: decimals shown.

    Raises:
        MetricError: if there is no percentage, or one is not between 0 and 100.
    """
    if not rates:
        raise MetricError("sizes_that_fit: got no percentage, expected at least one.")
    return [n for n in range(1, most + 1) if all(counts_behind(r, n, how=how, digits=digits) for r in rates)]


@dataclass(frozen=True)
class Pairing:
    """One way in which the wins of two methods may fall on the same prompts.

    Attributes:
        gained: prompts that only ours won.
        lost: prompts that only theirs won.
        n: prompts.
    """

    gained: int
    lost: int
    n: int

    @property
    def difference(self) -> float:
        """Difference of the shares of wins."""
        return (self.gained - self.lost) / self.n

    @property
    def p(self) -> float:
        """Two-sided p-value of the exact test of McNemar: a fair coin for each prompt that only one of them won."""
        both = self.gained + self.lost
        return 1.0 if both == 0 else float(binomtest(self.gained, both, 0.5).pvalue)

    def interval(self, *, level: float = 0.95) -> tuple[float, float]:
        """Wald's interval of the difference: its standard error is sqrt(b + c - (b - c)^2 / n) / n."""
        gap = self.gained - self.lost
        error = math.sqrt(self.gained + self.lost - gap**2 / self.n) / self.n
        reach = float(norm.ppf((1 + level) / 2)) * error
        return self.difference - reach, self.difference + reach


@dataclass(frozen=True)
class Compared:
    """Two counts of wins among the same number of prompts, and what they can prove.

    Attributes:
        ours: prompts won by ours.
        theirs: prompts won by theirs.
        n: prompts.

    Raises:
        MetricError: if a count is not between 0 and n, or n is below one.
    """

    ours: int
    theirs: int
    n: int

    def __post_init__(self) -> None:
        """Refuse counts that cannot be."""
        _counts(self.ours, self.theirs, self.n)

    @classmethod
    def of_rates(cls, ours: float, theirs: float, n: int, *, how: Printing = "truncated") -> Self:
        """From printed percentages.

        Raises:
            MetricError: if a percentage belongs to no count, or to several.
        """
        found = [counts_behind(rate, n, how=how) for rate in (ours, theirs)]
        for rate, counts in zip((ours, theirs), found, strict=True):
            if len(counts) != 1:
                raise MetricError(
                    f"rate {rate}: got {len(counts)} counts of {n} that are printed so, expected one. Fix: another n."
                )
        return cls(found[0][0], found[1][0], n)

    @property
    def gap(self) -> float:
        """Difference of the shares of wins."""
        return (self.ours - self.theirs) / self.n

    @property
    def closest(self) -> Pairing:
        """The pairing that proves most: whoever wins less wins only where the other does."""
        return self._with(max(0, self.theirs - self.ours))

    @property
    def farthest(self) -> Pairing:
        """The pairing that proves least: the two win on different prompts, as far as there are enough."""
        return self._with(min(self.theirs, self.n - self.ours))

    @property
    def unpaired_p(self) -> float:
        """Fisher's exact p-value, as if each method had been asked other prompts."""
        wins = [[self.ours, self.n - self.ours], [self.theirs, self.n - self.theirs]]
        return float(fisher_exact(wins)[1])  # type: ignore[arg-type, index]

    def standing(self, *, level: float = 0.05) -> Standing:
        """Whether the difference is significant under every pairing, under some, or under none."""
        if self.closest.p > level:
            return "cannot be told"
        return "survives" if self.farthest.p <= level else "depends on the pairing"

    def _with(self, lost: int) -> Pairing:
        return Pairing(self.ours - self.theirs + lost, lost, self.n)


def _counts(ours: int, theirs: int, n: int) -> None:
    if n < 1 or not (0 <= ours <= n and 0 <= theirs <= n):
        raise MetricError(
            f"wins: got {ours} and {theirs} of {n}, expected counts from 0 to n, and at least one prompt."
        )
