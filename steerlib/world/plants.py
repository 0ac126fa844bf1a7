"""Recipes of the plants that this repository can grow.

Knows sizes, lengths of training and seeds. Knows nothing about how a plant is trained.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of a plant, apart from the hardware.

    Attributes:
        name: name of the plant and of its folder.
        family: architecture, a `transformers` model type.
        width: residual width; depth: blocks; heads: attention heads; hidden: width inside the MLP.
        steps: optimiser steps; rows: training rows in a step; row_length: tokens in a row.
        learning_rate: peak, reached after ``warmup`` steps, then a cosine to a twentieth of it.
        weight_decay: of AdamW, on matrices only.
        noise: standard deviation of the noise on the residual stream after each block, as a share of the
            norm of the state there; noisy_share: share of the rows that it is put on.
        horizon_from: step from which the upper half of the blocks is short-sighted on some rows, None for never.
        horizons: how many tokens those blocks may look back on such a row, drawn at random; 1 is the token itself.
        horizon_share: share of the rows.
        seed: of the initial weights, the documents and the noise.
        country: seed of the country.
    """

    name: str
    family: str
    width: int
    depth: int
    heads: int
    hidden: int
    steps: int
    rows: int = 32
    row_length: int = 160
    learning_rate: float = 2e-3
    warmup: int = 150
    weight_decay: float = 0.05
    noise: float = 0.15
    noisy_share: float = 0.5
    horizon_from: int | None = None
    horizons: tuple[int, ...] = (1, 2, 4, 8, 24)
    horizon_share: float = 0.75
    seed: int = 1
    country: int = 1

    @property
    def tokens(self) -> int:
        """Tokens read in the whole of training."""
        return self.steps * self.rows * self.row_length


_RECIPES = (
    Recipe("almanac-llama", "llama", width=128, depth=6, heads=4, hidden=384, steps=3200, horizon_from=1500),
    # Too small to know anything: for trying the command and for the tests.
    Recipe(
        "almanac-seedling",
        "llama",
        width=32,
        depth=2,
        heads=2,
        hidden=64,
        steps=12,
        rows=4,
        row_length=48,
        warmup=2,
        horizon_from=7,
    ),  # fmt: skip
)

#: Recipes by name.
PLANTS: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}


def recipe_named(name: str) -> Recipe:
    """The recipe of a plant; ValueError lists the plants there are."""
    try:
        return PLANTS[name]
    except KeyError:
        raise ValueError(f"unknown plant {name!r}; steerlib can grow: {', '.join(sorted(PLANTS))}") from None
