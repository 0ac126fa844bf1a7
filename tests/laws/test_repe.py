"""RepE: what pairs, centring and orientation each do; parity with the released code; bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from steerlib.errors import ContrastError, LawError
from steerlib.laws.base import Contrast
from steerlib.laws.repe import RepE
from tests.laws.test_probe import FIXTURE, shared

WIDTH = 8


def questions(n: int = 300, *, seed: int = 0, sign: float = 1.0) -> Contrast:
    """Pairs that share a large question in every coordinate and differ along the first one, by about one."""
    generator = torch.Generator().manual_seed(seed)
    question = 10 * torch.randn(n, WIDTH, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(2, n, WIDTH, generator=generator, dtype=torch.float64)
    noise[:, :, 3] *= 4  # what centring leaves spreads most here, and has nothing to do with the classes
    push = torch.zeros(WIDTH, dtype=torch.float64)
    push[0] = sign
    return Contrast(question + push + noise[0], question + noise[1], paired=True)


class TestVariants:
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_paired_finds_the_difference_and_its_sign(self, sign: float) -> None:
        vector = RepE().fit(questions(sign=sign)).vector
        assert float(vector[0]) * sign > 0.99
        assert float(vector.norm()) == pytest.approx(1.0)

    def test_differences_in_both_signs_centred_are_differences_uncentred(self) -> None:
        """Zou et al. take both signs and centre; that is what 'paired' computes without doubling the rows."""
        contrast = questions()
        d = contrast.positive - contrast.negative
        doubled = torch.cat([d, -d])
        first = torch.linalg.svd(doubled - doubled.mean(0), full_matrices=False).Vh[0].float()
        assert float((first @ RepE().fit(contrast).vector).abs()) == pytest.approx(1.0, abs=1e-6)

    def test_breaking_pairs_up_loses_the_difference(self) -> None:
        assert abs(float(RepE(variant="unpaired").fit(questions()).vector[0])) < 0.7
        oriented = RepE(variant="unpaired").fit(questions()).vector
        gap = questions().positive.mean(0) - questions().negative.mean(0)
        assert float(oriented.double() @ gap) > 0

    def test_centring_takes_the_difference_away(self) -> None:
        positive, negative = questions()
        vector = RepE(variant="as-compared").fit(Contrast(positive, negative)).vector
        assert abs(float(vector[0])) < 0.1 and abs(float(vector[3])) > 0.99

    def test_as_compared_has_a_sign_that_the_classes_do_not_decide(self) -> None:
        positive, negative = questions()
        there, back = (
            RepE(variant="as-compared").fit(c).vector
            for c in (Contrast(positive, negative), Contrast(negative, positive))
        )
        assert torch.equal(there, back)
        torch.testing.assert_close(RepE().fit(questions(sign=-1.0)).vector[0], torch.tensor(-1.0), atol=0.01, rtol=0)

    def test_the_released_code_agrees(self) -> None:
        """It truncates the larger class: 60 against 75 states."""
        wanted = torch.tensor(FIXTURE["vectors"]["RepE"], dtype=torch.float64)
        vector = RepE(variant="as-compared").fit(shared()).vector
        torch.testing.assert_close(vector.double(), wanted, atol=1e-5, rtol=0)

    def test_files_keep_the_variant(self, tmp_path: Path) -> None:
        law = RepE(variant="as-compared").fit(shared())
        again = RepE.load(law.save(tmp_path / "law.safetensors"))
        assert again.variant == "as-compared" and torch.equal(again.vector, law.vector)
        assert json.loads(json.dumps(law.options())) == law.options()


class TestBadInput:
    def test_pairs_are_needed(self) -> None:
        with pytest.raises(ContrastError, match="without pairs, which variant 'paired' needs"):
            RepE().fit(shared())

    def test_unknown_variant(self) -> None:
        with pytest.raises(LawError, match="expected 'paired' or 'unpaired' or 'as-compared'"):
            RepE(variant="fair")  # type: ignore[arg-type]

    def test_no_differences(self) -> None:
        same = torch.arange(6.0).reshape(3, 2)
        with pytest.raises(LawError, match="differences: got norm 0.0.*hold the same states"):
            RepE().fit(Contrast(same, same, paired=True))

    @pytest.mark.parametrize("count", [1, 3])
    def test_equal_differences_centred_leave_nothing(self, count: int) -> None:
        base = torch.arange(2.0 * count).reshape(count, 2)
        with pytest.raises(LawError, match="all differences are equal, or there is one only"):
            RepE(variant="as-compared").fit(Contrast(base + 1, base))
        torch.testing.assert_close(RepE().fit(Contrast(base + 1, base, paired=True)).vector, torch.full((2,), 0.5**0.5))

    def test_a_direction_without_sides_is_refused(self) -> None:
        positive = torch.tensor([[5.0, 1.0], [-5.0, 1.0]])
        with pytest.raises(LawError, match="at right angles"):
            RepE().fit(Contrast(positive, torch.zeros(2, 2), paired=True))

    def test_more_features_than_examples(self) -> None:
        contrast = questions(4)
        assert float(RepE().fit(contrast).vector[0]) > 0.9
