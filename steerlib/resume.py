"""Skip the blocks below the first push: what comes before it is the same under every law.

A sweep runs the same texts under many laws that act at the same layer. The blocks below that layer give the same
states each time, so the first run keeps them and later runs start from there.

Knows blocks and the wiring; knows nothing about texts or scores. It steps aside wherever something else could act
on the skipped blocks: hooks that are not the plant's own, or weights that have changed since.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from steerlib.plant import Plant

LIMIT = 256_000_000  # bytes that a memory may hold


class Memory:
    """Outputs of blocks, by batch and by number of skipped blocks; empties itself when full."""

    def __init__(self) -> None:
        """Start empty."""
        self._held: dict[tuple[object, ...], Any] = {}
        self._bytes = 0

    def get(self, key: tuple[object, ...]) -> Any:
        """What was kept under a key, or None."""
        return self._held.get(key)

    def keep(self, key: tuple[object, ...], output: Any) -> None:
        """Keep the output of a block."""
        state = output[0] if isinstance(output, tuple) else output
        size = state.numel() * state.element_size()
        if self._bytes + size > LIMIT:
            self._held.clear()
            self._bytes = 0
        if size <= LIMIT:
            self._held[key] = output
            self._bytes += size


@contextmanager
def resuming(plant: Plant, memory: Memory, batch: object) -> Iterator[None]:
    """Inside the block, one pass over a batch starts at the first site where something is attached.

    Args:
        plant: the plant; passes inside must not use a key-value cache, which skipped blocks would not fill.
        memory: where states are kept from run to run.
        batch: names the batch; the same name must mean the same tokens.
    """
    count = plant.wiring.untouched()
    stamp = _stamp(plant, count) if count else None
    if stamp is None:
        yield
        return
    blocks = list(plant.blocks)[:count]
    key = (batch, count, stamp)
    held = memory.get(key)
    top = blocks[-1]

    def replay(*_args: Any, **_kwargs: Any) -> Any:
        return held

    def capture(*args: Any, **kwargs: Any) -> Any:
        output = type(top).forward(top, *args, **kwargs)
        memory.keep(key, output)
        return output

    patched = blocks if held is not None else [top]
    for block in patched:
        block.forward = replay if held is not None else capture
    try:
        yield
    finally:
        for block in patched:
            del block.forward  # the class's own method shows again


def _stamp(plant: Plant, count: int) -> tuple[object, ...] | None:
    """What the outputs of the first blocks depend on besides the tokens; None if something else could act there."""
    later = {part for block in list(plant.blocks)[count:] for part in block.modules()}
    own = {block: (1, 1) for block in plant.blocks}
    own |= {plant.model: (0, 1)}
    if plant.anatomy.final_norm is not None:
        own[plant.anatomy.final_norm] = (1, 0)
    for part in plant.model.modules():
        if part not in later and ("forward" in part.__dict__ or _hooks(part) != own.get(part, (0, 0))):
            return None
    try:
        return tuple((id(p), p._version) for p in plant.model.parameters())
    except RuntimeError:  # parameters made under inference mode do not count their changes
        return None


def _hooks(part: nn.Module) -> tuple[int, int]:
    """How many hooks a module has, after and before its forward."""
    return len(part._forward_hooks), len(part._forward_pre_hooks)
