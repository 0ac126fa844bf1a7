"""Refuse a `torch.compile` backend that cannot work here, before anything is compiled.

Knows what the backends need from the machine; knows nothing about models.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from steerlib.errors import SteerlibError


class BackendError(SteerlibError, ValueError):
    """A compiler backend that does not exist, or cannot work on this machine."""


def check_backend(backend: str, *, device: torch.device) -> None:
    """Refuse a backend that would fail, with what to do instead.

    Raises:
        BackendError: unknown backend; or Inductor on a CPU without a C++ compiler, or with torch installed in a folder
            whose path has a space, which its linker command does not quote.
    """
    known = torch._dynamo.list_backends(exclude_tags=())
    if backend not in known:
        raise BackendError(f"compile: got backend {backend!r}, expected one of {', '.join(sorted(known))}.")
    if backend != "inductor" or device.type != "cpu":
        return
    home = Path(torch.__file__).parent
    if " " in str(home):
        raise BackendError(
            f"compile='inductor': torch is installed in {str(home)!r}, and its compiler cannot link from a path with a "
            "space. Fix: move the project to a path without one, or use compile='eager' or no compilation."
        )
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        raise BackendError("compile='inductor': no C++ compiler found. Fix: apt install g++, or no compilation.")
