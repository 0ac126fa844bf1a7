"""What variants of one method change, sorted by what is varied, in a shape that a phone can show.

Knows names and estimates; knows nothing about methods or how they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from steerlib.figures.style import BLUE, GREY, NARROW, ROLES, look
from steerlib.metrics import Estimate

_LETTERS = 26  # of a name on one line, so that names leave room for what is drawn
_LINE, _HEAD = 0.27, 0.42  # inches of a variant, and of the title of its group


def ablations(groups: Mapping[str, Mapping[str, Estimate]], *, xlabel: str, controls: Sequence[str] = ()) -> Figure:
    """Differences from one method as dots with intervals: a panel for each group, all on one scale.

    Args:
        groups: what is varied -> variant -> its difference from the method.
        xlabel: what the difference is, with its unit.
        controls: variants that are there to fail, in grey.

    Raises:
        ValueError: no group, or a group without variants.
    """
    if not groups or not all(groups.values()):
        raise ValueError(f"ablations: got groups {[*groups]}, expected at least one, each with a variant.")
    heights = [_HEAD + _LINE * len(group) for group in groups.values()]
    with look():
        figure, boxes = plt.subplots(
            len(groups), 1, figsize=(NARROW, sum(heights) + 0.4), squeeze=False, sharex=True,
            gridspec_kw={"height_ratios": heights},
        )  # fmt: skip
        for axis, (title, group) in zip(boxes.flat, groups.items(), strict=True):
            axis.axvline(0, color=ROLES["unsteered"], linewidth=1, linestyle="--")
            for place, (name, e) in enumerate(group.items()):
                tone = GREY if name in controls else BLUE
                axis.errorbar(
                    e.value, place, xerr=np.array([[e.value - e.low], [e.high - e.value]]), fmt="o", color=tone,
                    capsize=2, markersize=4.5, linewidth=1.4, label=name,
                )  # fmt: skip
            axis.set_yticks(range(len(group)), [fill(name, _LETTERS, break_on_hyphens=False) for name in group])
            axis.set_ylim(len(group) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.set_title(title, loc="left")
        boxes.flat[-1].set(xlabel=xlabel)
        return figure
