"""Low-rank Jacobians and reduced systems, against matrices whose rank is known."""

from __future__ import annotations

import pytest
import torch

from steerlib.control.lowrank import LowRank, low_rank, products, reduced


def _of_rank(width: int, values: torch.Tensor, seed: int) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    q = [torch.linalg.qr(torch.randn(width, width, generator=drawn, dtype=torch.float64)).Q for _ in range(2)]
    return q[0][:, : len(values)] * values @ q[1][:, : len(values)].T


def _find(added: torch.Tensor, **options: int) -> LowRank:
    whole = torch.eye(len(added), dtype=added.dtype) + added
    return low_rank(lambda v: v @ whole.T, lambda v: v @ whole, width=len(added), seed=3, like=added, **options)


def test_a_matrix_of_that_rank_is_found_whole() -> None:
    added = _of_rank(30, torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64), 0)
    found = _find(added, rank=3)
    torch.testing.assert_close(found.dense(), torch.eye(30, dtype=torch.float64) + added)
    assert found.error < 1e-12
    vectors = torch.randn(5, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(found.times(vectors), vectors @ found.dense().T)


def test_what_is_left_out_is_what_the_singular_values_say() -> None:
    values = torch.logspace(0, -2, 20, dtype=torch.float64)
    added = _of_rank(40, values, 1)
    found = _find(added, rank=6, powers=2, probes=4000)
    best = float(values[6:].norm() / values.norm())
    true = float((found.dense() - torch.eye(40) - added).norm() / added.norm())
    assert best <= true < 1.01 * best
    assert found.error == pytest.approx(true, rel=0.05)
    assert _find(added, rank=6, powers=0, oversampling=0).error > 1.05 * true  # passes to and fro are what does it


def test_products_are_those_of_the_jacobian() -> None:
    drawn = torch.Generator().manual_seed(5)
    weights, point = torch.randn(6, 6, generator=drawn).double(), torch.randn(1, 6, generator=drawn).double()
    onwards, backwards = products(lambda z: z + torch.tanh(z @ weights.T), point)
    jacobian = torch.eye(6) + torch.diag(1 - torch.tanh(point @ weights.T)[0] ** 2) @ weights
    vectors = torch.randn(4, 6, generator=drawn).double()
    torch.testing.assert_close(onwards(vectors), vectors @ jacobian.T)
    torch.testing.assert_close(backwards(vectors), vectors @ jacobian)


def test_a_reduced_system_that_keeps_all_that_is_reached_is_exact() -> None:
    drawn = torch.Generator().manual_seed(7)
    steps = [torch.randn(12, 12, generator=drawn).double() for _ in range(3)]
    inputs = [torch.randn(12, 1, generator=drawn).double() for _ in range(4)]
    small = reduced(steps, inputs, rank=4)
    assert [basis.shape[1] for basis in small.bases] == [1, 2, 3, 4] and max(small.errors) < 1e-12
    full, coordinates = inputs[0], small.bases[0].T @ inputs[0]
    for k, step in enumerate(steps):
        full = step @ full + inputs[k + 1]
        coordinates = small.maps[k] @ coordinates + small.bases[k + 1].T @ inputs[k + 1]
    torch.testing.assert_close(small.bases[-1] @ coordinates, full)
    assert max(reduced(steps, inputs, rank=2).errors) > 1e-3


def test_bad_input_is_refused() -> None:
    added = torch.zeros(4, 4)
    with pytest.raises(ValueError, match="rank: got 5, expected 1 to 4"):
        _find(added, rank=5)
    with pytest.raises(ValueError, match="probes=0"):
        _find(added, rank=1, probes=0)
    with pytest.raises(ValueError, match="1 Jacobians and 1 inputs"):
        reduced([added], [added], rank=1)
    with pytest.raises(ValueError, match="from which nothing is reached"):
        reduced([added], [added, added], rank=1)
    with pytest.raises(ValueError, match="rank: got 0"):
        reduced([added], [added + 1, added], rank=0)
