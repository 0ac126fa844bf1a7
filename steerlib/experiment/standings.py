"""The table of a race: what each entry reached on test prompts, and how it differs from its opponents.

Knows entries and their records. Knows nothing about how they came about.

Columns: `method`, `setting`, `control`; `layer` and `strength` (mean over seeds) of what was chosen, `spent` (mean
cost at equal budget), `chosen_from` (candidates), `validation` (the score it was chosen by); `metric` with `value`,
`low`, `high`, over `prompts` and `seeds`; `against` with `difference`, `difference_low`, `difference_high`, `p`,
`p_holm` and `detectable`; `note`. What could not be measured is NaN, and `note` says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from steerlib.experiment.selecting import SCORES, ScoreName, grids
from steerlib.metrics.differences import Difference, detectable_effect, holm, paired_grid_difference
from steerlib.metrics.intervals import Estimate, grid_interval
from steerlib.metrics.products import (
    Scored,
    product_detectable_effect,
    product_grid_difference,
    product_grid_interval,
)

if TYPE_CHECKING:
    import pandas as pd

    from steerlib.experiment.races import Entry, Race

NAN = float("nan")


def standings(race: Race, *, seed: int = 0, resamples: int = 2000) -> pd.DataFrame:
    """One row for each entry, metric and opponent, as the module says.

    Holm's correction counts the methods that meet one opponent at one setting in one metric; controls are not among
    them, for a control is no finding.

    Args:
        race: the outcome.
        seed: of the bootstraps.
        resamples: of the bootstraps.
    """
    import pandas as pd

    options = {"level": 1 - race.level, "seed": seed, "resamples": resamples}
    found = {(entry.name, entry.setting): entry for entry in race.entries}
    rows: list[dict[str, Any]] = []
    for entry in race.entries:
        scored = grids(entry.records) if entry.records else None
        for metric in SCORES:
            base = {**_about(entry), "metric": metric, **_value(scored, metric, **options)}
            opponents = [name for name in race.against if name != entry.name] if entry.setting != "none" else []
            for name in opponents or [""]:
                other = found.get((name, "none")) or found.get((name, entry.setting))
                opponent = grids(other.records) if other is not None and other.records else None
                gap = _difference(scored, opponent, metric, level=race.level, seed=seed, resamples=resamples)
                rows.append({**base, "against": name, **gap, "note": entry.note})
    table = pd.DataFrame(rows)
    table["p_holm"] = NAN
    compared = table[(table["against"] != "") & ~table["control"] & table["p"].notna()]
    for _, group in compared.groupby(["setting", "metric", "against"]):
        table.loc[group.index, "p_holm"] = holm(np.asarray(group["p"], dtype=float))
    return table


def _about(entry: Entry) -> dict[str, Any]:
    laws = [record.cell.law for record in entry.records if record.cell.law is not None]
    chosen = entry.selection
    return {
        "method": entry.name,
        "setting": entry.setting,
        "control": entry.control,
        "layer": laws[0].layer if laws else None,
        "strength": float(np.mean([law.strength for law in laws])) if laws else NAN,
        "spent": float(np.mean([c.cost for c in entry.calibrations])) if laws and entry.calibrations else NAN,
        "chosen_from": 0 if chosen is None else len(chosen.scores),
        "validation": NAN if chosen is None else chosen.score,
        "seeds": len(entry.records),
        "prompts": len(entry.records[0].scores["wanted"]) if entry.records else 0,
    }


def _value(scored: Scored | None, metric: ScoreName, *, level: float, seed: int, resamples: int) -> dict[str, float]:
    if scored is None:
        return {"value": NAN, "low": NAN, "high": NAN}
    found: Estimate
    if metric == "combined":
        found = product_grid_interval(*scored, level=level, seed=seed, resamples=resamples)
    else:
        found = grid_interval(scored[metric == "intact"], level=level, seed=seed, resamples=resamples)
    return {"value": found.value, "low": found.low, "high": found.high}


def _difference(
    scored: Scored | None, other: Scored | None, metric: ScoreName, *, level: float, seed: int, resamples: int
) -> dict[str, float]:
    names = ("difference", "difference_low", "difference_high", "p", "detectable")
    if scored is None or other is None:
        return dict.fromkeys(names, NAN)
    gap: Difference
    if metric == "combined":
        gap = product_grid_difference(scored, other, level=1 - level, seed=seed, resamples=resamples)
        least = product_detectable_effect(scored, other, level=level)
    else:
        a, b = scored[metric == "intact"], other[metric == "intact"]
        gap = paired_grid_difference(a, b, level=1 - level, seed=seed, resamples=resamples)
        least = detectable_effect((a - b).mean(0), level=level)
    return dict(zip(names, (gap.value, gap.low, gap.high, gap.p, least), strict=True))
