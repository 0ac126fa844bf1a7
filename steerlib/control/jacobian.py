"""Jacobians of a function, row by row, in chunks that fit into a given memory.

Knows functions from vectors to vectors; knows nothing about layers, tokens or language models: what a block is, and
what is held still around it, is `steerlib.blocks`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Mode = Literal["reverse", "forward"]
#: Bytes that the directions of one chunk may take by default.
MEMORY = 1 << 28


class ChunkShrunkWarning(UserWarning):
    """Fewer directions at a time than asked for, since more would not fit into the memory."""


def jacobian(
    function: Function,
    point: Float[Tensor, "rows width"],
    *,
    mode: Mode = "reverse",
    chunk: int | None = None,
    memory: int = MEMORY,
    each: int | None = None,
    average: bool = False,
) -> Float[Tensor, "*rows outputs width"]:
    """Full Jacobian of a function that treats every row by itself, d function(z)_i / d z_j at each row.

    Args:
        function: from (rows, width) to (rows, outputs); row i of the result depends on row i of the argument alone.
        point: where to differentiate.
        mode: "reverse" gives rows of the Jacobian from output directions, "forward" columns from input directions.
        chunk: directions at a time; by default as many as fit.
        memory: bytes that the directions of one chunk may take, beside the Jacobian itself.
        each: bytes that one direction takes for one row of the point; by default 64 numbers for each of its entries.
        average: give the mean over rows, which then never holds more than one matrix.

    Returns:
        (rows, outputs, width), or (outputs, width) where averaged, in the type of the point.

    Raises:
        ValueError: if the point is no matrix, is empty or not finite, or a bound or the mode has no meaning.
    """
    check_point(point)
    if mode not in ("reverse", "forward"):
        raise ValueError(f"mode: got {mode!r}, expected 'reverse' or 'forward'.")
    rows, width = point.shape
    if mode == "reverse":
        output, pull = torch.func.vjp(function, point)[:2]
        other, along = output.shape[-1], torch.func.vmap(lambda v: pull(v)[0])
    else:
        other, along = width, torch.func.vmap(lambda v: torch.func.jvp(function, (point,), (v,))[1])
    size = chunk_size(other, rows * (each or 64 * width * point.element_size()), chunk=chunk, memory=memory)
    whole, start = None, 0
    while start < other:
        unit = _unit(other, start, min(other, start + size), like=point)
        try:
            found = along(unit[:, None].expand(-1, rows, -1)).detach()  # (directions, rows, width or outputs)
        except RuntimeError as error:
            size = _smaller(size, error)
            continue
        found = found.mean(1) if average else found.transpose(0, 1)
        if whole is None:
            whole = found.new_empty(*found.shape[:-2], other, found.shape[-1])
        whole[..., start : start + len(unit), :] = found
        start += len(unit)
    assert whole is not None
    return whole if mode == "reverse" else whole.mT.contiguous()


def chunk_size(directions: int, each: int, *, chunk: int | None = None, memory: int = MEMORY) -> int:
    """Directions at a time: as many as asked for, or fewer where they would not fit, which a warning says.

    Args:
        directions: how many there are.
        each: bytes that one takes.
        chunk: how many are asked for; all by default, and then fewer are no news.
        memory: bytes that they may take together.

    Raises:
        ValueError: if a bound is not positive.
    """
    for name, value in (("chunk", chunk), ("memory", memory)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"{name}: got {value!r}, expected a whole number of at least 1.")
    fits = max(1, memory // max(1, each))
    wanted = min(directions, chunk if chunk is not None else directions)
    if chunk is not None and fits < wanted:
        warnings.warn(
            f"chunk: {wanted} directions at a time would take {wanted * each / 2**20:.0f} MiB, more than the "
            f"{memory / 2**20:.0f} MiB allowed: {fits} at a time. Fix: a larger memory, or a smaller chunk.",
            ChunkShrunkWarning,
            stacklevel=3,
        )
    return min(wanted, fits)


def _unit(count: int, start: int, stop: int, *, like: Tensor) -> Tensor:
    """Unit vectors number start to stop."""
    unit = torch.zeros(stop - start, count, dtype=like.dtype, device=like.device)
    unit[torch.arange(stop - start), torch.arange(start, stop)] = 1
    return unit


def _smaller(size: int, error: RuntimeError) -> int:
    """Half as many directions where memory has run out; any other error goes on its way."""
    if size == 1 or not (isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)):
        raise error
    warnings.warn(
        f"memory: {size} directions at a time did not fit after all: {size // 2} at a time. "
        "Fix: a smaller memory or chunk, or fewer rows at a time.",
        ChunkShrunkWarning,
        stacklevel=4,
    )
    return size // 2


def check_point(point: Tensor) -> None:
    """Refuse what cannot be differentiated at.

    Raises:
        ValueError: if it is no floating-point matrix, or empty, or not finite.
    """
    if point.dim() != 2 or not point.is_floating_point() or 0 in point.shape:
        raise ValueError(
            f"point: got {tuple(point.shape)} of {point.dtype}, expected a filled (rows, width) of floats."
        )
    if not torch.isfinite(point).all():
        raise ValueError("point: got entries that are not finite. Fix: look at the states where they were recorded.")
