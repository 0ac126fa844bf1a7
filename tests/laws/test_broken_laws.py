"""The contracts of laws can fail: each is broken once, by a law that makes one common mistake."""

from __future__ import annotations

import inspect
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steerlib.laws.additive import Additive, DifferenceOfMeans
from tests.laws import chatter
from tests.laws import test_contracts as contracts

VARIANT, FAMILY = contracts.FIRST[0], "llama"


class AcrossRows(DifferenceOfMeans):
    """Looks at the other rows of the batch."""

    def input(self, state: Tensor) -> Tensor:
        return super().input(state) + (state - state.mean(0, keepdim=True))


class WithoutStrength(DifferenceOfMeans):
    """Forgets that it can be switched off."""

    def forward(self, state: Tensor) -> Tensor:
        return state + self.input(state)


class FirstForever(DifferenceOfMeans):
    """Latches a fact about the first prompts it sees, and never again."""

    sees_pass = True
    latched: Tensor | None = None

    def during(self, state: Tensor, now: Any) -> Tensor:
        if self.latched is None:
            self.latched = state.mean((0, 1))
        return self(state) + self.latched


class ByPosition(DifferenceOfMeans):
    """Counts columns where it should count tokens."""

    sees_pass = True

    def during(self, state: Tensor, now: Any) -> Tensor:
        return state + self.strength * self.vector * torch.arange(state.shape[1])[:, None]


class Waiting(DifferenceOfMeans):
    """Asks for a number in the middle of a pass."""

    def input(self, state: Tensor) -> Tensor:
        return super().input(state) * (2.0 if state.abs().max().item() > 1e-3 else 1.0)


class Unsaved(DifferenceOfMeans):
    """Keeps something that it needs outside of its buffers."""

    sign = 1.0

    def fit(self, contrast: Any) -> Unsaved:
        self.sign = -1.0
        return super().fit(contrast)

    def input(self, state: Tensor) -> Tensor:
        return self.sign * super().input(state)


class Remembering(DifferenceOfMeans):
    """Saves what it saw of an answer."""

    def input(self, state: Tensor) -> Tensor:
        self.vector += 0.1
        return super().input(state)


class Trainable(DifferenceOfMeans):
    """Holds a parameter."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.scale_factor = nn.Parameter(torch.ones(()))


class Narrow(DifferenceOfMeans):
    """Squares in the precision of the state."""

    def input(self, state: Tensor) -> Tensor:
        big = 300 * state
        return super().input(state) * (
            (big * big).sum(-1, keepdim=True).sqrt() / 300 / state.norm(dim=-1, keepdim=True)
        )


class SteersPadding(Additive):
    """Changes the state in place, whatever the scope."""

    def forward(self, state: Tensor) -> Tensor:
        if float(self.strength) != 0:
            state += self.strength * self.vector
        return state.clone()

    def fit(self, contrast: Any) -> SteersPadding:
        return self._hold(contrast.positive.mean(0), contrast)


BROKEN = [
    (WithoutStrength, "test_it_matters_and_zero_strength_is_no_law_bit_for_bit"),
    (AcrossRows, "test_padding_batch_and_cache_change_nothing"),
    (ByPosition, "test_padding_batch_and_cache_change_nothing"),
    (ByPosition, "test_teacher_forced_logprobs_are_those_of_the_steps"),
    (ByPosition, "test_a_forest_scores_as_separate_rows"),
    (FirstForever, "test_nothing_is_remembered_from_other_prompts"),
    (SteersPadding, "test_padding_is_never_steered"),
    (Unsaved, "test_a_saved_law_is_the_same_law"),
    (Remembering, "test_a_saved_law_is_the_same_law"),
    (Waiting, "test_it_never_makes_the_host_wait"),
    (Trainable, "test_it_keeps_no_gradient_and_no_inference_tensors"),
    (Narrow, "test_half_precision_is_finite_and_near"),
]


@pytest.mark.parametrize(("kind", "contract"), BROKEN, ids=[f"{k.__name__}-{c}" for k, c in BROKEN])
def test_a_broken_law_fails(kind: Any, contract: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fitted = kind().fit_from(chatter.source(contracts.plant_of(FAMILY), VARIANT)).at(VARIANT.strength)
    monkeypatch.setattr(contracts, "law_of", lambda *_: deepcopy(fitted))
    check = getattr(contracts.TestEveryLaw(), contract)
    extra = {"tmp_path": tmp_path, "monkeypatch": monkeypatch}
    wanted = {name: value for name, value in extra.items() if name in inspect.signature(check).parameters}
    with pytest.raises(AssertionError):
        check(VARIANT, FAMILY, **wanted)


def test_every_contract_is_broken_once() -> None:
    every = {name for name in vars(contracts.TestEveryLaw) if name.startswith("test_")}
    assert every == {contract for _, contract in BROKEN}
