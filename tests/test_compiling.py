"""Backends that cannot work are refused before they are tried."""

from __future__ import annotations

import shutil

import pytest
import torch

from steerlib.compiling import BackendError, check_backend
from tests.families import plant, words

CPU = torch.device("cpu")


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(BackendError, match="got backend 'induktor', expected one of .*inductor"):
        plant("llama").generate([words(5)], max_new_tokens=1, seed=0, cache="static", compile="induktor")


def test_inductor_needs_a_path_without_spaces_and_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__file__", "/a folder/torch/__init__.py")
    with pytest.raises(BackendError, match="path with a space"):
        check_backend("inductor", device=CPU)
    check_backend("eager", device=CPU)
    check_backend("inductor", device=torch.device("cuda"))
    monkeypatch.setattr(torch, "__file__", "/folder/torch/__init__.py")
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(BackendError, match=r"no C\+\+ compiler"):
        check_backend("inductor", device=CPU)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    check_backend("inductor", device=CPU)
