"""Logistic regression on wide tables: the same optimum as the solver that factors the Hessian, in few passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlib.control import wide_logistic
from steerlib.control.logistic import fit_logistic
from steerlib.control.wide_logistic import fit_wide
from steerlib.errors import ContrastError


def table(n: int, columns: int, *, positives: int, gap: float = 1.0, seed: int = 0) -> Tensor:
    """Two classes with decaying variances and an offset."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, columns, generator=generator, dtype=torch.float64)
    rows[:positives, : columns // 2] += gap / columns**0.5
    return rows / (1 + torch.arange(columns)).sqrt() + 0.7


class TestOptimum:
    """Where the gradient vanishes."""

    @pytest.mark.parametrize(("n", "columns", "positives"), [(80, 12, 30), (60, 200, 40), (400, 250, 150)])
    @pytest.mark.parametrize("c", [0.05, 1.0, 30.0])
    def test_it_is_that_of_the_other_solver(self, n: int, columns: int, positives: int, c: float) -> None:
        rows = table(n, columns, positives=positives)
        found = fit_wide(rows, positives, c=c)
        expected = fit_logistic(rows[:positives], rows[positives:], c=c)
        torch.testing.assert_close(found.weight, expected.weight, rtol=1e-5, atol=1e-6)
        assert float(found.bias) == pytest.approx(float(expected.bias), abs=1e-5)
        assert found.separates == expected.separates
        assert (found.weight - expected.weight).norm() <= found.gradient + expected.gradient + 1e-9

    def test_single_precision_is_near(self) -> None:
        rows = table(300, 220, positives=120)
        exact, found = fit_wide(rows, 120), fit_wide(rows.float(), 120)
        assert (found.weight - exact.weight).norm() < 1e-3 * exact.weight.norm()

    def test_known_leading_directions_save_passes_and_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = 20 * table(400, 260, positives=200)
        passes, plain = {}, wide_logistic._bent
        found = {}
        for name, rank in (("known", wide_logistic._RANK), ("unknown", 10_000)):
            count = 0

            def counted(*given: Tensor) -> Tensor:
                nonlocal count
                count += 1
                return plain(*given)

            monkeypatch.setattr(wide_logistic, "_bent", counted)
            monkeypatch.setattr(wide_logistic, "_RANK", rank)
            found[name] = fit_wide(rows, 200)
            passes[name] = count
        assert passes["known"] < 0.8 * passes["unknown"]
        torch.testing.assert_close(found["known"].weight, found["unknown"].weight, rtol=1e-6, atol=1e-7)

    def test_a_table_may_be_spoiled_or_kept(self) -> None:
        rows = table(60, 20, positives=30)
        before = rows.clone()
        kept = fit_wide(rows, 30)
        assert torch.equal(rows, before)
        spoiled = fit_wide(rows, 30, spoil=True)
        assert not torch.equal(rows, before) and torch.equal(kept.weight, spoiled.weight)

    def test_separable_classes_have_a_finite_fit_and_are_told(self) -> None:
        rows = table(60, 30, positives=30, gap=60.0)
        found = fit_wide(rows, 30)
        assert found.separates and torch.isfinite(found.weight).all()
        assert not fit_wide(table(200, 4, positives=100), 100).separates

    def test_the_same_rows_in_both_classes_have_weight_zero(self) -> None:
        rows = table(30, 10, positives=30)
        assert float(fit_wide(torch.cat([rows, rows]), 30).weight.norm()) < 1e-8


class TestBadInput:
    """What cannot be fitted."""

    def test_it_is_refused(self) -> None:
        rows = table(10, 4, positives=5)
        for positives in (0, 10):
            with pytest.raises(ContrastError, match=f"got {positives} positive of 10"):
                fit_wide(rows, positives)
        with pytest.raises(ContrastError, match="c: got 0"):
            fit_wide(rows, 5, c=0)
        rows[2, 1] = torch.nan
        with pytest.raises(ContrastError, match="not finite"):
            fit_wide(rows, 5)
