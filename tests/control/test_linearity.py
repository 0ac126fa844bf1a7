"""How far linear models hold, on functions whose error is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steerlib.control.linearity import (
    chance_similarity,
    leading,
    linear_errors,
    linear_radius,
    similarity,
)


def test_the_error_of_a_quadratic_is_linear_in_the_push() -> None:
    point = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    along = torch.tensor([[2.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
    jacobians = torch.diag_embed(2 * point)
    found = linear_errors(lambda z: z.square(), jacobians, point, along, [0.1, 0.4])
    torch.testing.assert_close(found, torch.tensor([[0.05, 0.05], [0.2, 0.2]], dtype=torch.float64))
    each = linear_errors(lambda z: z.square(), jacobians, point, along, torch.tensor([[0.1, 0.4]]).double())
    torch.testing.assert_close(each, torch.tensor([[0.05, 0.2]], dtype=torch.float64))


def test_the_radius_is_read_between_sizes_and_bounded_by_them() -> None:
    sizes = np.array([0.01, 0.1, 1.0])
    errors = np.array([[0.01, 0.3, 0.001], [0.1, 0.2, 0.002], [1.0, 0.1, 0.003]])
    assert linear_radius(errors, sizes) == pytest.approx([0.1, 0.01, 1.0])
    assert linear_radius(errors, sizes, level=0.02)[0] == pytest.approx(0.02)
    with pytest.raises(ValueError, match="got 2 for 3 errors"):
        linear_radius(errors, sizes[:2])
    with pytest.raises(ValueError, match="increasing"):
        linear_radius(errors, sizes[::-1])


def test_similarity_is_one_with_itself_and_zero_with_what_is_orthogonal() -> None:
    drawn = torch.Generator().manual_seed(0)
    matrix = torch.randn(20, 20, generator=drawn).double()
    turn = torch.linalg.qr(torch.randn(20, 20, generator=drawn).double()).Q
    assert similarity(matrix, matrix, 4) == pytest.approx(1)
    assert similarity(matrix, 3 * matrix @ turn, 4) == pytest.approx(1)  # what goes in may be turned
    assert similarity(matrix, turn @ matrix, 4) < 0.9
    apart = torch.zeros(20, 20).double(), torch.zeros(20, 20).double()
    apart[0][:5, :5], apart[1][5:10, :5] = torch.eye(5), torch.eye(5)
    assert similarity(*apart, 5) == pytest.approx(0)
    half = torch.diag(torch.tensor([2.0, 1, 0, 0])).double(), torch.diag(torch.tensor([0, 1.0, 2, 0])).double()
    assert similarity(*half, 2) == pytest.approx(1 / 5)  # one shared direction: 1 x 1 over sqrt(5) sqrt(5)


def test_chance_is_what_random_matrices_have() -> None:
    drawn = torch.Generator().manual_seed(1)
    pairs = [
        (torch.randn(40, 40, generator=drawn).double(), torch.randn(40, 40, generator=drawn).double())
        for _ in range(60)
    ]
    measured = np.mean([similarity(a, b, 4) for a, b in pairs])
    expected = chance_similarity(leading(pairs[0][0], 4), leading(pairs[0][1], 4), seed=2, draws=40)
    assert measured == pytest.approx(expected.mean(), abs=0.02) and expected.mean() > 0.15


def test_bad_input_is_refused() -> None:
    point = torch.ones(1, 2)
    with pytest.raises(ValueError, match="length zero"):
        linear_errors(lambda z: z, torch.eye(2)[None], point, torch.zeros(1, 2), [1.0])
    with pytest.raises(ValueError, match="not positive"):
        linear_errors(lambda z: z, torch.eye(2)[None], point, point, [0.0])
    with pytest.raises(ValueError, match="rank: got 3, expected 1 to 2"):
        similarity(torch.eye(2), torch.eye(2), 3)
