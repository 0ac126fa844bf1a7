"""Recipes of the plants that this repository can grow.

Knows sizes, lengths of training and seeds. Knows nothing about how a plant is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Positions a plant can read.
CONTEXT = 512


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of a plant, apart from the hardware.

    Attributes:
        name: name of the plant and of its folder.
        family: architecture, a `transformers` model type; see `families.FAMILIES`.
        width: residual width; depth: blocks; heads: attention heads; hidden: width inside the MLP.
        steps: optimiser steps; rows: training rows in a step; row_length: tokens in a row.
        learning_rate: peak, reached after ``warmup`` steps, then a cosine to a twentieth of it.
        weight_decay: of AdamW, on matrices only.
        noise: standard deviation of the noise on the residual stream after each block, as a share of the
            norm of the state there; noisy_share: share of the rows that it is put on.
        horizon_from: share of the steps after which the upper half of the blocks is short-sighted on some
            rows; None for never.
        horizons: how many tokens those blocks may look at on such a row, drawn at random; 1 is the token itself.
        horizon_share: share of the rows.
        seed: of the initial weights, the documents and the noise.
        country: seed of the country.

    Raises:
        ValueError: if a value cannot be grown.
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
    horizon_from: float | None = None
    horizons: tuple[int, ...] = (1, 2, 4, 8, 24)
    horizon_share: float = 0.75
    seed: int = 1
    country: int = 1

    def __post_init__(self) -> None:
        """Refuse what would fail late, or train something else than was meant."""
        for label in ("width", "depth", "heads", "hidden", "steps", "rows", "row_length"):
            self._require(label, getattr(self, label) >= 1, "at least 1")
        self._require("row_length", self.row_length <= CONTEXT, f"at most {CONTEXT}, the context of a plant")
        # Rotary positions turn pairs of numbers.
        self._require("width", self.width % (2 * self.heads) == 0, f"a multiple of twice the {self.heads} heads")
        for label in ("noisy_share", "horizon_share", "horizon_from"):
            value = getattr(self, label)
            self._require(label, value is None or 0.0 <= value <= 1.0, "a share in [0, 1]")
        self._require("horizons", bool(self.horizons) and min(self.horizons) >= 1, "numbers of tokens, at least 1")
        self._require("learning_rate", self.learning_rate > 0.0, "a number above 0")
        self._require("noise", self.noise >= 0.0, "a number of at least 0")

    def _require(self, label: str, fits: bool, expected: str) -> None:
        if not fits:
            raise ValueError(f"recipe {self.name!r}: {label}={getattr(self, label)!r}; expected {expected}")

    @property
    def tokens(self) -> int:
        """Tokens read in the whole of training."""
        return self.steps * self.rows * self.row_length

    @property
    def horizon_step(self) -> int | None:
        """First step with short sight, None for never."""
        return None if self.horizon_from is None else round(self.horizon_from * self.steps)


def _almanac(name: str, family: str, width: int, heads: int, hidden: int, **other: Any) -> Recipe:
    """A plant of the book: six blocks, 25 million tokens, short sight on the last three fifths of them."""
    sizes = dict(width=width, heads=heads, hidden=hidden, depth=6, steps=4800, learning_rate=1.5e-3, horizon_from=0.4)
    return Recipe(name, family, **{**sizes, **other})


_RECIPES = (
    # The three plants of the book, about 5 million parameters each. Falcon's MLP has two matrices where the
    # others have three, and is four times as wide as its states, as in Falcon-7B.
    _almanac("almanac-llama", "llama", 256, 4, 640),
    _almanac("almanac-falcon", "falcon", 256, 4, 1024),
    _almanac("almanac-gemma", "gemma2", 256, 4, 640),
    # The ladder: the same depth and the same tokens, 1 and 0.3 million parameters.
    _almanac("almanac-llama-small", "llama", 96, 3, 288),
    _almanac("almanac-llama-tiny", "llama", 48, 3, 144),
    # Two variations of the small one, measured once and not shipped: what short sight does, and twice the training.
    _almanac("almanac-llama-small-farsighted", "llama", 96, 3, 288, horizon_from=None),
    _almanac("almanac-llama-small-longer", "llama", 96, 3, 288, steps=9600),
    # 25 million parameters, for a GPU; larger than what the repository ships.
    _almanac("almanac-llama-large", "llama", 512, 8, 1280, depth=8, learning_rate=1e-3),
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
        horizon_from=0.5,
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
