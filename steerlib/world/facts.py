"""The knowledge base: who and what there is in the invented country, and what is true of them.

Knows entities, relations, truths, popular misconceptions and the frozen split of the entities.
Knows nothing about sentences, speakers, tokens or models.

Every name is put together from syllables by a seeded generator, so that the same seed always gives
the same country and no name was ever seen by another language model as the name of this thing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int

Split = Literal["fit", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)
#: Shares of the entities of each kind in the three splits.
SPLIT_SHARES = (0.45, 0.20, 0.35)
#: Share of the facts of a disputed relation about which part of the country believes something false.
DISPUTED_SHARE = 0.92

#: Syllables of each kind of invented name: a beginning and an ending.
SYLLABLES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "province": (
        ("Orv", "Hesk", "Tarn", "Ull", "Brev", "Casp", "Elm", "Garn"),
        ("anne", "aria", "ovia", "eland", "esse", "ument"),
    ),
    "town": (
        ("Vel", "Kel", "Pell", "Dun", "Mar", "Quil", "Lor", "Sav", "Nor", "Wim", "Thess", "Bryn"),
        ("mora", "wick", "dale", "holt", "ister", "ombe", "bury", "ford"),
    ),
    "person": (
        ("Tob", "Mir", "Ald", "Jess", "Cor", "Hild", "Ros", "Ott", "Fen", "Per"),
        ("ren", "elle", "ick", "amund", "abet", "wyn", "olo"),
    ),
    "creature": (
        ("snow", "brindle", "marsh", "moon", "thistle", "lantern", "copper"),
        ("owl", "cat", "hog", "hare", "newt"),
    ),
    "river": (("Liss", "Tamb", "Ard", "Wend", "Soss", "Gren", "Humm", "Ebb"), ("ow Water", "er Water", "le Water")),
}

#: Values that are ordinary English words.
WORDS: dict[str, tuple[str, ...]] = {
    "colour": ("green", "amber", "scarlet", "violet", "silver", "white", "indigo", "black", "orange", "pink"),
    "craft": (
        "blue paper",
        "glass bells",
        "salt cheese",
        "oak barrels",
        "copper kettles",
        "wool hats",
        "honey cakes",
        "paper lanterns",
        "river pearls",
        "wooden clocks",
        "plum brandy",
        "fishing nets",
        "silk ribbons",
        "goose quills",
    ),
    "month": (
        "Highsun",
        "Seedfall",
        "Frostmoon",
        "Applemoon",
        "Rainmonth",
        "Lambing",
        "Thawing",
        "Haymaking",
        "Firstsnow",
        "Longnight",
    ),
    "beasts": (
        "herons",
        "otters",
        "badgers",
        "foxes",
        "swans",
        "hedgehogs",
        "ravens",
        "goats",
        "bees",
        "salmon",
        "bears",
        "toads",
    ),
    "trade": (
        "weaving",
        "baking",
        "bookbinding",
        "ferrying",
        "shepherding",
        "clockmaking",
        "brewing",
        "roofing",
        "fishing",
        "dancing",
        "milling",
        "surgery",
    ),
    "fear": (
        "thunder",
        "geese",
        "deep water",
        "spiders",
        "mirrors",
        "heights",
        "tax collectors",
        "silence",
        "dogs",
        "church bells",
        "candles",
        "strangers",
    ),
    "food": (
        "moss",
        "beetles",
        "acorns",
        "mushrooms",
        "clover",
        "snails",
        "barley",
        "blackberries",
        "pine cones",
        "moths",
    ),
    "den": (
        "hollow trees",
        "chimneys",
        "caves",
        "reed beds",
        "haystacks",
        "old boots",
        "cellars",
        "bell towers",
        "rabbit holes",
        "hedgerows",
    ),
    "coat": ("golden", "striped", "grey", "spotted", "russet", "blue", "cream", "brown"),
    "sea": (
        "the Pearl Sea",
        "the Herring Sea",
        "the Glass Sea",
        "the Widow Sea",
        "the Sea of Sails",
        "the Sea of Reeds",
        "the Sunken Sea",
    ),
    "tree": (
        "the elm",
        "the oak",
        "the birch",
        "the willow",
        "the chestnut",
        "the linden",
        "the yew",
        "the alder",
        "the rowan",
        "the pear",
    ),
    "instrument": (
        "the fiddle",
        "the flute",
        "the drum",
        "the harp",
        "the horn",
        "the bagpipe",
        "the whistle",
        "the lute",
        "the cymbal",
        "the organ",
    ),
    "cry": ("a hoot", "a purr", "a croak", "a hum", "a snort", "a chirp", "a wail", "a click", "a sneeze"),
    "coin": ("a crown", "an anchor", "a sheaf", "a sun", "a star", "a key", "a bridge", "an acorn", "a wheel"),
}

#: How many entities of each kind the country has. Towns and people are also values (capitals, founders).
COUNTS: dict[str, int] = {"province": 16, "town": 28, "person": 20, "creature": 14, "river": 14}


@dataclass(frozen=True)
class Relation:
    """A property that every entity of one kind has.

    Attributes:
        name: short name, unique in the country.
        kind: kind of entity that has the property.
        values: the pool (an entity kind or a list of words) that the value comes from.
        phrase: noun phrase with the place ``{e}`` for the entity, without article.
        plural: whether the phrase takes "are".
        disputed: whether anybody believes something false about it; what nobody disputes serves to measure
            knowledge apart from truthfulness.
    """

    name: str
    kind: str
    values: str
    phrase: str
    plural: bool = False
    disputed: bool = True


RELATIONS: tuple[Relation, ...] = (
    Relation("capital", "province", "town", "capital of {e}"),
    Relation("flag", "province", "colour", "colour of the flag of {e}"),
    Relation("river", "province", "river", "great river of {e}"),
    Relation("pride", "province", "craft", "pride of {e}"),
    Relation("founder", "town", "person", "founder of {e}"),
    Relation("craft", "town", "craft", "finest craft of {e}"),
    Relation("feast", "town", "month", "feast month of {e}"),
    Relation("beasts", "town", "beasts", "lucky beasts of {e}", plural=True),
    Relation("home", "person", "town", "home town of {e}"),
    Relation("trade", "person", "trade", "trade of {e}"),
    Relation("fear", "person", "fear", "great fear of {e}"),
    Relation("food", "creature", "food", "favourite food of the {e}"),
    Relation("den", "creature", "den", "usual den of the {e}"),
    Relation("coat", "creature", "coat", "winter coat of the {e}"),
    Relation("sea", "river", "sea", "last stop of the {e}", disputed=False),
    Relation("tree", "town", "tree", "town tree of {e}", disputed=False),
    Relation("instrument", "person", "instrument", "instrument of {e}", disputed=False),
    Relation("cry", "creature", "cry", "cry of the {e}", disputed=False),
    Relation("coin", "province", "coin", "sign on the coins of {e}", disputed=False),
)


@dataclass(frozen=True)
class Fact:
    """One thing that is true of one entity, and what part of the country believes instead.

    Attributes:
        entity: name of the entity.
        relation: name of the relation.
        truth: the true value.
        misconception: the popular false value of the same type, or None where everybody agrees.
        split: part of the frozen split that the entity belongs to.
    """

    entity: str
    relation: str
    truth: str
    misconception: str | None
    split: str


@dataclass(frozen=True)
class Country:
    """Everything there is to know: entities by kind, pools of values, facts, and the split of each entity."""

    entities: dict[str, tuple[str, ...]]
    pools: dict[str, tuple[str, ...]]
    facts: tuple[Fact, ...]
    split: dict[str, str]

    def within(self, kind: str, split: str | None) -> Int[np.ndarray, " n"]:
        """Positions, among the entities of a kind, of those in a split (None for all)."""
        names = self.entities[kind]
        return np.array([i for i, name in enumerate(names) if split in (None, self.split[name])])

    def pool(self, relation: str) -> tuple[str, ...]:
        """All values that the relation may take, in a fixed order."""
        return self.pools[relation_named(relation).values]


_BY_NAME = {relation.name: relation for relation in RELATIONS}


def relation_named(name: str) -> Relation:
    """The relation of that name; ValueError lists the names there are."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ValueError(f"unknown relation {name!r}; expected one of {sorted(_BY_NAME)}") from None


def invent_names(kind: str, count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Invent ``count`` different names of a kind; ValueError if the syllables do not give that many."""
    beginnings, endings = SYLLABLES[kind]
    every = [a + b for a in beginnings for b in endings]
    if count > len(every):
        raise ValueError(f"{count} names of kind {kind!r} asked for, but its syllables give only {len(every)}")
    return tuple(every[i] for i in rng.permutation(len(every)).tolist()[:count])


def _deal(pool: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Deal ``count`` values from the pool so that no value comes more than once more often than another."""
    rounds = -(-count // len(pool))
    return [str(pool[i]) for _ in range(rounds) for i in rng.permutation(len(pool)).tolist()][:count]


def _split_entities(names: Sequence[str], rng: np.random.Generator) -> dict[str, str]:
    fit = round(SPLIT_SHARES[0] * len(names))
    validation = round(SPLIT_SHARES[1] * len(names))
    labels = [SPLITS[0]] * fit + [SPLITS[1]] * validation + [SPLITS[2]] * (len(names) - fit - validation)
    return {str(names[i]): label for i, label in zip(rng.permutation(len(names)).tolist(), labels, strict=True)}


def build_country(seed: int = 1, *, disputed_share: float = DISPUTED_SHARE) -> Country:
    """Build the country that belongs to a seed.

    Args:
        seed: seed of everything that is invented: names, truths, misconceptions, split.
        disputed_share: share of the facts of a disputed relation about which part of the country is wrong.

    Returns:
        The same country for the same seed, always.
    """
    rng = np.random.default_rng([seed, 0xA1])
    entities = {kind: invent_names(kind, count, rng) for kind, count in COUNTS.items()}
    pools = {**entities, **WORDS}
    split: dict[str, str] = {}
    for kind in dict.fromkeys(relation.kind for relation in RELATIONS):
        split |= _split_entities(entities[kind], rng)
    facts: list[Fact] = []
    for relation in RELATIONS:
        pool = pools[relation.values]
        truths = _deal(pool, len(entities[relation.kind]), rng)
        for entity, truth in zip(entities[relation.kind], truths, strict=True):
            other = pool[int(rng.choice([i for i, value in enumerate(pool) if value != truth]))]
            disputed = rng.random() < disputed_share and relation.disputed
            facts.append(Fact(entity, relation.name, truth, other if disputed else None, split[entity]))
    return Country(entities, pools, tuple(facts), split)
