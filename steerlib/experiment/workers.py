"""Work in worker processes: a death costs one item, an interrupt is prompt, and no worker outlives its parent.

Knows processes and signals. Knows nothing about what a cell computes or how it is kept.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, TypeVar

from steerlib.experiment.store import Store, StoreError
from steerlib.files import DiskFullError

#: What a worker is given: a cell, or whatever else is computed and kept on its own.
Item = TypeVar("Item")


def said_of(run: Callable[[], str]) -> tuple[str | None, str]:
    """What came of a cell: its outcome, or None and the reason why it failed.

    One bad cell must not cost the others; a store that takes no records costs them all, and a dead pool is not a cell.
    """
    try:
        return run(), ""
    except (StoreError, DiskFullError, BrokenProcessPool):
        raise
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def in_processes(
    todo: list[Item],
    store: Store,
    act: Callable[[Item, str, str], str],
    jobs: int,
    devices: Sequence[str],
    note: Callable[..., None],
) -> None:
    """Workers are spawned, so that each has a torch of its own.

    When a worker is killed, all cells under way are lost with the pool, and nobody knows which of them was too much.
    So each of them is tried again alone, where a death has one cause.
    """
    queue = list(todo)
    while queue:
        queue, suspects = _until_broken(queue, store, act, jobs, devices, note)
        for cell in suspects:
            left, guilty = _until_broken([cell], store, act, 1, devices, note)
            if left or guilty:
                note(cell, None, "its worker process was killed, twice (out of memory?)")


def _until_broken(
    queue: list[Item],
    store: Store,
    act: Callable[[Item, str, str], str],
    jobs: int,
    devices: Sequence[str],
    note: Callable[..., None],
) -> tuple[list[Item], list[Item]]:
    """Work on a queue until it is empty or a worker dies; returns what was not begun, and what was under way then."""
    context = multiprocessing.get_context("spawn")
    counter = context.Value("i", 0)
    theirs, ours = context.Pipe(duplex=False)
    setup = (max(1, (os.cpu_count() or 1) // jobs), counter, tuple(devices), theirs)
    waiting: dict[Future[str], Item] = {}
    lost: list[Item] = []

    def take(future: Future[str]) -> None:
        cell = waiting.pop(future)
        try:
            note(cell, *said_of(future.result))
        except BrokenProcessPool:
            lost.append(cell)

    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare, initargs=setup) as pool:
        try:
            while (queue or waiting) and not lost:
                try:
                    while queue and len(waiting) < jobs:  # handed out late, so that few are lost when a worker dies
                        with _deaf_to_interrupts():
                            waiting[pool.submit(_call, act, queue[0], str(store.folder))] = queue[0]
                        queue = queue[1:]
                except BrokenProcessPool:
                    if not waiting:  # it broke before anything was begun: nothing to suspect or to go on with
                        raise
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    take(future)
            for future in list(waiting):
                take(future)
        except BaseException:
            ours.close()  # ends the workers now; the pool would wait for what they have under way
            raise
    return queue, lost


def _prepare(threads: int, counter: Any, devices: tuple[str, ...], lifeline: Connection) -> None:
    """In a new worker: end with the parent, take a share of the cores, and a device."""
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    os.environ["STEERLIB_WORKER_DEVICE"] = devices[number % len(devices)]


def _end_with(lifeline: Connection) -> None:
    """Wait until the other end is closed, which the system does when the parent dies, by any signal; then end.

    A worker that waits for work would otherwise wait forever: it holds the writing end of its own queue. What it has
    under way is lost; records are moved into place whole, and its lock goes with it.
    """
    wait_for([lifeline])
    os._exit(1)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Processes begun inside never see Ctrl-C, which a terminal sends to them, too: they end with their parent.

    Here an interrupt is only put off until the block ends. Where signals cannot be blocked (Windows) nothing happens.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call(act: Callable[[Item, str, str], str], cell: Item, folder: str) -> str:
    return act(cell, folder, os.environ["STEERLIB_WORKER_DEVICE"])
