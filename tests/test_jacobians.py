"""Jacobians of blocks over depth, against finite differences and against the definition of the released code."""

from __future__ import annotations

import pytest
import torch

from steerlib.blocks import freeze
from steerlib.jacobians import jacobian_of
from tests import families

TEXTS = [families.words(5, 6, 7, 8, 9, 10), families.words(11, 12, 13), families.words(4)]


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_against_finite_differences(family: str) -> None:
    plant = families.plant(family)
    for frozen in freeze(plant, plant.encode(TEXTS)):
        block, step = frozen.to(torch.float64), 1e-5
        moves = step * torch.eye(families.WIDTH, dtype=torch.float64)
        columns = [(block(block.state + move) - block(block.state - move)) / (2 * step) for move in moves]
        numeric = torch.stack(columns, -1)
        assert numeric.abs().max() > 0.5
        torch.testing.assert_close(jacobian_of(block, block.state), numeric, atol=1e-8, rtol=0)
