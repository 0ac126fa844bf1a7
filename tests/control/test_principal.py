"""The first principal direction: by hand, by eigenvectors, and the same by both roads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerlib.control import principal
from steerlib.control.principal import first_direction
from steerlib.errors import ContrastError


def cloud(n: int, width: int, *, mean: float = 0.0, seed: int = 0) -> Tensor:
    """Normal rows whose spread falls from coordinate to coordinate, turned by a reflection."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, width, generator=generator, dtype=torch.float64) * torch.linspace(3, 0.1, width)
    normal = torch.nn.functional.normalize(torch.randn(width, generator=generator, dtype=torch.float64), dim=0)
    return rows - 2 * (rows @ normal)[:, None] * normal + mean


def test_by_hand() -> None:
    rows = torch.tensor([[10.0, 1.0], [10.0, -1.0], [10.0, 2.0], [10.0, -2.0]])
    torch.testing.assert_close(first_direction(rows, centred=True), torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(first_direction(rows, centred=False), torch.tensor([1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize(
    ("n", "width", "centred", "lanczos"),
    [
        *((n, width, centred, lanczos) for n, width in ((40, 12), (5, 30)) for centred in (0, 1) for lanczos in (0, 1)),
        (1, 4, False, False),
        (1, 4, False, True),
        (7, 1, False, False),
        (7, 1, True, False),
    ],
)
def test_it_is_the_first_eigenvector(
    n: int, width: int, centred: bool, lanczos: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal, "_SMALL", 0 if lanczos else 300)
    rows = cloud(n, width, mean=0.7)
    about = rows - rows.mean(0) if centred else rows
    wanted = torch.linalg.eigh(about.T @ about).eigenvectors[:, -1]
    found = first_direction(rows, centred=bool(centred))
    torch.testing.assert_close(found, wanted * torch.sign(wanted[wanted.abs().argmax()]), atol=1e-7, rtol=1e-6)
    assert float(found.norm()) == pytest.approx(1.0)


def test_the_sign_says_nothing_about_the_rows() -> None:
    rows = cloud(30, 6, mean=1.0)
    assert torch.equal(first_direction(rows, centred=False), first_direction(-rows, centred=False))
    found = first_direction(rows, centred=True)
    assert found[found.abs().argmax()] > 0


def test_rows_that_do_not_spread_have_none() -> None:
    same = torch.full((5, 3), 0.1)
    assert torch.equal(first_direction(same, centred=True), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(first_direction(torch.zeros(2, 3), centred=False), torch.zeros(3, dtype=torch.float64))


def test_refused() -> None:
    for bad in (torch.empty(0, 3), torch.ones(3), torch.tensor([[1.0, torch.nan]])):
        with pytest.raises(ContrastError, match="expected finite vectors"):
            first_direction(bad, centred=False)
