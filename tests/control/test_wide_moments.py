"""Moments of large sets: those of float64 to float32's rounding, whatever the offset and the units."""

from __future__ import annotations

import pytest
import torch

from steerlib.control import wide_moments as module
from steerlib.control.transport import moments
from steerlib.control.wide_moments import wide_moments
from steerlib.errors import ContrastError
from tests.control.test_transport import draw


class TestMoments:
    """Against those in float64."""

    @pytest.mark.parametrize("width", [1, 5, 24])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    @pytest.mark.parametrize(("offset", "size"), [(0.0, 1.0), (1e4, 1.0), (3.0, 1e-6), (0.0, 1e6)])
    def test_they_agree(
        self, width: int, dtype: torch.dtype, offset: float, size: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_BLOCK", 7)
        units = size * torch.logspace(0, 3, width).double()
        states = (draw(90, width, seed=3) @ draw(width, width, seed=4) * units + offset).to(dtype)
        mean, covariance = moments(states)
        found, narrow = wide_moments(states)
        torch.testing.assert_close(found, mean, rtol=1e-12, atol=1e-12)
        assert found.dtype == torch.float64 and narrow.dtype == torch.float32
        assert torch.equal(narrow, narrow.T)
        spread = covariance.diagonal().clamp(min=1e-300).sqrt()
        assert ((narrow.double() - covariance).abs() / spread.outer(spread)).max() < 2e-6

    def test_constant_coordinates_have_no_variance(self) -> None:
        states = draw(20, 3, seed=1)
        states[:, 1] = 0.1
        assert not wide_moments(states.float())[1][1].any()

    @pytest.mark.parametrize("size", [1e-20, 1e20])
    def test_what_float32_cannot_square_is_left_to_float64(self, size: float) -> None:
        states = draw(20, 3, seed=1)
        states[:, 0] *= size
        torch.testing.assert_close(wide_moments(states)[1], moments(states)[1].float())

    def test_bad_input(self) -> None:
        with pytest.raises(ContrastError, match="expected two or more"):
            wide_moments(torch.zeros(1, 3))
        for bad in (torch.nan, torch.inf):
            with pytest.raises(ContrastError, match="not finite"):
                wide_moments(torch.tensor([[0.0, 1.0], [bad, 2.0], [1.0, 1.0]]))
