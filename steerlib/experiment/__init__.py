"""What a notebook found and where it comes from: records, provenance, claims, and the `Page` that writes them."""

from steerlib.experiment.claims import Claim, ClaimError, Verdict, load_claims
from steerlib.experiment.page import Page
from steerlib.experiment.records import PageRecord, RecordError, read_record

__all__ = ["Claim", "ClaimError", "Page", "PageRecord", "RecordError", "Verdict", "load_claims", "read_record"]
