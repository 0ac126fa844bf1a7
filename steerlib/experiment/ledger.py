"""The ledger: every claim on every profile, with the verdict that the pages' records give it.

Knows claims and page records; knows nothing of how either is shown, nor where records lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from steerlib.experiment.claims import PROFILES, Claim, ClaimError, Verdict
from steerlib.experiment.records import Check, PageRecord


@dataclass(frozen=True)
class Entry:
    """One claim on one profile.

    Attributes:
        claim: what the paper says.
        profile: "tiny", "gpu" or "paper".
        verdict: what we found there.
        check: the figures behind the verdict; None where nothing was measured.
        why: the check's note, or why there is no check.
    """

    claim: Claim
    profile: str
    verdict: Verdict
    check: Check | None
    why: str


@dataclass(frozen=True)
class Discoveries:
    """The ledger seen as one family of tests.

    Attributes:
        tested: entries with a p-value.
        found: how many of them stay significant at the false-discovery rate.
        rate: expected share of false findings among those found.
        adjusted: Benjamini and Hochberg's adjusted p-value by (claim id, profile).
    """

    tested: int
    found: int
    rate: float
    adjusted: Mapping[tuple[str, str], float]


def ledger(records: Iterable[PageRecord], claims: Mapping[str, Claim]) -> list[Entry]:
    """Every claim on every profile, in the order of `claims` and of `PROFILES`.

    Args:
        records: what the pages left behind, of any profiles, at most one for each page and profile.
        claims: the claims by id (`load_claims()`).

    Raises:
        ClaimError: two records of one page and profile, or a check of a claim that does not exist.
    """
    pages: dict[tuple[str, str], PageRecord] = {}
    for record in records:
        place = (record.page, record.profile)
        if place in pages:
            raise ClaimError(
                f"got two records of page {record.page} in profile {record.profile}, on {pages[place].plant} and "
                f"{record.plant}; expected one: give the records of one run, such as build/tiny/records"
            )
        if strange := sorted(record.checks.keys() - claims.keys()):
            raise ClaimError(
                f"the records of {record.page} check {', '.join(strange)}, which data/claims does not hold; run "
                "`make book` again, which executes the page anew"
            )
        pages[place] = record
    return [
        _entry(claim, profile, pages.get((claim.page, profile))) for claim in claims.values() for profile in PROFILES
    ]


def _entry(claim: Claim, profile: str, record: PageRecord | None) -> Entry:
    check = record.checks.get(claim.id) if record else None
    if check is not None:
        return Entry(claim, profile, Verdict(check.verdict), check, check.note)
    if profile not in claim.profiles:
        return Entry(claim, profile, Verdict.CANNOT_CHECK, None, claim.barred(profile))
    if record is None:
        why = f"{claim.page} has not been run in this profile"
    elif not record.finished:
        why = f"{claim.page} did not finish"
    else:
        why = f"{claim.page} ran without checking it"
    return Entry(claim, profile, Verdict.NOT_RUN, None, why)


def discoveries(entries: Sequence[Entry], *, rate: float = 0.05) -> Discoveries:
    """False-discovery control over all entries with a p-value (Benjamini and Hochberg).

    A ledger of many claims, each tested at its own level, holds some verdicts by luck; of the `found` ones at most
    a share `rate` is expected to be. Exact claims have no p-value and take no part.
    """
    tested = [(entry, entry.check.p) for entry in entries if entry.check is not None and entry.check.p is not None]
    if not tested:
        return Discoveries(0, 0, rate, {})
    from scipy.stats import false_discovery_control  # steerlib.metrics has it, too, and would load torch for it

    adjusted = false_discovery_control([p for _, p in tested])
    table = {(entry.claim.id, entry.profile): float(p) for (entry, _), p in zip(tested, adjusted, strict=True)}
    return Discoveries(len(tested), sum(p <= rate for p in table.values()), rate, table)
