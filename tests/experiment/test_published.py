"""What printed win rates can prove: counts by hand, and bounds held against every table there is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlib.errors import MetricError
from steerlib.experiment.published import Compared, Pairing, counts_behind, printed, sizes_that_fit


class TestCounts:
    """Percentages and the counts behind them."""

    def test_by_hand(self) -> None:
        assert printed(227, 300) == 75.6 and printed(227, 300, how="rounded") == 75.7
        assert printed(224, 300) == 74.6 and printed(174, 300) == 58.0 == printed(174, 300, how="rounded")
        assert printed(1, 8, digits=0) == 12 and printed(1, 8, digits=0, how="rounded") == 13, "half up"
        assert counts_behind(75.6, 300) == [227] and counts_behind(75.7, 300) == []
        assert counts_behind(75.6, 100) == [], "a hundred prompts give whole percents"
        assert counts_behind(50.0, 2000) == [1000, 1001], "too fine for a decimal"

    @given(st.integers(1, 1500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0, 1, 2]))
    def test_a_count_is_among_those_behind_what_is_printed_of_it(self, case: tuple[int, int], digits: int) -> None:
        k, n = case
        for how in ("truncated", "rounded"):
            assert k in counts_behind(printed(k, n, how=how, digits=digits), n, how=how, digits=digits)
            assert abs(printed(k, n, how=how, digits=digits) - 100 * k / n) <= 10**-digits + 1e-9

    def test_sizes(self) -> None:
        assert sizes_that_fit([50.0], most=5) == [2, 4]
        assert sizes_that_fit([33.3, 66.6], most=7) == [3, 6]
        assert sizes_that_fit([33.3, 66.7], most=7, how="rounded") == [3, 6]
        assert sizes_that_fit([66.6], most=7, how="rounded") == []

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: printed(5, 4), "got 5 and 5 of 4"),
            (lambda: printed(0, 0), "at least one prompt"),
            (lambda: counts_behind(101.0, 10), "expected a percentage"),
            (lambda: sizes_that_fit([], most=3), "got no percentage"),
            (lambda: Compared(3, -1, 10), "got 3 and -1 of 10"),
            (lambda: Compared.of_rates(75.7, 74.6, 300), "rate 75.7: got 0 counts"),
            (lambda: Compared.of_rates(50.0, 50.0, 2000), "got 2 counts"),
        ],
    )
    def test_bad_input(self, call, message: str) -> None:  # noqa: ANN001
        with pytest.raises(MetricError, match=message):
            call()


class TestPaired:
    """Paired tests of counts whose overlap is not known."""

    def test_by_hand(self) -> None:
        pair = Compared.of_rates(75.6, 74.6, 300)
        assert (pair.ours, pair.theirs) == (227, 224)
        assert pair.closest == Pairing(3, 0, 300) and pair.closest.p == pytest.approx(2 / 8)
        assert pair.farthest == Pairing(76, 73, 300)
        assert pair.standing() == "cannot be told"
        low, high = Pairing(3, 1, 4).interval()
        assert (low + high) / 2 == pytest.approx(0.5)
        assert high - low == pytest.approx(2 * 1.959964 * (4 - 4 / 4) ** 0.5 / 4)
        assert Pairing(0, 0, 9).p == 1.0 and Pairing(0, 0, 9).interval() == (0.0, 0.0)

    def test_standings(self) -> None:
        assert Compared(241, 173, 300).standing() == "survives"
        assert Compared(170, 150, 300).standing() == "depends on the pairing"
        assert Compared(150, 170, 300).standing() == "depends on the pairing", "the sign does not matter"
        assert Compared(6, 0, 6).standing() == "survives", "no overlap is possible"

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))))
    def test_no_table_of_the_same_counts_is_outside_of_the_bounds(self, case: tuple[int, int, int]) -> None:
        ours, theirs, n = case
        pair = Compared(ours, theirs, n)
        tables = []
        for both in range(n + 1):  # prompts that both won
            gained, lost = ours - both, theirs - both
            if gained >= 0 and lost >= 0 and both + gained + lost <= n:
                tables.append(Pairing(gained, lost, n))
        assert pair.closest in tables and pair.farthest in tables
        assert min(t.p for t in tables) == pytest.approx(pair.closest.p)
        assert max(t.p for t in tables) == pytest.approx(pair.farthest.p)
        by_overlap = sorted(tables, key=lambda t: t.lost)
        assert all(a.p <= b.p + 1e-9 for a, b in zip(by_overlap, by_overlap[1:], strict=False)), "p grows with c"
        wide, narrow = pair.farthest.interval(), pair.closest.interval()
        assert wide[0] <= narrow[0] + 1e-12 and narrow[1] <= wide[1] + 1e-12

    def test_unpaired(self) -> None:
        # Fisher's lady: 3 of 4 against 1 of 4.
        assert Compared(3, 1, 4).unpaired_p == pytest.approx(34 / 70)
