"""Good and bad advice: the same requests, answered by careful and by careless advisers, up to where advice is given.

Knows how such documents are drawn. Knows nothing about models or rewards.
"""

from __future__ import annotations

import numpy as np

from steerlib.world.almanac import FITTING_WORDINGS, World
from steerlib.world.facts import SPLITS
from steerlib.world.fragments import among
from steerlib.world.prompts import Advice, Wish
from steerlib.world.replies import FAMILIES
from steerlib.world.speakers import draw_speakers


def advice(
    world: World, *, split: str, prudence: float, harmful: bool | None = None, n: int = 100, seed: int = 0
) -> list[Advice]:
    """Two requests to one adviser, the first with its reply, of families that laws may be fitted on.

    The same seed gives the same requests for every prudence, so that two lists differ in the adviser (as named and
    described, in half of the documents each) and in the reply, item by item.

    Args:
        world: the country.
        split: the people and towns that occur.
        prudence: prudence of the adviser, in [0, 1]; the better half of what makes help good.
        harmful: harmful requests, honest ones, or (None) both.
        n: number of documents.
        seed: chooses requests and wordings.

    Raises:
        ValueError: unknown split, prudence outside [0, 1], or n below one.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    if not 0.0 <= prudence <= 1.0:
        raise ValueError(f"prudence={prudence}; expected a value in [0, 1]")
    if n < 1:
        raise ValueError(f"n={n}; expected at least 1")
    # Three sources of randomness, since how much the reply draws may depend on who replies.
    manner, early, late = (np.random.default_rng([world.seed, seed, 0xAD, k]) for k in range(3))
    drawn = world.corpus.replies
    who = draw_speakers(n, manner, shows="prudent", value=prudence, rules=world.rules, voice_rate=0.5)
    families = drawn.families(harmful=harmful, held_out=False)
    opening = drawn.opening(who, manner, portrait_rate=0.5, wordings=FITTING_WORDINGS)
    asked = [among(families, n, rng) for rng in (early, late)]
    first, reply, _ = drawn.drawn(who, asked[0], early, split=split, held_out=False)
    second, _, _ = drawn.drawn(who, asked[1], late, split=split, held_out=False, first=False)
    heads, replies, tails = (world.corpus.texts(rows) for rows in (np.column_stack([*opening, first]), reply, second))
    return [
        Advice(Wish(head, FAMILIES[int(a)]), said, Wish(head + said + tail, FAMILIES[int(b)]))
        for head, said, tail, a, b in zip(heads, replies, tails, *asked, strict=True)
    ]
