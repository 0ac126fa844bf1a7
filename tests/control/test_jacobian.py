"""Jacobians in chunks, against functions whose Jacobian is written down."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from steerlib.control.jacobian import ChunkShrunkWarning, chunk_size, jacobian

POINT = torch.tensor([[0.3, -1.0, 2.0], [1.5, 0.2, -0.4]], dtype=torch.float64)
WEIGHTS = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 3.0], [2.0, 0.5, 1.0], [1.0, 1.0, 1.0]], dtype=torch.float64)


def wide(z: Tensor) -> Tensor:
    """From three numbers to four."""
    return torch.tanh(z @ WEIGHTS.T)


EXPECTED = (1 - wide(POINT).square())[..., None] * WEIGHTS


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 100])
def test_every_mode_and_chunk_gives_the_same_rows_and_columns(mode: Any, chunk: int | None) -> None:
    found = jacobian(wide, POINT, mode=mode, chunk=chunk)
    torch.testing.assert_close(found, EXPECTED)
    torch.testing.assert_close(jacobian(wide, POINT, mode=mode, chunk=chunk, average=True), EXPECTED.mean(0))


def test_the_chunk_is_what_fits_and_says_when_less_was_asked_than_given() -> None:
    assert chunk_size(100, 10, memory=1000) == 100
    assert chunk_size(100, 10, memory=300) == 30  # nothing was asked for, nothing is said
    assert chunk_size(100, 10, chunk=7, memory=300) == 7
    assert chunk_size(100, 1000, memory=300) == 1
    with pytest.warns(ChunkShrunkWarning, match="50 directions at a time would take .* 30 at a time"):
        assert chunk_size(100, 10, chunk=50, memory=300) == 30


def test_memory_that_runs_out_halves_the_chunk_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tried = torch.func.vmap, []

    def short(function: Any) -> Any:
        def run(directions: Tensor) -> Tensor:
            tried.append(len(directions))
            if len(directions) > 1:
                raise torch.OutOfMemoryError("no memory")
            return real(function)(directions)

        return run

    monkeypatch.setattr(torch.func, "vmap", short)
    with pytest.warns(ChunkShrunkWarning, match="4 directions at a time did not fit after all: 2 at a time"):
        found = jacobian(wide, POINT)
    assert tried == [4, 2, 1, 1, 1, 1]
    torch.testing.assert_close(found, EXPECTED)


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    def broken(z: Tensor) -> Tensor:
        raise RuntimeError("a fault of its own")

    with pytest.raises(RuntimeError, match="a fault of its own"):
        jacobian(broken, POINT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "sideways"}, "mode: got 'sideways'"),
        ({"chunk": 0}, "chunk: got 0"),
        ({"memory": -1}, "memory: got -1"),
        ({"point": torch.zeros(3)}, r"point: got \(3,\)"),
        ({"point": torch.zeros(0, 3)}, r"point: got \(0, 3\)"),
        ({"point": torch.zeros(1, 3, dtype=torch.long)}, "of torch.int64"),
        ({"point": torch.full((1, 3), torch.nan)}, "not finite"),
    ],
)
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    point = options.pop("point", POINT)
    with pytest.raises(ValueError, match=message):
        jacobian(wide, point, **options)
