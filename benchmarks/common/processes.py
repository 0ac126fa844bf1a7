"""A function in a process of its own: for peaks of memory, and so that what dies or hangs takes nothing with it.

Knows processes. Knows nothing about what they do, and imports nothing heavy, so that a new one starts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


def alone(work: Callable[..., dict[str, Any]], *arguments: Any, most: float | None = None) -> dict[str, Any]:
    """What a function of a module returns in a new process; `{"failed": why}` if there is no answer.

    Args:
        work: the function.
        arguments: of the function.
        most: seconds, after which the process is ended.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        if not receiver.poll(most):
            return {"failed": f"ended after {most:g} s"}
        return receiver.recv()
    except EOFError:
        process.join()
        return {"failed": f"ended by itself with code {process.exitcode}"}
    finally:
        process.kill()
        process.join()
        receiver.close()


def _tell(sender: Connection, work: Callable[..., dict[str, Any]], arguments: Sequence[Any]) -> None:
    try:
        sender.send(work(*arguments))
    except Exception as error:  # one law that cannot be measured must not end a run of many
        sender.send({"failed": f"{type(error).__name__}: {error}"})
