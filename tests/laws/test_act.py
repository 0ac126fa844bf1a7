"""Activation transport: neurons arrive, the support holds, layer after layer, refusals, files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from steerlib.actuator import Site
from steerlib.errors import ContrastError, LawError
from steerlib.laws.act import LinearAcT, MeanAcT
from steerlib.laws.additive import DifferenceOfMeans
from steerlib.laws.base import Contrast
from steerlib.laws.mimic import MiMiC
from steerlib.laws.stack import Stack
from steerlib.plant import Plant
from steerlib.tasks.source import TaskSource
from steerlib.tasks.truth import Truth


def classes(n: int = 300, m: int = 300, *, seed: int = 0) -> Contrast:
    """Independent neurons, another mean and spread of each in either class."""
    noise = torch.randn(n + m, 4, generator=torch.Generator().manual_seed(seed))
    return Contrast(noise[:n] * torch.tensor([2.0, 0.5, 1.0, 4.0]) + torch.arange(4.0), noise[n:] - 1)


@pytest.fixture(scope="module")
def source() -> TaskSource:
    return TaskSource(Truth(Plant.load("almanac-llama-tiny")), Site(1), n=30)


class TestLines:
    """Without support."""

    @pytest.mark.parametrize("m", [300, 170])
    def test_means_arrive_and_spreads_nearly(self, m: int) -> None:
        contrast = classes(m=m)
        moved = LinearAcT(support="none").fit(contrast)(contrast.negative)
        torch.testing.assert_close(moved.mean(0), contrast.positive.mean(0), rtol=1e-4, atol=1e-4)
        # Sorted samples of two Gaussians correlate by less than one: the least squares slope falls short by that.
        torch.testing.assert_close(moved.std(0), contrast.positive.std(0), rtol=0.02, atol=0)
        assert (moved.std(0, correction=0) <= contrast.positive.std(0, correction=0) * (1 + 1e-5)).all()

    def test_no_correlation_is_carried_over(self) -> None:
        """What neuron-wise transport cannot do and Gaussian transport can."""
        contrast = classes()
        mixed = Contrast(
            contrast.positive @ torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
            contrast.negative,
        )
        wanted = torch.corrcoef(mixed.positive.T)[0, 1]
        lines, gaussian = LinearAcT(support="none").fit(mixed), MiMiC(gate="none").fit(mixed)
        assert wanted > 0.9
        assert abs(torch.corrcoef(lines(mixed.negative).T)[0, 1]) < 0.2
        assert torch.corrcoef(gaussian(mixed.negative).T)[0, 1] == pytest.approx(float(wanted), abs=0.02)

    def test_mean_act_is_the_difference_of_means(self) -> None:
        contrast = classes(m=100)
        torch.testing.assert_close(
            MeanAcT().fit(contrast)(contrast.negative), DifferenceOfMeans().fit(contrast)(contrast.negative)
        )

    def test_strength_interpolates(self) -> None:
        contrast = classes()
        law = LinearAcT().fit(contrast)
        whole = law(contrast.negative)
        part = law.at(0.3)(contrast.negative)
        torch.testing.assert_close(part, 0.7 * contrast.negative + 0.3 * whole)

    def test_truncated_matching_drops_rows(self) -> None:
        contrast = classes(n=200, m=300)
        cut = Contrast(contrast.positive, contrast.negative[:200])
        found = LinearAcT(matching="truncate", support="none").fit(contrast)
        same = LinearAcT(support="none").fit(cut)
        torch.testing.assert_close(found.stretch, same.stretch)
        assert not torch.allclose(found.stretch, LinearAcT(support="none").fit(contrast).stretch, atol=1e-3)


class TestSupport:
    """Which values are moved."""

    @pytest.mark.parametrize("kind", [LinearAcT, MeanAcT])
    def test_values_outside_of_the_sources_range_stay(self, kind: type[LinearAcT]) -> None:
        contrast = classes()
        law, free = kind(support="q_0_100").fit(contrast), kind(support="none").fit(contrast)
        low, high = contrast.negative.amin(0), contrast.negative.amax(0)
        assert torch.equal(law(contrast.negative), free(contrast.negative)), "the ends of the range belong to it"
        for outside in (low - 1e-3, high + 1e-3):
            assert torch.equal(law(outside), outside)
        one = torch.stack([high[0] + 1, *contrast.negative.mean(0)[1:]])
        assert torch.equal(law(one)[1:], free(one)[1:]) and law(one)[0] == one[0], "each neuron for itself"

    def test_inner_quantiles_move_their_share(self) -> None:
        contrast = classes(m=1000)
        law = LinearAcT(support="q_5_95").fit(contrast)
        moved = law.supported(contrast.negative).float().mean(0)
        torch.testing.assert_close(moved, torch.full((4,), 0.9), atol=2e-3, rtol=0)
        torch.testing.assert_close(law.low, torch.quantile(contrast.negative, 0.05, dim=0))

    @pytest.mark.parametrize("name", ["q_5", "q_95_5", "q_0_101", "Q_0_100", "", "q_5_5", 7])
    def test_unknown_names(self, name: str) -> None:
        with pytest.raises(LawError, match="expected 'none' or two rising percentages"):
            LinearAcT(support=name)


class TestFromPlants:
    """What is measured for it."""

    @pytest.mark.parametrize("kind", [LinearAcT, MeanAcT])
    def test_the_position_is_asked_of_the_source(self, kind: type[LinearAcT], source: TaskSource) -> None:
        for position in ("mean", "last"):
            (contrast,) = source.contrasts([source.site], position=position)
            found, wanted = kind(position=position).fit_from(source), kind().fit(contrast)
            torch.testing.assert_close(found.shift, wanted.shift)
            assert found.header == contrast.header
        pooled, last = (kind(position=position).fit_from(source) for position in ("mean", "last"))
        assert pooled.header is not None and last.header is not None
        assert pooled.header.data_hash != last.header.data_hash
        assert pooled.shift.norm() < 0.9 * last.shift.norm(), "classes differ most where the answer is decided"

    def test_layer_by_layer_each_is_fitted_under_the_earlier_ones(self, source: TaskSource) -> None:
        sites = [Site(1), Site(3)]
        stack = Stack.across(LinearAcT, sites, sequential=True).fit_from(source)
        first = LinearAcT().fit_from(TaskSource(source.task, sites[0], n=30))
        with source.plant.under(first, scope="all"):
            second = LinearAcT().fit_from(TaskSource(source.task, sites[1], n=30))
        for part, wanted in zip(stack, (first, second), strict=True):
            torch.testing.assert_close(part.shift, wanted.shift)
            torch.testing.assert_close(part.stretch, wanted.stretch)
        apart = Stack.across(LinearAcT, sites).fit_from(source)
        assert not torch.allclose(list(apart)[1].shift, second.shift, rtol=0.05), "what came before matters"


class TestLimits:
    """Bad input, precision, files."""

    def test_no_neuron_changes(self) -> None:
        positive = classes().positive
        for negative in (torch.ones(5, 4), torch.ones(1, 4)):
            with pytest.raises(ContrastError, match=r"no neuron changes among the \d negative states"):
                LinearAcT().fit(Contrast(positive, negative))
        law = MeanAcT().fit(Contrast(positive, torch.ones(1, 4)))
        torch.testing.assert_close(law(torch.ones(4)), positive.mean(0))

    def test_a_constant_neuron_is_shifted(self) -> None:
        contrast = classes()
        contrast.negative[:, 2] = 0.7
        law = LinearAcT(support="none").fit(contrast)
        assert law.stretch[2] == 0
        torch.testing.assert_close(law(torch.full((4,), 5.0))[2], 5 + contrast.positive[:, 2].mean() - 0.7)

    @pytest.mark.parametrize("kind", [LinearAcT, MeanAcT])
    def test_the_same_states_twice(self, kind: type[LinearAcT]) -> None:
        states = classes().positive + 100
        with pytest.raises(LawError, match="same values on every neuron"):
            kind().fit(Contrast(states, states.flip(0)))

    def test_unknown_options(self) -> None:
        with pytest.raises(LawError, match="expected 'mean' or 'last'"):
            MeanAcT(position="first")  # type: ignore[arg-type]
        with pytest.raises(LawError, match="expected 'quantile' or 'truncate'"):
            LinearAcT(matching="sorted")  # type: ignore[arg-type]

    def test_unfitted_and_other_widths(self) -> None:
        with pytest.raises(LawError, match="LinearAcT: is not fitted"):
            LinearAcT()(torch.zeros(1, 4))
        with pytest.raises(LawError, match="MeanAcT: holds a map of width 4; the state has width 5"):
            MeanAcT().fit(classes())(torch.zeros(1, 5))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        contrast = classes()
        law, states = LinearAcT(support="q_1_99").fit(contrast), contrast.negative.to(dtype)
        assert law(states).dtype == dtype
        torch.testing.assert_close(law(states).float(), law(states.float()), rtol=1e-2, atol=2e-2)
        assert torch.isfinite(law.at(1e30)(states)).all(), "clamped to the largest number of the type"

    @pytest.mark.parametrize("law", [LinearAcT(position="last", support="q_5_95", matching="truncate"), MeanAcT()])
    def test_files(self, law: LinearAcT, tmp_path: Path) -> None:
        contrast = classes()
        law.fit(contrast).at(0.6)
        again = type(law).load(law.save(tmp_path / "law.safetensors"))
        assert again.options() == law.options()
        assert torch.equal(again(contrast.negative), law(contrast.negative))
        assert torch.equal(again.fit(contrast).stretch, law.stretch)
