"""Clocks for a machine that may be busy: wall time, time of the processor, and how much others ran meanwhile.

Knows processes and clocks. Knows nothing about what is measured.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch
from scipy import stats

#: Seconds, some ticks of the system's count of busy processors.
TELLING = 0.1


def _busy() -> float:
    """Seconds that all processors together have worked since the machine was started."""
    now = psutil.cpu_times()
    return sum(getattr(now, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))


@dataclass(frozen=True)
class Clock:
    """Where seconds are read; a test gives one that goes on only when it is told to.

    Attributes:
        wall: the clock on the wall.
        work: what this process has worked, all threads together.
        busy: what all processors have worked, for whomever.
    """

    wall: Callable[[], float] = time.perf_counter
    work: Callable[[], float] = time.process_time
    busy: Callable[[], float] = _busy


@dataclass(frozen=True)
class Spent:
    """What a call took.

    Attributes:
        wall: seconds on the clock.
        processor: seconds of this process on processors, all threads together; waiting for a core does not count.
        others: processors that other processes kept busy meanwhile, on average; None for a call shorter than the ticks
            in which the system counts can tell.
    """

    wall: float
    processor: float
    others: float | None


def spent(run: Callable[[], object], clock: Clock | None = None) -> Spent:
    """What one call takes, waiting for a GPU if there is one."""
    clock = clock or Clock()
    before = clock.busy()
    _wait()
    start, work = clock.wall(), clock.work()
    run()
    _wait()
    wall, work = clock.wall() - start, clock.work() - work
    return Spent(wall, work, max(0.0, (clock.busy() - before - work) / wall) if wall >= TELLING else None)


def in_turn(
    ways: Sequence[Callable[[], AbstractContextManager[object]]],
    run: Callable[[], object],
    *,
    rounds: int,
    clock: Clock | None = None,
) -> list[list[Spent]]:
    """The same call in several ways, one after another, in the reverse order in every other round.

    So neither a drift nor the place in a round favours one of them.

    Args:
        ways: each makes what the call runs within; entering and leaving it is not counted.
        run: the call.
        rounds: how often.
        clock: where seconds are read; the machine's own by default.

    Returns:
        What it took, for each way one a round.
    """
    found: list[list[Spent]] = [[] for _ in ways]
    for number in range(rounds):
        order = range(len(ways))
        for which in order if number % 2 == 0 else reversed(order):
            with ways[which]():
                found[which].append(spent(run, clock))
    return found


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Median of the ratios of each round, with its 95 % interval (of ranks, which supposes nothing about the noise)."""
    ratios = np.array(over) / np.array(under)
    interval = stats.quantile_test(ratios, p=0.5).confidence_interval(0.95)
    low, high = (float(end) for end in interval)
    # Too few rounds for an interval have the widest one there is.
    low, high = (ratios.min() if np.isnan(low) else low), (ratios.max() if np.isnan(high) else high)
    return {"ratio": round(float(np.median(ratios)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def memory_mb() -> float:
    """Resident memory of this process now."""
    return psutil.Process().memory_info().rss / 2**20


def peak_mb() -> float:
    """Largest resident memory of this process until now.

    On Linux `ru_maxrss` of a new process begins with what its parent held; the peak of the status file does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # macOS counts bytes, Linux kilobytes


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
