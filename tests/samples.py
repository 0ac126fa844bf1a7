"""Where the optional samples are: real data and a real pretrained model, which the project does not ship."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]


def _folder(variable: str, fallback: str) -> Path | None:
    chosen = Path(os.environ.get(variable) or _ROOT.parent / "shared" / fallback)
    return chosen if chosen.is_dir() else None


DATA = _folder("STEERLIB_DATA", "data")
MODELS = _folder("STEERLIB_MODELS", "models")

needs_data = pytest.mark.skipif(DATA is None, reason="no sample data: set STEERLIB_DATA to its folder")
needs_models = pytest.mark.skipif(MODELS is None, reason="no sample models: set STEERLIB_MODELS to their folder")
