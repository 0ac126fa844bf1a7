"""Constant pushes: the right vector, the contract, files and refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from steerlib.errors import ContrastError, LawError
from steerlib.laws.additive import Additive, DifferenceOfMeans, RandomDirection, shuffled
from steerlib.laws.base import Contrast, LawHeader
from steerlib.recorder import record
from tests.families import WIDTH, plant, words

POSITIVE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
NEGATIVE = torch.tensor([[0.0, 1.0], [0.0, 1.0], [3.0, 4.0]])
HEADER = LawHeader(
    layer=1,
    point="resid_post",
    scope="generated",
    plant="toy",
    weight_hash="ab" * 32,
    width=2,
    data_hash="cd" * 32,
    seed=3,
)
TEXTS = [words(5, 9, 30), words(60, 3)]


def gaussians(n: int, gap: Tensor, *, seed: int = 0) -> Contrast:
    """Two classes of standard normal states, `gap` apart."""
    noise = torch.randn(2, n, len(gap), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Contrast(noise[0] + gap, noise[1])


class TestDifferenceOfMeans:
    """The vector itself."""

    def test_by_hand(self) -> None:
        law = DifferenceOfMeans().fit(Contrast(POSITIVE, NEGATIVE))
        torch.testing.assert_close(law.vector, torch.tensor([2.0 - 1.0, 3.0 - 2.0]))

    def test_it_moves_one_mean_onto_the_other(self) -> None:
        law = DifferenceOfMeans().fit(Contrast(POSITIVE, NEGATIVE))
        torch.testing.assert_close(law(NEGATIVE).mean(0), POSITIVE.mean(0))

    def test_it_finds_the_gap_between_gaussians(self) -> None:
        gap = torch.linspace(-1, 1, 16, dtype=torch.float64)
        law = DifferenceOfMeans().fit(gaussians(20_000, gap))
        # Each coordinate has variance 2 / n; six standard errors.
        assert (law.vector - gap).abs().max() < 6 * (2 / 20_000) ** 0.5

    def test_it_is_the_gradient_of_the_gaussian_log_density_ratio(self) -> None:
        law = DifferenceOfMeans().fit(Contrast(POSITIVE, NEGATIVE))
        state = torch.tensor([0.3, -1.2], requires_grad=True)

        def log_density(mean: Tensor) -> Tensor:
            return torch.distributions.MultivariateNormal(mean, torch.eye(2)).log_prob(state)

        (log_density(POSITIVE.mean(0)) - log_density(NEGATIVE.mean(0))).backward()
        torch.testing.assert_close(law.vector, state.grad)

    def test_unit_scale_makes_strength_a_length(self) -> None:
        law = DifferenceOfMeans(scale="unit", strength=2.5).fit(Contrast(POSITIVE, NEGATIVE))
        torch.testing.assert_close((law(NEGATIVE) - NEGATIVE).norm(dim=1), torch.full((3,), 2.5))

    @settings(max_examples=40, deadline=None)
    @given(shift=st.floats(-50, 50), scale=st.floats(0.01, 50))
    def test_it_moves_with_its_data(self, shift: float, scale: float) -> None:
        base = DifferenceOfMeans().fit(Contrast(POSITIVE, NEGATIVE)).vector
        moved = DifferenceOfMeans().fit(Contrast(POSITIVE * scale + shift, NEGATIVE * scale + shift)).vector
        torch.testing.assert_close(moved, base * scale, rtol=1e-3, atol=1e-3)

    def test_large_offsets_do_not_eat_the_difference(self) -> None:
        offset = 3000.0
        contrast = Contrast((POSITIVE + offset).repeat(50_000, 1), (NEGATIVE + offset).repeat(50_000, 1))
        torch.testing.assert_close(DifferenceOfMeans().fit(contrast).vector, torch.ones(2), atol=1e-3, rtol=0)


class TestControls:
    """Negative controls must be comparable and empty."""

    def test_random_directions_have_the_norm_and_no_preference(self) -> None:
        contrast = gaussians(500, torch.ones(64, dtype=torch.float64))
        law = DifferenceOfMeans().fit(contrast)
        draws = torch.stack([RandomDirection(seed=s).fit(contrast).vector for s in range(200)])
        torch.testing.assert_close(draws.norm(dim=1), law.vector.norm().expand(200), rtol=1e-5, atol=0)
        cosines = torch.cosine_similarity(draws, law.vector[None])
        assert cosines.abs().max() < 0.6
        assert abs(float(cosines.mean())) < 4 / (64 * 200) ** 0.5
        assert torch.equal(draws[3], RandomDirection(seed=3).fit(contrast).vector)

    def test_a_control_of_no_length_is_refused(self) -> None:
        same = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
        with pytest.raises(LawError, match="difference of means: got norm 0.0.*the same states"):
            RandomDirection().fit(Contrast(same, same.clone()))

    @pytest.mark.parametrize("strength", [float("nan"), float("inf"), 1e39, "2", None])
    def test_a_strength_that_is_no_number_is_refused_at_once(self, strength: Any) -> None:
        for make in (lambda: DifferenceOfMeans(strength=strength), lambda: Additive().at(strength)):
            with pytest.raises(LawError, match="strength: got .*, expected a finite number"):
                make()

    def test_shuffling_keeps_the_states_and_loses_the_difference(self) -> None:
        contrast = gaussians(2000, torch.full((8,), 2.0, dtype=torch.float64))
        mixed = shuffled(contrast, seed=1)
        both, kept = (torch.cat(tuple(c)).sort(dim=0).values for c in (contrast, mixed))
        assert torch.equal(both, kept)
        ratio = DifferenceOfMeans().fit(mixed).vector.norm() / DifferenceOfMeans().fit(contrast).vector.norm()
        assert ratio < 0.1
        assert not torch.equal(mixed.positive, shuffled(contrast, seed=2).positive)


class TestContract:
    """What every law must do."""

    def test_zero_strength_returns_the_same_bits(self) -> None:
        state = torch.tensor([[-0.0, 0.0, torch.inf, 1e-40]])
        law = Additive(torch.tensor([torch.inf, 1.0, 1.0, 1.0])).at(0.0)
        assert torch.equal(law(state).view(torch.int32), state.view(torch.int32))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_the_state_keeps_its_dtype(self, dtype: torch.dtype) -> None:
        law = DifferenceOfMeans().fit(Contrast(POSITIVE, NEGATIVE))
        assert law(NEGATIVE.to(dtype)).dtype == dtype

    def test_strength_must_be_a_number(self) -> None:
        for bad in (float("nan"), float("inf"), "strong"):
            with pytest.raises(LawError, match="expected a finite number"):
                Additive(torch.ones(2)).at(bad)  # type: ignore[arg-type]

    def test_an_unfitted_law_says_so(self) -> None:
        with pytest.raises(LawError, match="not fitted"):
            DifferenceOfMeans()(POSITIVE)

    def test_another_width_is_refused(self) -> None:
        with pytest.raises(LawError, match="width 2; the state has width 5"):
            DifferenceOfMeans().fit(Contrast(POSITIVE, NEGATIVE))(torch.zeros(1, 5))

    def test_unknown_scale(self) -> None:
        with pytest.raises(LawError, match="expected 'raw' or 'unit'"):
            DifferenceOfMeans(scale="big")  # type: ignore[arg-type]


class TestContrasts:
    """Sets that no law can be fitted on."""

    def test_empty_and_one_sided(self) -> None:
        for positive, negative, name in ((POSITIVE[:0], NEGATIVE, "positive"), (POSITIVE, NEGATIVE[:0], "negative")):
            with pytest.raises(ContrastError, match=f"{name} states: got none"):
                Contrast(positive, negative)

    def test_not_finite(self) -> None:
        for bad in (torch.nan, torch.inf):
            broken = NEGATIVE.clone()
            broken[1, 0] = bad
            with pytest.raises(ContrastError, match="negative states: row 1 .*is not finite"):
                Contrast(POSITIVE, broken)

    def test_shapes(self) -> None:
        with pytest.raises(ContrastError, match="got widths 2 and 1"):
            Contrast(POSITIVE, NEGATIVE[:, :1])
        with pytest.raises(ContrastError, match=r"expected \(examples, width\)"):
            Contrast(POSITIVE[0], NEGATIVE)

    def test_equal_means_have_no_direction(self) -> None:
        with pytest.raises(LawError, match="both classes hold the same states"):
            DifferenceOfMeans().fit(Contrast(POSITIVE, POSITIVE))


class TestFiles:
    """Save, load, refuse."""

    def test_round_trip_with_the_full_header(self, tmp_path: Path) -> None:
        law = DifferenceOfMeans(strength=0.7).fit(Contrast(POSITIVE, NEGATIVE, HEADER))
        again = DifferenceOfMeans.load(law.save(tmp_path / "law.safetensors"))
        assert again.header == HEADER
        unit = DifferenceOfMeans(scale="unit").fit(Contrast(POSITIVE, NEGATIVE, HEADER))
        assert DifferenceOfMeans.load(unit.save(tmp_path / "unit.safetensors")).scale == "unit"
        draw = RandomDirection(seed=7).fit(Contrast(POSITIVE, NEGATIVE, HEADER))
        assert RandomDirection.load(draw.save(tmp_path / "draw.safetensors")).seed == 7
        mixed = shuffled(Contrast(POSITIVE, NEGATIVE, HEADER), seed=0).header
        assert mixed is not None and mixed.data_hash != HEADER.data_hash
        assert torch.equal(again.vector, law.vector)
        assert torch.equal(again(NEGATIVE), law(NEGATIVE))
        with safe_open(tmp_path / "law.safetensors", framework="pt") as handle:
            meta = handle.metadata()
        assert meta["law"] == "DifferenceOfMeans"
        assert all(field.name in meta["header"] for field in dataclasses.fields(LawHeader))

    def test_other_files_are_refused(self, tmp_path: Path) -> None:
        law = DifferenceOfMeans().fit(Contrast(POSITIVE, NEGATIVE, HEADER))
        path = law.save(tmp_path / "law.safetensors")
        with pytest.raises(LawError, match="holds DifferenceOfMeans version 1, expected RandomDirection"):
            RandomDirection.load(path)
        save_file({"vector": torch.ones(2)}, tmp_path / "foreign.safetensors")
        with pytest.raises(LawError, match="not a steerlib law"):
            DifferenceOfMeans.load(tmp_path / "foreign.safetensors")
        (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:50])
        with pytest.raises(LawError, match="cannot be read"):
            DifferenceOfMeans.load(tmp_path / "cut.safetensors")
        with pytest.raises(LawError, match="no such file"):
            DifferenceOfMeans.load(tmp_path / "none.safetensors")

    def test_another_version_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = DifferenceOfMeans().fit(Contrast(POSITIVE, NEGATIVE)).save(tmp_path / "law.safetensors")
        monkeypatch.setattr(DifferenceOfMeans, "version", 2)
        with pytest.raises(LawError, match="version 1, expected DifferenceOfMeans version 2"):
            DifferenceOfMeans.load(path)


class TestPlace:
    """A law is used where it was fitted, or not at all."""

    def _fitted(self) -> tuple[DifferenceOfMeans, object]:
        p = plant("llama")
        states = record(p, TEXTS, sites=[1])
        header = LawHeader(
            layer=1, point="resid_post", scope="all", plant=p.name, weight_hash=p.weight_hash, width=WIDTH,
            data_hash=states.data_hash, seed=0,
        )  # fmt: skip
        return DifferenceOfMeans().fit(Contrast(states.at(1)[:1], states.at(1)[1:], header)), p

    def test_the_fitted_place_is_the_default(self) -> None:
        law, p = self._fitted()
        with p.under(law):  # type: ignore[attr-defined]
            steered = p.forward(TEXTS)  # type: ignore[attr-defined]
        with p.under(Additive(law.vector), layer=1, scope="all"):  # type: ignore[attr-defined]
            assert torch.equal(p.forward(TEXTS), steered)  # type: ignore[attr-defined]

    def test_another_place_is_refused_naming_both(self, tmp_path: Path) -> None:
        fitted, p = self._fitted()
        law = DifferenceOfMeans.load(fitted.save(tmp_path / "law.safetensors"))
        with pytest.raises(LawError, match="fitted at resid_post of layer 1, used at resid_post of layer 2"):
            p.under(law, layer=2)  # type: ignore[attr-defined]
        with pytest.raises(LawError, match="fitted at resid_post of layer 1, used at resid_pre of layer 1"):
            p.under(law, layer=1, point="resid_pre")  # type: ignore[attr-defined]
        with pytest.raises(LawError, match="fitted at resid_post of layer 1, used at resid_pre of layer 1"):
            p.under(law, point="resid_pre")  # type: ignore[attr-defined]
        p.under(law, layer=-2)  # type: ignore[attr-defined]  # the same layer, counted from the last
        with pytest.raises(LawError, match="fitted on plant 'random-llama-0'.*used on 'random-llama-1'"):
            plant("llama", seed=1).under(law)

    def test_a_bare_law_needs_a_layer(self) -> None:
        with pytest.raises(LawError, match="the layer must be given"):
            plant("llama").under(Additive(torch.ones(WIDTH)))
