"""Maps as geometric means, by symmetric inverses: known answers, the eigendecomposition, units, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor

from steerlib.control import geometric
from steerlib.control.geometric import geometric_map, positive_inverse
from steerlib.control.transport import bures_map
from tests.control.test_polar import miss, turned
from tests.control.test_transport import SEEDS, draw

CLOSE = 4e-4


def pair(width: int, *, decades: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two covariances whose variances span some powers of ten, along directions of their own."""
    sizes = torch.logspace(0, -decades, width).double()
    return turned(sizes, seed=seed), turned(sizes, seed=seed + 1)


class TestInverse:
    """By halves."""

    @settings(max_examples=20, deadline=None)
    @given(seed=SEEDS, width=st.integers(1, 40), block=st.sampled_from([1, 2, 5, 16]))
    def test_it_is_that_of_scipy(self, seed: int, width: int, block: int) -> None:
        rows = draw(2 * width + 3, width, seed=seed)
        matrix = rows.T @ rows
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(geometric, "_BLOCK", block)
            found = positive_inverse(matrix)
        assert found is not None
        wanted = torch.from_numpy(linalg.inv(matrix.numpy()))
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.norm()))

    @pytest.mark.parametrize("where", [0, 3, 7])
    def test_a_matrix_that_is_not_positive_has_none(self, where: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(geometric, "_BLOCK", 2)
        matrix = torch.eye(8)
        matrix[where, where] = -1
        assert positive_inverse(matrix) is None
        assert positive_inverse(matrix * math.nan) is None


class TestMap:
    """The map itself."""

    def test_diagonal_covariances_by_hand(self) -> None:
        source, target = (torch.diag(torch.tensor(sizes)).double() for sizes in ([4.0, 1.0, 9.0], [1.0, 4.0, 9.0]))
        found = geometric_map(source, target, close=1e-12, most=1.0)
        torch.testing.assert_close(found, torch.diag(torch.tensor([0.5, 2.0, 1.0])).double())

    @pytest.mark.parametrize("same", [torch.eye(5), 4 * torch.eye(5), torch.eye(1)])
    def test_equal_covariances_are_left_alone(self, same: Tensor) -> None:
        torch.testing.assert_close(geometric_map(same, same, close=CLOSE, most=1.0), torch.eye(len(same)))

    @pytest.mark.parametrize("width", [1, 7, 90])
    @pytest.mark.parametrize("decades", [0.5, 2.0, 5.0])
    def test_it_is_the_eigendecompositions_in_float64(self, width: int, decades: float) -> None:
        source, target = pair(width, decades=decades)
        found = geometric_map(source, target, close=1e-10, most=1.0)
        assert found is not None and torch.linalg.eigvalsh(found).min() > 0
        torch.testing.assert_close(found, bures_map(source, target), rtol=1e-6, atol=1e-6)
        assert miss(found, source, target) < 1e-8

    @pytest.mark.parametrize("decades", [0.5, 2.0, 3.0])
    def test_float32_hits_every_variance(self, decades: float) -> None:
        source, target = pair(90, decades=decades)
        found = geometric_map(source.float(), target.float(), close=CLOSE, most=3e-5)
        assert found is not None and found.dtype == torch.float32
        assert miss(found.double(), source, target) < 2.5 * CLOSE  # twice what is left of X, and rounding

    def test_coordinates_of_any_size_cost_it_nothing(self) -> None:
        """A condition of 10^8 that is one of units: the eigendecomposition in float64 misses variances by a tenth."""
        source, target = pair(60, decades=1.0)
        size = torch.where(torch.arange(60) % 20 == 0, 1e4, 1.0).double()
        large, larger = (size * matrix * size[:, None] for matrix in (source, target))
        found = geometric_map(large.float(), larger.float(), close=CLOSE, most=3e-5)
        assert found is not None
        away = found.double() @ large @ found.double() - larger
        assert (away / larger.diagonal().outer(larger.diagonal()).sqrt()).abs().max() < 2.5 * CLOSE
        assert torch.linalg.cond(large) > 1e8

    @pytest.mark.parametrize("close", [1e-1, 1e-4, 1e-8])
    def test_it_ends_as_near_as_it_is_asked_and_no_nearer(self, close: float, monkeypatch: pytest.MonkeyPatch) -> None:
        source, target = pair(40, decades=2.0)
        count, plain = 0, geometric.positive_inverse

        def counted(matrix: Tensor) -> Tensor | None:
            nonlocal count
            count += 1
            return plain(matrix)

        monkeypatch.setattr(geometric, "positive_inverse", counted)
        found = geometric_map(source, target, close=close, most=1.0)
        assert found is not None
        assert miss(found, source, target) <= 2 * close + close**2 + 1e-12
        # Whether a step is the last is seen before it: its second inverse is saved, and so are all after it.
        assert count == {1e-1: 5, 1e-4: 7, 1e-8: 9}[close]


class TestRefusals:
    """Where there is no map, or no precision for it."""

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_singular_covariance(self, which: int) -> None:
        both = [torch.eye(3), torch.eye(3)]
        both[which] = torch.diag(torch.tensor([1.0, 0.0, 1.0]))
        assert geometric_map(both[0], both[1], close=CLOSE, most=1.0) is None

    def test_coordinates_that_others_explain(self) -> None:
        """Correlation r leaves 1 - r^2 of a variance unexplained."""
        matrix = torch.tensor([[1.0, 0.999], [0.999, 1.0]]).double()
        share = torch.finfo(torch.float64).eps / (1 - 0.999**2)
        assert geometric_map(matrix, torch.eye(2).double(), close=CLOSE, most=0.99 * share) is None
        assert geometric_map(torch.eye(2).double(), matrix, close=CLOSE, most=0.99 * share) is None
        assert geometric_map(matrix, torch.eye(2).double(), close=CLOSE, most=1.01 * share) is not None

    def test_an_iteration_that_does_not_settle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(geometric, "_STEPS", 2)
        assert geometric_map(*pair(9, decades=2.0), close=1e-12, most=1.0) is None
