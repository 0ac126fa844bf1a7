"""What a notebook found and where it comes from: records, provenance, claims, and the `Page` that writes them.

Names are loaded when first used: the pipeline reads records without loading a plotting library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

# Public name -> module that defines it. The pipeline reads this table to know what a notebook depends on.
_EXPORTS: dict[str, str] = {
    "Claim": "steerlib.experiment.claims",
    "ClaimError": "steerlib.experiment.claims",
    "Verdict": "steerlib.experiment.claims",
    "load_claims": "steerlib.experiment.claims",
    "Page": "steerlib.experiment.page",
    "PageRecord": "steerlib.experiment.records",
    "RecordError": "steerlib.experiment.records",
    "read_record": "steerlib.experiment.records",
}

__all__ = ["Claim", "ClaimError", "Page", "PageRecord", "RecordError", "Verdict", "load_claims", "read_record"]

if TYPE_CHECKING:
    from steerlib.experiment.claims import Claim, ClaimError, Verdict, load_claims
    from steerlib.experiment.page import Page
    from steerlib.experiment.records import PageRecord, RecordError, read_record


def __getattr__(name: str) -> object:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'steerlib.experiment' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
