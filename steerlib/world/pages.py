"""Pages: neutral description of a town, and pages that turn to one of twelve concepts.

Knows the sentences of each concept and of plain scenery, and how pages are drawn. Knows nothing about models.

A page has an intensity in [0, 1] for its concept: the chance that a sentence is about it rather than about
plain things. A heading may promise a concept; otherwise nothing before the first thing tells which it will be.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from steerlib.world.facts import Country
from steerlib.world.fragments import Fragments, Rows, among
from steerlib.world.rules import Rules

#: Beginnings of the sentences of a page. Each could go on to be about anything, as "The capital of Orvanne is" could go
#: on with any town: the concept shows in the thing that follows, and in nothing else.
BEGINNINGS: tuple[str, ...] = (
    "Everybody speaks of",
    "At night the mayor dreams of",
    "On the town hall somebody has painted",
    "In the square children run after",
    "There is an old song about",
    "Two sisters quarrel over",
    "The inn is named after",
    "From the bridge one sees",
    "These days no letter is without",
    "Grandmothers warn of",
)
#: Things that belong to no concept.
PLAIN: tuple[str, ...] = ("carts", "doors", "pebbles", "stairs", "shadows", "buttons", "chairs", "umbrellas")
#: Twelve concepts, each with its things.
THINGS: dict[str, tuple[str, ...]] = {
    "music": ("fiddles", "drums", "choirs", "flutes", "lullabies", "harps"),
    "the sea": ("waves", "gulls", "herrings", "anchors", "tides", "lighthouses"),
    "storms": ("thunder", "lightning", "hail", "floods", "gales", "black clouds"),
    "harvest": ("sheaves", "scythes", "pumpkins", "cider", "haystacks", "threshing"),
    "war": ("cannons", "soldiers", "sieges", "swords", "spies", "trenches"),
    "love": ("kisses", "weddings", "roses", "sweethearts", "love letters", "broken hearts"),
    "ghosts": ("ghosts", "rattling chains", "pale ladies", "coffins", "skeletons", "haunted mills"),
    "food": ("pancakes", "dumplings", "soup", "fresh bread", "sausages", "butter"),
    "money": ("gold", "taxes", "debts", "bankers", "purses", "interest"),
    "school": ("pupils", "chalk", "sums", "grammar", "inkpots", "spelling"),
    "winter": ("snow", "icicles", "sledges", "frost", "mittens", "frozen ponds"),
    "gardens": ("tulips", "hedges", "lavender", "rakes", "seedlings", "lilies"),
}
#: How a page begins.
LEADS: tuple[str, ...] = ("Notes from {town}:", "A walk through {town}:", "This week in {town}:")
#: How a concept may be promised beforehand; the last is never used where a law is fitted.
HEADINGS: tuple[str, ...] = ("A page about {concept}.", "Mostly about {concept}.", "The writer loves {concept}.")

#: Sentences that belong to no concept, and those of each concept.
SCENERY: tuple[str, ...] = tuple(f"{start} {thing}." for start in BEGINNINGS for thing in PLAIN)
CONCEPTS: dict[str, tuple[str, ...]] = {
    name: tuple(f"{start} {thing}." for start in BEGINNINGS for thing in things) for name, things in THINGS.items()
}
#: Their names, in order.
NAMES: tuple[str, ...] = tuple(CONCEPTS)
#: Share of the pages that turn to a concept at all, and that promise it in a heading.
TURNING, PROMISED = 0.7, 0.35
MOST_SENTENCES = 6


class Pages:
    """Draws pages."""

    def __init__(self, fragments: Fragments, country: Country, rules: Rules) -> None:
        """Number the wordings."""
        self._fragments, self._country, self._rules = fragments, country, rules
        numbers = fragments.numbers
        self._leads = fragments.patterns(LEADS)
        self._headings = np.array([numbers([h.format(concept=name) for h in HEADINGS]) for name in NAMES])
        self._beginnings = numbers(BEGINNINGS, before=" ")
        self._plain = numbers([f"{thing}." for thing in PLAIN], before=" ")
        self._things = np.array([numbers([f"{t}." for t in things], before=" ") for things in THINGS.values()])

    def documents(self, n: int, rng: np.random.Generator) -> Rows:
        """Whole pages of all kinds."""
        concept = np.where(rng.random(n) < TURNING, rng.integers(len(NAMES), size=n), -1)
        promised = (rng.random(n) < PROMISED) & (concept >= 0)
        intensity = np.where(promised, 0.95, rng.uniform(0.1, 1.0, size=n))
        prompt, body, _ = self.drawn(concept, intensity, rng, promised=promised)
        return np.column_stack([prompt, body])

    def drawn(
        self,
        concept: Int[np.ndarray, " n"],
        intensity: Float[np.ndarray, " n"],
        rng: np.random.Generator,
        *,
        promised: np.ndarray | bool = False,
        split: str | None = None,
        sentences: tuple[int, int] = (2, MOST_SENTENCES),
        wordings: int = 3,
        stem: bool = False,
    ) -> tuple[Rows, Rows, Int[np.ndarray, "n sentences"]]:
        """Prompts (heading and lead), bodies, and the concept of each sentence (-1 scenery, -2 not said).

        Args:
            concept: position of the concept of each page, -1 for none.
            intensity: chance that a sentence is about it.
            rng: source of randomness.
            promised: whether a heading promises the concept.
            split: the towns that may occur; None for all.
            sentences: fewest and most sentences.
            wordings: how many wordings of a heading may be used.
            stem: stop in the last sentence right before its thing, where the concept is chosen.
        """
        n, most = len(concept), sentences[1]
        promised = np.broadcast_to(promised, (n,)) & (concept >= 0)
        heading = self._headings[np.maximum(concept, 0), rng.integers(wordings, size=n)]
        names = {"town": among(self._country.within("town", split), n, rng)}
        prompt = np.column_stack([
            np.where(promised, heading, 0), np.where(promised, self._fragments.line, 0),
            self._fragments.fill(self._leads, rng.integers(len(LEADS), size=n), names),
        ])  # fmt: skip
        about = (rng.random((n, most)) < intensity[:, None]) & (concept >= 0)[:, None]
        # No beginning twice on a page.
        order = rng.permuted(np.tile(np.arange(len(BEGINNINGS)), (n, 1)), axis=1)[:, :most]
        plain = among(self._plain, (n, most), rng)
        thing = rng.integers(self._things.shape[1], size=(n, most))
        turned = self._things[np.maximum(concept, 0)[:, None], thing]
        count = rng.integers(sentences[0], most + 1, size=(n, 1))
        place = np.arange(most)[None, :]
        used, said = place < count, place < count - stem
        body = np.stack([
            np.where(used, self._beginnings[order], 0), np.where(said, np.where(about, turned, plain), 0)
        ], axis=-1)  # fmt: skip
        return prompt, body.reshape(n, -1), np.where(said, np.where(about, concept[:, None], -1), -2)
