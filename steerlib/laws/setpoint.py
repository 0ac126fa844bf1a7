"""Setpoints over depth: read a feature where a block begins, and push where it ends.

At block k the feature is the unit vector v_k along the difference of the class means of the block's *input* z_k, mu_k
its length. The sensor reads v_k . z_k, the error is what is missing to the setpoint, and the input is added to the
block's *output*:

    alpha_k = beta_k - v_k . z_k,    z_{k+1} = phi_k(z_k) + strength * u_k,    u_k a function of alpha_k.

Setpoints come in three kinds ("reference"): "raw", beta_k = lambda mu_k, as in A-LQR (Skifstad et al. 2026);
"centred", beta_k = v_k . m_k- + lambda mu_k with m_k- the mean of the negative class, so that lambda 0 and 1 are the
two class means; "fixed", beta_k = lambda, the same reading at every block. The raw setpoint is compared with a reading
that is not zero in the negative class: lambda = 1 is not the mean of the positive class. A setpoint of zero is a clamp
of the reading, not the absence of control: that is strength zero.

Knows how the parts (`steerlib.laws.sensing`) of all blocks are joined and fitted. Knows nothing about how u_k is found:
see `steerlib.laws.lqr` and `steerlib.laws.pid`. All is done for each token by itself; the scope says which of them are
changed, and nothing is remembered from one pass to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlib.actuator import Site
from steerlib.errors import LawError
from steerlib.laws.base import Contrast, Law, Source, one_of
from steerlib.laws.sensing import Feature, Loop, Push, Reading, Reference
from steerlib.laws.stack import Stack

#: Setpoints farther outside of the class means than this, in distances of them, are worth a note.
FAR = 3.0


class Setpoints(Stack):
    """A sensor at the input and an input at the output of every block at which a feature is known.

    Blocks at which all class means are identical are left alone, and `notes` says so.

    Args:
        setpoint: lambda of each concept; one number for all.
        reference: kind of the setpoint; see the module.
        strength: multiplier of the input; zero is the unsteered plant.

    Attributes:
        lengths: mu of every block and concept, zero where nothing is known.
        below: mean reading of the negative class.
    """

    lengths: Float[Tensor, "blocks concepts"]
    below: Float[Tensor, "blocks concepts"]

    def __init__(
        self, *, setpoint: float | Sequence[float] = 1.0, reference: Reference = "raw", strength: float = 1.0
    ) -> None:
        """Choose the setpoint."""
        super().__init__(strength=strength)
        self.setpoint = _levels(setpoint)
        self.reference: Reference = one_of("reference", reference, Reference)
        self.register_buffer("lengths", torch.empty(0, 0))
        self.register_buffer("below", torch.empty(0, 0))

    def options(self) -> dict[str, Any]:
        """The setpoint."""
        levels = list(self.setpoint)
        return {"setpoint": levels if len(levels) > 1 else levels[0], "reference": self.reference}

    @property
    def readings(self) -> list[Reading]:
        """The sensors, in order of depth."""
        return [part for part in self if isinstance(part, Reading)]

    @property
    def inputs(self) -> list[Push]:
        """The inputs, one for each sensor."""
        return [part for part in self if isinstance(part, Push)]

    @property
    def blocks(self) -> list[int]:
        """Blocks at which the law acts."""
        return (self.lengths > 0).any(1).nonzero()[:, 0].tolist()

    @property
    def notes(self) -> list[str]:
        """What is to be known before the law is used; empty if there is nothing."""
        if not len(self.lengths):
            return ["the law is not fitted"]
        idle = (self.lengths == 0).nonzero().tolist()
        several = self.lengths.shape[1] > 1
        found = [
            f"block {block}: " + (f"concept {concept}: " if several else "")
            + "both classes have the same mean at its input, so nothing is read or pushed there"
            for block, concept in idle
        ]  # fmt: skip
        past, block = self._farthest()
        if past > FAR:
            found.append(
                f"setpoint: at block {block} it lies {past:.1f} distances of the class means outside of both, where no "
                "state was seen: the plant may follow the reading and fall apart"
            )
        return found

    def _farthest(self) -> tuple[float, int]:
        """How far the farthest setpoint lies outside of the class means, in distances of them, and at which block."""
        blocks = self.blocks
        lengths, low = self.lengths[blocks], self.below[blocks]
        aims = torch.stack([reading.target.to(low) for reading in self.readings])
        past = torch.maximum(aims - low - lengths, low - aims) / lengths
        past = torch.where(lengths > 0, past, -torch.inf).amax(1)
        return float(past.max()), blocks[int(past.argmax())]

    @property
    def authority(self) -> Float[Tensor, " pairs"]:
        """kappa_k = v_{k+1} . w_k of the first concept, for neighbouring blocks: how much of an error the input undoes.

        The error obeys alpha_{k+1} = (beta_{k+1} - v_{k+1} . phi_k(z_k)) - strength kappa_k alpha_k exactly.
        """
        heads, inputs, blocks = self.readings, self.inputs, self.blocks
        pairs = [i for i in range(len(blocks) - 1) if blocks[i + 1] == blocks[i] + 1]
        one = [torch.eye(len(self.setpoint), device=inputs[i].pushes.device)[0] for i in pairs]
        found = [heads[i + 1].directions[0] @ inputs[i].of(e) for i, e in zip(pairs, one, strict=True)]
        return torch.stack(found) if found else self.lengths.new_zeros(0)

    def toward(self, setpoint: float | Sequence[float]) -> Self:
        """Set the setpoint in place, compiled code included; return the law.

        Raises:
            LawError: if it is not a finite number, or not one for each concept.
        """
        self.setpoint = _levels(setpoint, count=self.lengths.shape[1] if len(self.lengths) else None)
        for reading in self.readings:
            reading.toward(self.setpoint)
        return self

    # Fitting

    def fit(self, contrasts: Sequence[Contrast] | Sequence[Sequence[Contrast]], **options: Any) -> Self:
        """Fit on contrasts at the inputs of all blocks, in order of depth.

        Args:
            contrasts: one for each block; for several concepts, one such list for each concept.
            options: what the law needs besides; see its own text.

        Raises:
            LawError: if no block has a feature, or concepts were measured at different places.
        """
        raise NotImplementedError(f"{type(self).__name__} must define fit(contrasts).")

    def fit_from(self, source: Source) -> Self:
        """Fit on what one source measures at the inputs of all blocks."""
        return self.fit(self.measured(source))

    def measured(self, source: Source) -> list[Contrast]:
        """Contrasts at the inputs of all blocks, from one pass over the texts.

        Raises:
            LawError: if the law is asked to act at one block: it acts at all.
        """
        depth = source.plant.depth
        check_everywhere(self, source)
        return source.contrasts([Site(block, "resid_pre") for block in range(depth)])

    def _features(self, contrasts: Sequence[Any]) -> tuple[list[list[Contrast]], list[Feature]]:
        """Contrasts by block and concept, and what they say."""
        concepts = [list(contrasts)] if isinstance(next(iter(contrasts), None), Contrast) else [*map(list, contrasts)]
        if not concepts or len({len(one) for one in concepts}) != 1 or not concepts[0]:
            raise LawError(
                f"{type(self).__name__}: got contrasts of {[len(one) for one in concepts]} blocks, expected one for "
                "each block, as many for each concept."
            )
        self.setpoint = _levels(self.setpoint, count=len(concepts))
        by_block = [list(row) for row in zip(*concepts, strict=True)]
        features = [Feature.of(row) for row in by_block]
        if not any(feature.known for feature in features):
            raise LawError(
                f"{type(self).__name__}: both classes have the same mean at the inputs of all {len(features)} blocks. "
                "Likely cause: both classes hold the same states; wrong token."
            )
        return by_block, features

    def _build(self, by_block: list[list[Contrast]], features: list[Feature], push: Callable[[int], Push]) -> Self:
        """A sensor and an input at each block where something is known."""
        parts: list[Law] = []
        for block, (row, feature) in enumerate(zip(by_block, features, strict=True)):
            if feature.known:
                reading = Reading(reference=self.reference).hold(feature, self.setpoint, row[0])
                acting = push(block)
                acting.header = replace(row[0].header, point="resid_post") if row[0].header is not None else None
                parts += [reading, acting]
        self.parts = nn.ModuleList(parts)
        self.lengths = torch.stack([feature.lengths for feature in features]).float()
        self.below = torch.stack([feature.below for feature in features]).float()
        self._linked()
        self.at(self._strength)
        return self

    def _linked(self) -> None:
        """One loop for all parts."""
        loop = Loop()
        for part in self.parts:
            part.loop = loop  # type: ignore[union-attr]


def check_everywhere(law: Stack, source: Source) -> None:
    """Refuse one block where a law acts at all of them: one cell would have several names.

    Raises:
        LawError: if the source's site is not at the last block.
    """
    depth, asked = source.plant.depth, source.site.resolve(source.plant.depth).layer
    if asked != depth - 1:
        raise LawError(f"{type(law).__name__}: got layer {asked}, but it acts at all {depth} blocks. Fix: layer -1.")


def _levels(setpoint: float | Sequence[float], *, count: int | None = None) -> tuple[float, ...]:
    """One finite number for each concept."""
    given = [setpoint] if isinstance(setpoint, (int, float)) else list(setpoint)
    most = torch.finfo(torch.float32).max
    if not given or not all(isinstance(x, (int, float)) and math.isfinite(x) and abs(x) <= most for x in given):
        raise LawError(f"setpoint: got {setpoint!r}, expected a finite number, or one for each concept.")
    if count is not None and len(given) == 1:
        given *= count
    if count is not None and len(given) != count:
        raise LawError(f"setpoint: got {len(given)} numbers for {count} concepts, expected one for each.")
    return tuple(map(float, given))
