"""Push along the first principal direction of the differences between the classes (RepE, Zou et al. 2023).

u(z) = v, with d_i = positive_i - negative_i and v the unit vector along which the d_i spread most.

Everything depends on three choices, in which what others compare with differs from a fair reading:

- *pairs*: row i of both classes belongs to one question, so that what the question brings cancels in d_i;
- *centring*: principal component analysis takes the mean of d_i away, which is the very difference between the
  classes. Zou et al. take differences in both signs, whose mean is zero: then nothing is taken away, and the result is
  that of not centring;
- *sign*: a principal direction has none; it must be turned towards the positive class.

The released code of ODESteer (Zhao et al. 2026) truncates both classes to equal length without regard to pairs,
centres, and keeps the sign that scikit-learn happens to give.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import torch

from steerlib.control.principal import first_direction
from steerlib.errors import ContrastError, LawError
from steerlib.laws.additive import Additive
from steerlib.laws.base import Contrast, Source, norm_or_raise, one_of

Variant = Literal["paired", "unpaired", "as-compared"]


class RepE(Additive):
    """Add the first principal direction of class differences, a unit vector: strength is a length.

    Args:
        variant: "paired" needs pairs, does not centre, and turns v towards the positive class; "unpaired" does the same
            with rows that do not belong together; "as-compared" is what the comparators coded: unpaired, centred, of
            arbitrary sign.
        strength: multiplier of the vector.
    """

    def __init__(self, *, variant: Variant = "paired", strength: float = 1.0) -> None:
        """Choose the variant."""
        super().__init__(strength=strength)
        self.variant: Variant = one_of("variant", variant, Variant)

    def options(self) -> dict[str, Any]:
        """The variant."""
        return {"variant": self.variant}

    def fit_from(self, source: Source) -> Self:
        """Fit on pairs, or on whatever rows there are."""
        return self.fit(source.contrasts([source.site], pairs=self.variant == "paired")[0])

    def fit(self, contrast: Contrast) -> Self:
        """Find the direction. Classes of unequal size are cut to the smaller one, first rows first.

        The variants without pairs break up those that a contrast has, with a fixed permutation of the negative class:
        what they stand for had none.

        Raises:
            ContrastError: if the variant needs pairs and there are none.
            LawError: if there is no such direction, or neither of its signs leads to the positive class.
        """
        if self.variant == "paired" and not contrast.paired:
            raise ContrastError(
                "RepE: got a contrast without pairs, which variant 'paired' needs. Fix: Contrast(..., paired=True) if "
                "row i of both classes belongs together, or variant='unpaired'."
            )
        count = min(map(len, contrast))
        other = contrast.negative
        if contrast.paired and self.variant != "paired":
            other = other[torch.randperm(len(other), generator=torch.Generator().manual_seed(0)).to(other.device)]
        differences = contrast.positive[:count].double() - other[:count].double()
        if self.variant == "as-compared":
            vector = first_direction(differences, centred=True)  # of the sign that the solver's convention gives it
            causes = ["all differences are equal, or there is one only, so that centring leaves nothing"]
            norm_or_raise(vector, "first principal component of the differences", causes)
            return self._hold(vector, contrast)
        vector = first_direction(differences, centred=False)
        norm_or_raise(vector, "differences", ["both classes hold the same states", "wrong token"])
        ahead = contrast.positive.double().mean(0) - contrast.negative.double().mean(0)
        side = vector @ ahead
        if side.abs() <= 1e-12 * ahead.norm():
            raise LawError(
                "RepE: the first direction of the differences is at right angles to the difference of the class "
                "means, so neither of its signs leads to the positive class. Fix: more pairs, or another layer."
            )
        return self._hold(vector * torch.sign(side), contrast)
