"""Angular steering: the plane, the angle, the gate, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from steerlib.actuator import Site
from steerlib.errors import LawError
from steerlib.laws.angular import AngularSteering
from steerlib.laws.base import Contrast

WIDTH = 6


def contrast(direction: Tensor, *, n: int = 400, spread: Tensor | None = None, seed: int = 0) -> Contrast:
    """Two classes about a common mean, a direction apart, that vary as told."""
    noise = torch.randn(2, n, len(direction), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise = noise * (torch.full((len(direction),), 0.1) if spread is None else spread)
    return Contrast(noise[0] + direction / 2 + 5.0, noise[1] - direction / 2 + 5.0)


def axis(i: int) -> Tensor:
    return torch.eye(WIDTH, dtype=torch.float64)[i]


def fitted(**options: Any) -> AngularSteering:
    return AngularSteering(**options).fit(contrast(axis(0), spread=0.1 + 2 * axis(1)))


@dataclass
class Layers:
    """A source whose contrasts at each layer are given."""

    found: Sequence[Contrast]
    site: Site = Site(1)

    @property
    def plant(self) -> Layers:
        return self

    @property
    def depth(self) -> int:
        return len(self.found)

    def contrasts(self, sites: Sequence[Site], *, pairs: bool = False) -> list[Contrast]:
        return [self.found[site.layer] for site in sites]


class TestPlane:
    def test_first_axis_is_the_feature_and_second_the_spread_of_one_layer(self) -> None:
        law = fitted(measure="raw")
        assert law.basis[0] @ axis(0).float() > 0.95  # up to the noise of a mean of 400
        assert (axis(1).float() @ law.basis.T).norm() > 0.999
        torch.testing.assert_close(law.basis @ law.basis.T, torch.eye(2), atol=1e-6, rtol=0)

    def test_unit_measure_is_blind_to_the_length_of_states(self) -> None:
        base = contrast(axis(0))
        stretched = Contrast(base.positive * torch.linspace(1.0, 5.0, 400)[:, None], base.negative)
        first, second = (AngularSteering().fit(c).basis[0] for c in (base, stretched))
        torch.testing.assert_close(first, second, atol=1e-6, rtol=0)
        raw = AngularSteering(measure="raw").fit(stretched).basis[0]
        assert first @ raw < 0.9

    def test_a_share_of_the_states_spread_over_all_tells_their_spread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first half of the rows varies in another direction than the second, and a little less."""
        halves = [contrast(axis(0), spread=0.1 + size * axis(i), seed=i) for size, i in ((2.0, 1), (3.0, 2))]
        both = Contrast(*(torch.cat(pair) for pair in zip(*halves, strict=True)))
        whole = AngularSteering(measure="raw").fit(both).basis[1]
        monkeypatch.setattr("steerlib.laws.angular.ENOUGH", 100)
        some = AngularSteering(measure="raw").fit(both).basis[1]
        assert whole @ axis(2).float() > 0.99 and some @ axis(2).float() > 0.97
        assert not torch.equal(whole, some)

    def test_second_axis_is_the_component_across_layers(self) -> None:
        """Directions e0 + t e2 of all layers vary along a known chord of the circle."""
        directions = [axis(0) + t * axis(2) for t in (-0.2, 0.0, 0.3, 0.9)]
        law = AngularSteering(measure="raw").fit_from(Layers([contrast(d, n=4000) for d in directions]))
        assert law.basis[0] @ axis(0).float() > 0.999
        assert (law.basis[1] @ axis(2).float()).abs() > 0.99
        exact = torch.stack([d / d.norm() for d in directions])
        component = torch.linalg.svd(exact - exact.mean(0)).Vh[0].float()
        assert (component @ law.basis.T).norm() == pytest.approx(1.0, abs=1e-2)

    @pytest.mark.parametrize(("measure", "component"), [("unit", 2), ("raw", 1)])
    def test_how_far_apart_classes_lie_counts_where_it_means_something(self, measure: Any, component: int) -> None:
        """As released; in the lengths of raw differences it is how long states are that counts, so they are scaled."""
        first, second, third = ((axis(i) - axis(i + 1)) / 2**0.5 for i in (0, 2, 4))  # at right angles to all states
        near, far = [first + sign * second for sign in (1, -1)], [3 * first + sign * 1.8 * third for sign in (1, -1)]
        source = Layers([contrast(d, n=4000) for d in (*near, *far)], Site(2 if component == 1 else 0))
        law = AngularSteering(measure=measure).fit_from(source)
        aside = (second, third)[component - 1]
        assert (law.basis[1] @ aside.float()).abs() > 0.98

    def test_most_similar_takes_the_direction_nearest_to_all(self) -> None:
        directions = [axis(3), axis(0), axis(0) + axis(2), axis(0) + 0.4 * axis(2)]
        source = Layers([contrast(d, n=2000) for d in directions])
        own, best = (
            AngularSteering(measure="raw", feature=f).fit_from(source).basis[0] for f in ("site", "most-similar")
        )
        assert own @ axis(0).float() > 0.99
        assert best @ (directions[3] / directions[3].norm()).float() > 0.99

    @pytest.mark.parametrize("layers", [1, 3], ids=["one layer", "one direction"])
    def test_without_other_directions_one_layer_must_do(self, layers: int) -> None:
        same = contrast(axis(0), spread=0.1 + 2 * axis(1))
        law = AngularSteering().fit_from(Layers([same] * layers, Site(0)))
        assert torch.equal(law.basis, AngularSteering().fit(same).basis)

    def test_final_norm_is_measured_besides_the_layers(self) -> None:
        asked: list[Site] = []

        class Norm(Layers):
            def contrasts(self, sites: Sequence[Site], *, pairs: bool = False) -> list[Contrast]:
                asked.extend(sites)
                return super().contrasts(sites, pairs=pairs)

        AngularSteering().fit_from(Norm([contrast(axis(i)) for i in (0, 1)], Site(-1, "final_norm")))
        assert asked == [Site(0), Site(1), Site(1, "final_norm")]


class TestAngle:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 1000), degrees=st.floats(-720, 720), size=st.floats(1e-2, 1e3))
    def test_norms_are_kept_and_the_angle_is_met(self, seed: int, degrees: float, size: float) -> None:
        law = fitted(angle=degrees)
        state = size * torch.randn(3, 2, WIDTH, generator=torch.Generator().manual_seed(seed))
        new = law(state)
        torch.testing.assert_close(new.norm(dim=-1), state.norm(dim=-1), rtol=1e-4, atol=0)
        inside = new @ law.basis.T
        error = torch.atan2(inside[..., 1], inside[..., 0]) - math.radians(degrees)
        torch.testing.assert_close(error.cos(), torch.ones_like(error), atol=1e-4, rtol=0)

    def test_zero_adds_and_half_a_turn_removes_the_feature(self) -> None:
        law, state = fitted(), torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(1))
        length = (state @ law.basis.T).norm(dim=1)
        torch.testing.assert_close(law(state) @ law.basis[0], length)
        torch.testing.assert_close(law.turn_to(180.0)(state) @ law.basis[0], -length)

    def test_strength_goes_along_the_chord(self) -> None:
        law, state = fitted(angle=120.0), torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(2))
        whole = law(state)
        torch.testing.assert_close(law.at(0.25)(state), 0.75 * state + 0.25 * whole)

    @pytest.mark.parametrize(("when", "sign"), [("aligned", 1), ("opposed", -1)])
    def test_the_adaptive_variant_acts_on_one_side(self, when: str, sign: int) -> None:
        law, always = fitted(angle=180.0, when=when), fitted(angle=180.0)
        state = torch.randn(50, WIDTH, generator=torch.Generator().manual_seed(3))
        acts = sign * (state @ law.basis[0]) > 0
        assert 5 < int(acts.sum()) < 45
        torch.testing.assert_close(law(state)[acts], always(state)[acts])
        assert torch.equal(law(state)[~acts], state[~acts])

    def test_compiles_in_one_graph_and_new_settings_recompile_nothing(self) -> None:
        law, state = fitted(when="aligned"), torch.randn(3, WIDTH)
        count = CompileCounter()
        run = torch.compile(law, backend=count, fullgraph=True)
        for degrees, strength in ((0.0, 1.0), (90.0, 0.5), (200.0, 0.0)):
            law.turn_to(degrees).at(strength)
            torch.testing.assert_close(run(state), law(state))
        assert count.frame_count == 1

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        law = fitted(angle=180.0)
        state = (300 * torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(4))).to(dtype)
        found = law(state)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), law(state.float()), rtol=1e-2, atol=3.0)
        assert torch.isfinite(law.at(1e6)(state)).all(), "clamped to the largest number of the type"


class TestFilesAndRefusals:
    def test_round_trip(self, tmp_path: Path) -> None:
        law = fitted(angle=75.0, when="opposed", measure="raw", feature="most-similar", strength=0.5)
        again = AngularSteering.load(law.save(tmp_path / "law.safetensors"))
        state = torch.randn(9, WIDTH)
        assert torch.equal(again(state), law(state)) and not torch.equal(again(state), state)
        assert again.options() == law.options()
        assert float(again.angle) == pytest.approx(math.radians(75.0))

    def test_bad_options(self) -> None:
        for options, message in (
            ({"when": "never"}, "when: got 'never', expected 'always' or 'aligned' or 'opposed'"),
            ({"feature": "best"}, "feature: got 'best'"),
            ({"measure": "big"}, "measure: got 'big'"),
            ({"angle": math.nan}, "angle: got nan, expected a finite number of degrees"),
        ):
            with pytest.raises(LawError, match=message):
                AngularSteering(**options)

    def test_data_without_a_plane(self) -> None:
        same = torch.ones(3, WIDTH)
        with pytest.raises(LawError, match="both classes hold the same states"):
            AngularSteering().fit(Contrast(same, same))
        with pytest.raises(LawError, match="do not vary within their class"):
            AngularSteering().fit(Contrast(axis(0)[None], axis(1)[None]))
        line = torch.linspace(1.0, 2.0, 5)[:, None] * axis(0)
        with pytest.raises(LawError, match="two vectors on one line"):
            AngularSteering(measure="raw").fit(Contrast(line, -line))

    def test_more_features_than_examples(self) -> None:
        few = Contrast(*torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(5)))
        torch.testing.assert_close(AngularSteering().fit(few).basis.norm(dim=1), torch.ones(2))

    def test_unfitted_or_of_another_width(self) -> None:
        with pytest.raises(LawError, match="holds no plane: it is not fitted"):
            AngularSteering()(torch.zeros(1, 3))
        with pytest.raises(LawError, match="a plane of width 6; the state has width 3"):
            fitted()(torch.zeros(1, 3))
