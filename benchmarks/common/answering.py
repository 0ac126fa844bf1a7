"""Generation under a law and without one, in turns: what benchmarks of decoding time share.

Knows plants and turns; knows nothing about which laws there are, or what becomes of the seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from common.timing import Clock, Spent, in_turn
from steerlib.plant import Plant


def answering(plant: Plant, prompts: Sequence[str], *, tokens: int, compile: str | None) -> Callable[[], object]:
    """A call that answers the prompts in one batch, each with so many tokens."""

    def run() -> object:
        return plant.generate(
            prompts, max_new_tokens=tokens, seed=0, batch_size=len(prompts), compile=compile,
            cache="static" if compile else "dynamic",
        )  # fmt: skip

    return run


def beside_unsteered(
    run: Callable[[], object],
    enter: Callable[[], AbstractContextManager[object]],
    *,
    rounds: int,
    compile: str | None,
    clock: Clock | None = None,
) -> tuple[list[Spent], list[Spent]]:
    """What a call takes as it is, and within something, round by round, once all is warm.

    Args:
        run: see `answering`.
        enter: makes what the call runs within.
        rounds: turns of each.
        compile: with what the call is compiled, or None.
        clock: where seconds are read; the machine's own by default.

    Raises:
        RuntimeError: if the code were to be compiled once more while it is measured, so that the figure would be of
            something else.
    """
    ways: tuple[Callable[[], AbstractContextManager[object]], ...] = (nullcontext, enter)
    if compile is not None:  # dynamo keeps few codes, and looks through all that it keeps at every step
        torch._dynamo.reset()
    in_turn(ways, run, rounds=2 if compile else 1, clock=clock)  # caches, allocations, compiled code
    with torch.compiler.set_stance("fail_on_recompile") if compile else nullcontext():
        free, within = in_turn(ways, run, rounds=rounds, clock=clock)
    return free, within
