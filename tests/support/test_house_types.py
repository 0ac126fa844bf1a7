from __future__ import annotations

import jaxtyping
import pytest
import torch
from house_types import check
from jaxtyping import Float
from torch import Tensor


@jaxtyping.jaxtyped(typechecker=check)
def double(state: Float[Tensor, "batch width"], how: str = "sum") -> Float[Tensor, "batch width"]:
    return state.sum(dim=0) if how == "other" else state + state


def test_a_wrong_shape_is_caught_on_the_way_in_and_out() -> None:
    double(torch.zeros(2, 3))
    with pytest.raises(TypeError):
        double(torch.zeros(3))
    with pytest.raises(TypeError):
        double(torch.zeros(2, 3), how="other")


def test_other_types_are_left_to_the_library() -> None:
    def name(of: int) -> str:
        return str(of)

    assert check(name) is name
    double(torch.zeros(1, 3), how=None)  # type: ignore[arg-type]


def test_the_checks_are_on_in_this_run() -> None:
    """Calls the library with a tensor of the wrong shape: its annotation must be what stops it."""
    from steerlib.sampling import uniforms

    with pytest.raises(TypeError, match="rows"):
        uniforms(0, torch.zeros(2, 2, dtype=torch.int64), step=0, columns=3)
