"""Householder pseudo-rotation: its geometry, what it learns from pairs, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from steerlib.control.rotation import angle_between, reflected
from steerlib.errors import ContrastError, LawError
from steerlib.laws.base import Contrast
from steerlib.laws.householder import HouseholderRotation, Start

WIDTH = 8
START: tuple[Start, ...] = ("mean", "right")
NORMAL = torch.nn.functional.normalize(torch.arange(1.0, WIDTH + 1), dim=0)


def pairs(n: int = 400, *, scale: float = 1.0, seed: int = 0) -> Contrast:
    """States on one side of a plane, and their mirror images turned half way back: the angles vary and are known."""
    generator = torch.Generator().manual_seed(seed)
    negative = torch.randn(n, WIDTH, generator=generator)
    negative = negative - ((negative @ NORMAL) + 0.3 + torch.rand(n, generator=generator))[:, None] * NORMAL
    return Contrast(scale * reflected(negative, NORMAL), scale * negative, paired=True)


def with_angle(angle: float) -> HouseholderRotation:
    """A law whose angle is the same for every state."""
    law = HouseholderRotation(layers=1)
    law.normal = NORMAL
    law.angle.layers[0].weight = torch.zeros(1, WIDTH)
    law.angle.layers[0].bias = torch.logit(torch.tensor([angle / math.pi]))
    return law


@pytest.fixture(scope="module")
def fitted() -> HouseholderRotation:
    return HouseholderRotation(rate=3e-3).fit(pairs())


def states(n: int = 100, seed: int = 1) -> Tensor:
    return 3 * torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


class TestGeometry:
    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 1000), angle=st.floats(0.01, 3.1))
    def test_norms_are_kept_angles_met_and_the_positive_side_untouched(self, seed: int, angle: float) -> None:
        law, before = with_angle(angle), states(seed=seed)
        after, positive = law(before), before @ NORMAL > 0
        torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1))
        assert torch.equal(after[positive], before[positive])
        turned = angle_between(after, before)[~positive]
        torch.testing.assert_close(turned, torch.full_like(turned, angle), atol=1e-4, rtol=0)
        # In the plane of the state and the normal, and towards the normal.
        basis = torch.linalg.qr(torch.stack([before, NORMAL.expand_as(before)], -1)).Q
        torch.testing.assert_close(basis @ (basis.mT @ after[..., None]), after[..., None], atol=1e-4, rtol=1e-4)

    def test_no_angle_is_the_identity_and_the_mirror_s_angle_the_reflection(self) -> None:
        before = states()
        torch.testing.assert_close(with_angle(0.0)(before), before)
        one = before[(before @ NORMAL).argmin()]
        mirror = reflected(one, NORMAL)
        torch.testing.assert_close(with_angle(float(angle_between(one, mirror)))(one), mirror, atol=1e-5, rtol=1e-5)

    def test_strength_goes_along_the_chord(self) -> None:
        law, before = with_angle(1.0), states()
        whole = law(before)
        torch.testing.assert_close(law.at(0.3)(before), 0.7 * before + 0.3 * whole)

    def test_poles(self) -> None:
        before = torch.stack([-2 * NORMAL, torch.zeros(WIDTH)])
        torch.testing.assert_close(with_angle(1.0)(before), before)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        law, before = with_angle(1.0), (100 * states()).to(dtype)
        after = law(before)
        assert after.dtype == dtype
        torch.testing.assert_close(after.float(), law(before.float()), rtol=1e-2, atol=4.0)
        assert torch.isfinite(law.at(1e6)(before)).all(), "clamped to the largest number of the type"


class TestLearning:
    def test_it_finds_the_plane_and_the_angles(self, fitted: HouseholderRotation) -> None:
        test = pairs(seed=5)
        assert fitted.normal @ NORMAL > 0.97
        wanted = angle_between(test.negative, test.positive)
        assert wanted.std() > 0.2
        error = (fitted.predicted(test.negative) - wanted).square().mean()
        assert error < 0.5 * wanted.var(), "a constant angle leaves all of it"
        assert fitted.predicted(test.positive).mean() < 0.15
        gap = (test.negative - test.positive).norm(dim=1).mean()
        assert (fitted(test.negative) - test.positive).norm(dim=1).mean() < 0.3 * gap
        assert torch.equal(fitted(test.positive), test.positive)

    def test_the_size_of_states_does_not_matter(self) -> None:
        small, large = (HouseholderRotation(passes=3).fit(pairs(scale=s)) for s in (1.0, 64.0))
        before = states()
        torch.testing.assert_close(large(64 * before), 64 * small(before), rtol=1e-3, atol=1e-2)

    def test_seeds_decide_and_nothing_else(self) -> None:
        laws = [HouseholderRotation(passes=2, seed=s).fit(pairs(60)) for s in (0, 0, 1)]
        before = states()
        assert torch.equal(laws[0](before), laws[1](before)) and not torch.equal(laws[0](before), laws[2](before))

    def test_pairs_belong_together(self) -> None:
        """With partners exchanged there is no angle to learn from the state."""
        found = pairs()
        mixed = Contrast(found.positive.flip(0), found.negative, paired=True)
        law = HouseholderRotation(rate=3e-3).fit(mixed)
        test = pairs(seed=5)
        wanted = angle_between(test.negative, test.positive.flip(0))
        assert (law.predicted(test.negative) - wanted).square().mean() > 0.9 * wanted.var()

    def test_where_the_angle_starts(self) -> None:
        """States far from all pairs, of which nothing was learned, are turned by about as much as pairs are apart."""
        found = pairs()
        apart = float(angle_between(found.negative, found.positive).mean()) / 2  # positive states are to stay
        angles = {s: HouseholderRotation(start=s, passes=1, rate=1e-6).fit(found).predicted(states()) for s in START}
        assert float(angles["mean"].mean()) == pytest.approx(apart, abs=0.1)
        assert float(angles["right"].mean()) > 2 * apart + 0.2

    def test_how_often_pairs_are_passed_over(self) -> None:
        law = HouseholderRotation(passes=None, held_out=0.0)
        assert law._training(5000).steps == 5 * math.ceil(5000 / 16)
        assert 1500 <= law._training(100).steps < 1500 + math.ceil(100 / 16)
        assert HouseholderRotation(passes=5, held_out=0.1)._training(100).steps == 5 * math.ceil(90 / 16)

    def test_states_recorded_under_inference_mode(self) -> None:
        with torch.inference_mode():
            law = HouseholderRotation(passes=1).fit(pairs(20))
        assert not any(buffer.is_inference() for name, buffer in law.named_buffers() if name != "strength")

    def test_a_single_pair_and_more_features_than_examples(self) -> None:
        for n in (1, 3):
            few = pairs(n)
            law = HouseholderRotation(passes=300, rate=5e-3).fit(few)
            assert (law(few.negative) - few.positive).norm() < 0.5 * (few.negative - few.positive).norm()


class TestRunning:
    def test_compiles_in_one_graph_without_gradients(self, fitted: HouseholderRotation) -> None:
        count, before = CompileCounter(), states(6)
        run = torch.compile(fitted, backend=count, fullgraph=True)
        for strength in (1.0, 0.5):
            fitted.at(strength)
            torch.testing.assert_close(run(before), fitted(before))
        fitted.at(1.0)
        assert count.frame_count == 1
        assert not fitted(before).requires_grad and not list(fitted.parameters())

    def test_round_trip(self, fitted: HouseholderRotation, tmp_path: Path) -> None:
        again = HouseholderRotation.load(fitted.save(tmp_path / "law.safetensors"))
        before = states()
        assert torch.equal(again(before), fitted(before)) and not torch.equal(again(before), before)
        assert again.options() == fitted.options()


class TestRefusals:
    def test_without_pairs(self) -> None:
        found = pairs(10)
        with pytest.raises(ContrastError, match="got a contrast without pairs"):
            HouseholderRotation().fit(Contrast(found.positive, found.negative))

    def test_states_that_are_all_zero(self) -> None:
        with pytest.raises(LawError, match="got states that are all zero"):
            HouseholderRotation().fit(Contrast(torch.zeros(3, 2), torch.zeros(3, 2), paired=True))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"layers": 0}, "layers: got 0"),
            ({"passes": 0}, "passes: got 0"),
            ({"batch": 0}, "batch: got 0"),
            ({"start": "zero"}, "start: got 'zero', expected 'mean' or 'right'"),
            ({"rate": -1.0}, "rate: got -1.0"),
            ({"held_out": 1.0}, "held_out: got 1.0"),
        ],
    )
    def test_options(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(LawError, match=message):
            HouseholderRotation(**options)

    def test_unfitted_or_of_another_width(self, fitted: HouseholderRotation) -> None:
        with pytest.raises(LawError, match="holds no normal: it is not fitted"):
            HouseholderRotation()(torch.zeros(1, 3))
        with pytest.raises(LawError, match="a normal of width 8; the state has width 3"):
            fitted(torch.zeros(1, 3))
