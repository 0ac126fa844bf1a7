"""Leading directions agree with a full decomposition and do not depend on the solver."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlib.control.spectra import SMALL, leading_axes


def rows(n: int, width: int) -> Tensor:
    noise = torch.randn(n, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return noise * torch.linspace(4.0, 0.1, width, dtype=torch.float64) + 3.0


@pytest.mark.parametrize(("n", "width"), [(12, 40), (SMALL + 60, SMALL + 40), (3 * SMALL, 2 * SMALL)])
def test_against_the_full_decomposition(n: int, width: int) -> None:
    table = rows(n, width)
    found = leading_axes(table, 5)
    full = torch.linalg.svd(table, full_matrices=False).Vh[:5]
    torch.testing.assert_close((found @ full.T).abs(), torch.eye(5, dtype=torch.float64), atol=1e-8, rtol=0)
    assert (found.gather(1, found.abs().argmax(1, keepdim=True)) > 0).all()
    assert torch.equal(found, leading_axes(table, 5))


def test_rank_decides_how_many() -> None:
    direction = torch.arange(1.0, 7.0)
    table = torch.outer(torch.linspace(1.0, 2.0, 9), direction)
    torch.testing.assert_close(leading_axes(table, 4), (direction / direction.norm()).double()[None], atol=1e-6, rtol=0)
    assert leading_axes(torch.zeros(3, 6), 2).shape == (0, 6)
