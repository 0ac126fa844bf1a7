"""Polar factors and the maps made of them: scipy's factor, known answers, the eigendecomposition, when it steps in."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from torch import Tensor

from steerlib.control import polar, transport
from steerlib.control.polar import gaussian_map, polar_factor, polar_map
from steerlib.control.transport import bures_map, moments
from steerlib.errors import ContrastError
from tests.control.test_transport import SEEDS, draw, textbook


def covariances(width: int, *, seed: int = 0, reg: float = 1e-2) -> list[Tensor]:
    """Two regularised covariances of correlated states."""
    sets = (draw(2 * width + 9 + k, width, seed=seed + k) / width**0.5 for k in (0, 1))
    return [moments(states)[1] + reg * torch.eye(width) for states in sets]


def turned(sizes: Tensor, *, seed: int) -> Tensor:
    """A covariance with given eigenvalues."""
    basis = torch.linalg.qr(draw(len(sizes), len(sizes), seed=seed))[0]
    return (basis * sizes) @ basis.T


def miss(found: Tensor, source: Tensor, target: Tensor) -> float:
    """Largest relative error of the variance in any direction, by eigenvalues of A S A against T."""
    whole = torch.linalg.solve_triangular(torch.linalg.cholesky(target), found, upper=False)
    return float((torch.linalg.eigvalsh(whole @ source @ whole.T) - 1).abs().max())


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix counts as large, so that float32 is used."""
    monkeypatch.setattr(polar, "_LARGE", 0)


class TestFactor:
    """The orthogonal factor."""

    @settings(max_examples=20, deadline=None)
    @given(seed=SEEDS, width=st.integers(1, 12))
    def test_it_is_that_of_scipy(self, seed: int, width: int) -> None:
        matrix = draw(width, width, seed=seed)
        found, wanted = polar_factor(matrix), torch.from_numpy(linalg.polar(matrix.numpy())[0])
        assert found is not None
        torch.testing.assert_close(found @ found.T, torch.eye(width).double(), rtol=0, atol=1e-12)
        nearness = 1e-13 * float(torch.linalg.cond(matrix)) + 1e-12
        torch.testing.assert_close(found, wanted, rtol=0, atol=nearness)

    def test_singular_values_of_any_size_go_to_one(self) -> None:
        left, right = (torch.linalg.qr(draw(30, 30, seed=seed))[0] for seed in (1, 2))
        for smallest in (1.0, 1e-3, 1e-6, 1e-9):
            sizes = 1e5 * torch.logspace(0, 1, 30).double() ** torch.tensor(smallest).log10()
            found = polar_factor(left * sizes @ right.T)
            assert found is not None
            torch.testing.assert_close(found, left @ right.T, rtol=0, atol=1e-14 / smallest + 1e-12)

    @pytest.mark.parametrize("bad", [torch.zeros(3, 3), torch.diag(torch.tensor([1.0, 0, 1])), torch.eye(3) / 0])
    def test_a_matrix_without_one_has_none(self, bad: Tensor) -> None:
        assert polar_factor(bad.double()) is None

    def test_a_precision_that_will_not_do_is_refused_at_once(self) -> None:
        matrix = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-4]))
        # Norms 3^1/2 and 10^4, width 4: 10^-7 makes an error of 10^-3.
        assert polar_factor(matrix, most=0.9e-3) is None
        assert polar_factor(matrix, most=1.2e-3) is not None
        assert polar_factor(matrix.double(), most=1e-10) is not None


class TestMap:
    """The map between covariances."""

    def test_diagonal_covariances_by_hand(self) -> None:
        source, target = (torch.diag(torch.tensor(sizes)).double() for sizes in ([4.0, 1.0, 9.0], [1.0, 4.0, 9.0]))
        torch.testing.assert_close(polar_map(source, target), torch.diag(torch.tensor([0.5, 2.0, 1.0])).double())

    @pytest.mark.parametrize("width", [1, 3, 17, 60, 200])
    def test_it_is_the_textbook_form_symmetric_positive_and_exact(
        self, width: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, target = covariances(width)
        by_eigenvalues = bures_map(source, target)
        monkeypatch.setattr(polar, "bures_map", None)  # which it does without
        found = polar_map(source, target)
        assert torch.equal(found, found.T) and found.dtype == torch.float64
        assert torch.linalg.eigvalsh(found).min() > 0
        torch.testing.assert_close(found @ source @ found, target, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found, by_eigenvalues, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(found, textbook(source, target), rtol=1e-6, atol=1e-7)

    def test_a_bad_condition_costs_it_less_than_the_eigendecomposition(self) -> None:
        sizes = torch.logspace(3, -6, 40).double()
        source, target = turned(sizes, seed=1), turned(sizes, seed=2)
        found = polar_map(source, target)
        assert torch.linalg.eigvalsh(found).min() > 0
        assert miss(found, source, target) < 1e-5 < 1e-2 < miss(bures_map(source, target), source, target)

    def test_float32_is_enough_for_a_fair_condition(self, narrow: None, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG002
        source, target = (turned(torch.logspace(0, -2, 50).double(), seed=seed) for seed in (1, 2))
        wanted = bures_map(source, target)
        monkeypatch.setattr(polar, "bures_map", None)
        found = polar_map(source, target)
        assert torch.equal(found, found.T) and found.dtype == torch.float64
        assert 1e-8 < float((found - wanted).norm() / wanted.norm()) < 1e-5, "near, and of float32"
        assert miss(found, source, target) < polar._MISS


class TestFallback:
    """When the eigendecomposition steps in."""

    def test_a_singular_target(self) -> None:
        flat = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
        torch.testing.assert_close(polar_map(torch.eye(2).double(), flat), flat)

    def test_a_singular_source_is_refused(self) -> None:
        with pytest.raises(ContrastError, match=r"not positive definite.*reg > 0"):
            polar_map(torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64)), torch.eye(2).double())

    @pytest.mark.parametrize("most", [polar._ENTANGLED, 1.0])
    def test_a_condition_that_float32_cannot_hold(
        self,
        most: float,
        narrow: None,  # noqa: ARG002
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Refused at once; and if it were not, found out when the map is tried."""
        monkeypatch.setattr(polar, "_ENTANGLED", most)
        source, target = (turned(torch.logspace(3, -3, 20).double(), seed=seed) for seed in (1, 2))
        assert torch.equal(polar_map(source, target), bures_map(source, target))

    def test_a_map_in_float32_that_is_not_the_right_one_is_found_out(
        self,
        narrow: None,  # noqa: ARG002
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        source, target = covariances(6)
        good = polar_map(source, target)
        monkeypatch.setattr(polar, "geometric_map", lambda *_, **__: (1.002 * good).float())
        assert torch.equal(polar_map(source, target), bures_map(source, target))
        monkeypatch.setattr(polar, "geometric_map", lambda *_, **__: (1.0002 * good).float())
        assert not torch.equal(polar_map(source, target), bures_map(source, target))

    def test_an_iteration_that_does_not_settle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        source, target = covariances(6)
        monkeypatch.setattr(polar, "_STEPS", 1)
        assert torch.equal(polar_map(source, target), bures_map(source, target))

    @pytest.mark.parametrize("angle", [2e-3, 3.0])
    def test_a_factor_that_is_not_the_right_one_is_found_out(
        self, angle: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, target = covariances(6)
        away = torch.linalg.matrix_exp(angle * (draw(6, 6, seed=3) - draw(6, 6, seed=3).T))

        def wrong(matrix: Tensor, *, most: float) -> Tensor:
            found = polar_factor(matrix, most=most)
            assert found is not None
            return found @ away

        monkeypatch.setattr(polar, "polar_factor", wrong)
        assert torch.equal(polar_map(source, target), bures_map(source, target))


class TestGaussianMap:
    """The map between two sets."""

    @pytest.mark.parametrize("scale", ["absolute", "relative"])
    @pytest.mark.parametrize(("n", "m"), [(90, 70), (9, 30), (30, 3)])
    def test_it_is_that_of_transport(self, n: int, m: int, scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also where one set or both do not span the space, so that only reg makes their covariance regular."""
        source, target = draw(n, 24, seed=1, shift=2.0), draw(m, 24, seed=2, shift=3.0)
        wanted = transport.gaussian_map(source, target, reg=0.1, scale=scale)  # type: ignore[arg-type]
        monkeypatch.setattr(transport, "gaussian_map", None)
        found = gaussian_map(source, target, reg=0.1, scale=scale)  # type: ignore[arg-type]
        torch.testing.assert_close(found.matrix, wanted.matrix, rtol=1e-7, atol=1e-7)
        assert torch.equal(found.source, wanted.source) and torch.equal(found.target, wanted.target)

    @pytest.mark.parametrize("scale", ["absolute", "relative"])
    @pytest.mark.parametrize("outlier", [1.0, 1e3])
    def test_large_sets_agree_to_float32s_rounding(
        self,
        scale: str,
        outlier: float,
        narrow: None,  # noqa: ARG002
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Also with a coordinate a thousand times as large as others, as states of language models have."""
        source, target = draw(90, 24, seed=1, shift=2.0).float(), draw(70, 24, seed=2, shift=3.0).float()
        source[:, 5] *= outlier
        target[:, 5] *= outlier
        wanted = transport.gaussian_map(source, target, reg=0.1, scale=scale)  # type: ignore[arg-type]
        monkeypatch.setattr(polar, "bures_map", None)
        found = gaussian_map(source, target, reg=0.1, scale=scale)  # type: ignore[arg-type]
        assert found.matrix.dtype == torch.float64 and torch.equal(found.matrix, found.matrix.T)
        assert (found.matrix - wanted.matrix).norm() < 2e-3 * wanted.matrix.norm()
        torch.testing.assert_close(found.target, wanted.target)

    def test_without_reg_the_moments_arrive(self) -> None:
        source, target = draw(90, 6, seed=1), draw(70, 6, seed=2, shift=3.0)
        moved = gaussian_map(source, target, reg=0.0)(source)
        for found, wanted in zip(moments(moved), moments(target), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)

    def test_few_states_are_mapped_in_their_own_span(self) -> None:
        source, target = draw(9, 30, seed=5), draw(12, 30, seed=6, shift=1.0)
        assert torch.equal(gaussian_map(source, target).matrix, transport.gaussian_map(source, target).matrix)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_states_of_lower_precision_are_taken_at_their_word(self, dtype: torch.dtype) -> None:
        source, target = draw(50, 8, seed=1).to(dtype), draw(40, 8, seed=2, shift=1.0).to(dtype)
        found, wanted = gaussian_map(source, target), gaussian_map(source.double(), target.double())
        assert found.matrix.dtype == torch.float64
        assert torch.equal(found.matrix, wanted.matrix) and torch.equal(found.source, wanted.source)

    def test_bad_input(self) -> None:
        some = draw(10, 3, seed=0)
        with pytest.raises(ContrastError, match=r"got shape \(1, 3\), expected two or more"):
            gaussian_map(some, some[:1])
        with pytest.raises(ContrastError, match="all the same"):
            gaussian_map(torch.ones(5, 3), some)
        with pytest.raises(ContrastError, match="got widths 3 and 2"):
            gaussian_map(some, some[:, :2])
        with pytest.raises(ContrastError, match=r"fewer examples than coordinates.*reg > 0"):
            gaussian_map(some[:2], some, reg=0.0)
        with pytest.raises(ContrastError, match="not finite"):
            gaussian_map(some / 0, some)
        for reg in (-1.0, float("nan"), float("inf")):
            with pytest.raises(ContrastError, match="reg: got"):
                gaussian_map(some, some + 1, reg=reg)
        with pytest.raises(ContrastError, match="expected 'absolute' or 'relative'"):
            gaussian_map(some, some + 1, scale="big")  # type: ignore[arg-type]
