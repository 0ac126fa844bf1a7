"""Linear probe: the normal of the best plane, its two units, parity with the released code, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from steerlib.errors import ContrastError, LawError
from steerlib.laws.base import Contrast
from steerlib.laws.probe import LinearProbe
from tests.laws.fixtures.odesteer_vectors import states
from tests.laws.test_additive import gaussians

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "odesteer_vectors.json").read_text())


def shared() -> Contrast:
    """The random states on which the authors' code was run."""
    positive, negative, digest = states()
    assert digest == FIXTURE["provenance"]["inputs_sha256"], "the states are not those of the fixture"
    return Contrast(torch.from_numpy(positive), torch.from_numpy(negative))


class TestDirection:
    def test_it_is_the_normal_between_gaussians_of_unequal_spread(self) -> None:
        """The best plane is covariance^-1 times the gap: unlike the difference of means, it heeds the spread."""
        gap, spread = torch.tensor([1.0, 1.0], dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64)
        noise = gaussians(20_000, torch.zeros(2, dtype=torch.float64))
        vector = LinearProbe().fit(Contrast(noise.positive * spread + gap, noise.negative * spread)).vector
        wanted = torch.nn.functional.normalize(gap / spread**2, dim=0)
        torch.testing.assert_close(vector.double(), wanted, atol=0.03, rtol=0)

    def test_unit_makes_strength_a_length(self) -> None:
        contrast = gaussians(100, torch.ones(5, dtype=torch.float64))
        law = LinearProbe(strength=3.0).fit(contrast)
        state = contrast.negative.float()
        torch.testing.assert_close((law(state) - state).norm(dim=1), torch.full((100,), 3.0))
        assert law.probe is not None and law.probe.logit(law(state)).mean() > law.probe.logit(state).mean()

    def test_sigma_counts_in_standard_deviations_along_it(self) -> None:
        contrast = gaussians(100, torch.ones(5, dtype=torch.float64))
        unit, sigma = LinearProbe().fit(contrast).vector, LinearProbe(scale="sigma").fit(contrast).vector
        along = torch.cat(tuple(contrast)) @ unit.double()
        torch.testing.assert_close(sigma, unit * along.std(correction=0).float())

    def test_standardised_is_another_probe(self) -> None:
        contrast = shared()
        plain, standardised = LinearProbe().fit(contrast), LinearProbe(standardise=True).fit(contrast)
        assert 0.5 < float(plain.vector @ standardised.vector) < 0.999999

    def test_the_released_code_agrees(self) -> None:
        """To the tolerance of its solver, which stops at a gradient of 1e-4; the next test is the optimum itself."""
        wanted = torch.tensor(FIXTURE["vectors"]["ITI"], dtype=torch.float64)
        torch.testing.assert_close(LinearProbe().fit(shared()).vector.double(), wanted, atol=1e-4, rtol=0)

    @pytest.mark.parametrize(("c", "bias"), [(1.0, True), (0.05, False)])
    def test_scikit_learn_agrees(self, c: float, bias: bool) -> None:
        from steerlib.control.logistic import fit_logistic

        fit = fit_logistic(*shared(), c=c, bias=bias)
        wanted = torch.tensor(FIXTURE["vectors"][f"LogisticRegression C={c} fit_intercept={bias}"], dtype=torch.float64)
        torch.testing.assert_close(torch.cat([fit.weight, fit.bias[None]]), wanted, atol=1e-6, rtol=1e-6)


class TestHardCases:
    def test_more_features_than_examples_and_single_examples(self) -> None:
        few = gaussians(3, torch.ones(40, dtype=torch.float64))
        law = LinearProbe().fit(few)
        assert law.probe is not None and law.probe.separates
        assert float(law.vector.norm()) == pytest.approx(1.0)
        one = LinearProbe().fit(Contrast(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])))
        torch.testing.assert_close(one.vector, torch.tensor([1.0, 0.0]))

    def test_collinear_classes_share_the_weight(self) -> None:
        states = torch.linspace(-1, 1, 20)[:, None].expand(20, 2)
        torch.testing.assert_close(LinearProbe().fit(Contrast(states + 1, states)).vector, torch.full((2,), 0.5**0.5))

    def test_constant_activations(self) -> None:
        with pytest.raises(LawError, match="probe: got norm 0.0.*both classes hold the same states"):
            LinearProbe().fit(Contrast(torch.ones(4, 3), torch.ones(5, 3)))

    def test_not_finite_and_empty_never_get_that_far(self) -> None:
        with pytest.raises(ContrastError, match="row 0 .*is not finite"):
            Contrast(torch.tensor([[torch.nan]]), torch.ones(1, 1))

    def test_options(self) -> None:
        with pytest.raises(LawError, match="expected 'unit' or 'sigma'"):
            LinearProbe(scale="raw")  # type: ignore[arg-type]
        with pytest.raises(LawError, match="c: got -1"):
            LinearProbe(c=-1)

    def test_files_keep_the_options(self, tmp_path: Path) -> None:
        law = LinearProbe(scale="sigma", c=0.5, standardise=True).fit(shared())
        again = LinearProbe.load(law.save(tmp_path / "law.safetensors"))
        assert torch.equal(again.vector, law.vector) and again.probe is None
        assert torch.equal(again.fit(shared()).vector, law.vector)
