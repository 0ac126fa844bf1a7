"""Off-target drift: what steering one behaviour does to the others.

Knows scores of behaviours before and after. Knows nothing about how they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from steerlib.errors import MetricError


@dataclass(frozen=True)
class Ends:
    """A behaviour's scores without steering and with the best that can be asked for by prompting.

    Attributes:
        bare: mean score of the unsteered plant.
        best: mean score of the plant that is told; where nothing can be told, the best possible score.
    """

    bare: float
    best: float


@dataclass(frozen=True)
class Drift:
    """Changes of the other behaviours.

    Attributes:
        shares: change of each, as a share of the gap between its ends, with its sign.
        largest: name of the one that moved most, in either direction.
        worst: how far it moved, without sign.
        relative: ``worst`` over what the law did to its own behaviour.
    """

    shares: dict[str, float]
    largest: str
    worst: float
    relative: float


def drift(own: str, ends: Mapping[str, Ends], steered: Mapping[str, float]) -> Drift:
    """Drift of every behaviour but a law's own, in the units of each behaviour's own gap.

    A point of toxicity is not a point of truth: what makes them comparable is how far prompting can move each.

    Args:
        own: the behaviour that the law was fitted for.
        ends: of every behaviour.
        steered: mean score of every behaviour under the law.

    Raises:
        MetricError: if a behaviour is missing on one side, there is no other behaviour, or one has no gap.
    """
    if set(ends) != set(steered) or own not in ends:
        raise MetricError(
            f"drift: got ends of {sorted(ends)}, scores of {sorted(steered)}, own {own!r}; expected the same "
            "behaviours, the law's own among them."
        )
    if len(ends) < 2:
        raise MetricError("drift: got one behaviour, expected others beside it.")
    shares = {}
    for name, end in ends.items():
        if end.best == end.bare:
            raise MetricError(f"drift: {name} has the same score {end.bare:g} at both ends, so no gap to measure in.")
        shares[name] = (steered[name] - end.bare) / (end.best - end.bare)
    others = {name: abs(share) for name, share in shares.items() if name != own}
    largest = max(others, key=lambda name: others[name])
    effect = abs(shares[own])
    return Drift(shares, largest, others[largest], others[largest] / effect if effect else float("inf"))
