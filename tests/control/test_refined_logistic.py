"""Probes fitted in float32 and refined: the optimum of float64, and its solver where float32 resolves too little."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlib.control import refined_logistic
from steerlib.control.logistic import LogisticFit, fit_logistic
from steerlib.control.refined_logistic import fit_refined
from steerlib.errors import ContrastError


def sets(n: int, m: int, width: int, *, gap: float = 0.3, offset: float = 0.7) -> tuple[Tensor, Tensor]:
    """Two classes with decaying variances and an offset, in float32."""
    generator = torch.Generator().manual_seed(0)
    sizes = (1 + torch.arange(width)).rsqrt()
    first, second = (torch.randn(count, width, generator=generator) * sizes + offset for count in (n, m))
    return first + gap * sizes, second


def off(found: LogisticFit, wanted: LogisticFit) -> float:
    """Relative distance of the weights."""
    return float((found.weight - wanted.weight).norm() / wanted.weight.norm())


class TestOptimum:
    """Where the gradient vanishes, in float64."""

    @pytest.mark.parametrize(("n", "m", "width"), [(80, 60, 12), (50, 70, 200), (300, 400, 250)])
    @pytest.mark.parametrize("c", [0.05, 1.0, 30.0])
    @pytest.mark.parametrize("offset", [0.7, 1000.0])
    def test_it_is_that_of_float64(
        self, n: int, m: int, width: int, c: float, offset: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        positive, negative = sets(n, m, width, offset=offset)
        wanted = fit_logistic(positive, negative, c=c, tolerance=1e-10)
        whole = refined_logistic.fit_wide
        monkeypatch.setattr(refined_logistic, "fit_wide", lambda rows, *a, **k: whole(narrow(rows), *a, **k))
        found = fit_refined(positive, negative, c=c)
        assert found.weight.dtype == found.bias.dtype == torch.float64
        assert off(found, wanted) < 3e-8, "a tenth of what float32 can tell apart"
        assert float(found.bias) == pytest.approx(float(wanted.bias), rel=1e-6, abs=1e-6)
        assert found.separates == wanted.separates
        assert (found.weight - wanted.weight).norm() <= found.gradient + wanted.gradient + 1e-9

    def test_refining_is_what_makes_it_so(self) -> None:
        positive, negative = sets(300, 400, 250)
        wanted = fit_logistic(positive, negative, tolerance=1e-10)
        begun = refined_logistic.fit_wide(torch.cat([positive, negative]), 300)
        assert off(begun, wanted) > 30 * off(fit_refined(positive, negative), wanted)

    def test_states_are_not_changed(self) -> None:
        positive, negative = sets(20, 30, 8)
        before = positive.clone(), negative.clone()
        fit_refined(positive, negative)
        assert torch.equal(positive, before[0]) and torch.equal(negative, before[1])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_other_precisions(self, dtype: torch.dtype) -> None:
        positive, negative = (states.to(dtype) for states in sets(60, 60, 9))
        assert off(fit_refined(positive, negative), fit_logistic(positive, negative, tolerance=1e-10)) < 1e-7


class TestFallback:
    """States that float32 does not resolve."""

    def test_the_whole_fit_is_made_in_float64(self, monkeypatch: pytest.MonkeyPatch) -> None:
        units = torch.where(torch.arange(100) % 25 == 0, 1e4, 1.0)
        positive, negative = (states * units for states in sets(300, 300, 100))
        called, plain = [], refined_logistic.fit_wide

        def watched(rows: Tensor, *given: int, **options: float) -> LogisticFit:
            called.append(rows.dtype)
            return plain(rows, *given, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(refined_logistic, "fit_wide", watched)
        found = fit_refined(positive, negative)
        assert called == [torch.float32, torch.float64]
        assert off(found, fit_logistic(positive, negative, tolerance=1e-10)) < 1e-6

    def test_bad_input(self) -> None:
        positive, negative = sets(9, 9, 3)
        with pytest.raises(ContrastError, match="not finite"):
            fit_refined(positive / 0, negative)
        with pytest.raises(ContrastError, match="c: got -1"):
            fit_refined(positive, negative, c=-1.0)
        with pytest.raises(ContrastError, match="got 0 positive"):
            fit_refined(positive[:0], negative)


def narrow(rows: Tensor) -> Tensor:
    """The rows, which no fallback may have widened."""
    assert rows.dtype == torch.float32
    return rows
