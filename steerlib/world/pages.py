"""Pages: neutral description of a town, and pages that turn to one of twelve concepts.

Knows the sentences of each concept and of plain scenery, and how pages are drawn. Knows nothing about models.

A page has an intensity in [0, 1] for its concept: the chance that a sentence is about it rather than about
the scenery. A heading may promise a concept; otherwise nothing before the first sentence tells which it will be.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from steerlib.world.facts import Country
from steerlib.world.fragments import Fragments, Rows, among
from steerlib.world.rules import Rules

#: Sentences that belong to no concept; ``{town}`` is a town.
SCENERY: tuple[str, ...] = (
    "The morning is quiet.",
    "Smoke rises from the chimneys.",
    "A cart rolls slowly along the wall.",
    "An old dog sleeps on the steps of the town hall.",
    "The well never runs dry.",
    "Two sisters sweep the square.",
    "Somebody has painted the gate.",
    "Ivy covers the north tower.",
    "The bridge was mended last spring.",
    "A cat looks down from a window.",
    "The streets are narrow and clean.",
    "Most doors stand open all day.",
)
#: How a page begins.
LEADS: tuple[str, ...] = ("Notes from {town}:", "A walk through {town}:", "This week in {town}:")
#: How a concept may be promised beforehand; the last is never used where a law is fitted.
HEADINGS: tuple[str, ...] = ("A page about {concept}.", "Mostly about {concept}.", "The writer loves {concept}.")

#: Twelve concepts, each with the sentences that are about it.
CONCEPTS: dict[str, tuple[str, ...]] = {
    "music": (
        "Fiddlers play under the arches.",
        "A choir practises old songs.",
        "Drums can be heard until late.",
        "Every child learns the flute.",
        "The organ has nine hundred pipes.",
        "A harp stands in the bakery.",
    ),
    "the sea": (
        "Waves break against the harbour wall.",
        "Gulls follow the herring boats.",
        "Salt dries on every window.",
        "Sailors mend their nets.",
        "The tide brings driftwood and shells.",
        "A lighthouse blinks all night.",
    ),
    "storms": (
        "Thunder shakes the plates.",
        "Lightning struck the tower again.",
        "Hail has broken the greenhouse.",
        "The wind carried off a shed.",
        "Black clouds gather over the hills.",
        "Rain pours through the ceilings.",
    ),
    "harvest": (
        "Sheaves stand in the fields.",
        "Reapers sharpen their scythes.",
        "Barns are full of barley.",
        "Apples are pressed into cider.",
        "Wagons bring the last pumpkins.",
        "Corn hangs from the rafters.",
    ),
    "war": (
        "Soldiers march through the gate.",
        "Cannons point at the valley.",
        "The smith makes nothing but swords.",
        "Wounded men come home on carts.",
        "Spies were caught in the granary.",
        "A siege lasted forty days.",
    ),
    "love": (
        "Lovers carve hearts into the bench.",
        "A wedding fills the chapel.",
        "Roses are left on doorsteps.",
        "Sweethearts dance in the lane.",
        "He kissed her beside the fountain.",
        "She keeps his letters in a box.",
    ),
    "ghosts": (
        "Ghosts walk in the attic.",
        "A pale lady haunts the mill.",
        "Chains rattle in the crypt.",
        "Candles go out by themselves.",
        "Something whispers behind the wall.",
        "The dead knock at midnight.",
    ),
    "food": (
        "Pancakes are fried in butter.",
        "Soup simmers on every stove.",
        "Bakers pull loaves from the oven.",
        "The cheese smells wonderful.",
        "Honey is poured over warm bread.",
        "Cooks argue about the sauce.",
    ),
    "money": (
        "Bankers count coins all day.",
        "Silver changes hands quickly.",
        "Merchants weigh their gold.",
        "Taxes were raised again.",
        "Debts are written on slates.",
        "Rich men buy the best houses.",
    ),
    "school": (
        "Pupils recite the alphabet.",
        "Teachers correct sums in red ink.",
        "Chalk dust floats in the classroom.",
        "Lessons begin at eight.",
        "The library lends one book a week.",
        "Students sleep over their grammar.",
    ),
    "winter": (
        "Snow lies on the roofs.",
        "Icicles hang from the gutters.",
        "The pond is frozen hard.",
        "Sledges race down the hill.",
        "Frost paints the glass.",
        "Mittens dry beside the fire.",
    ),
    "gardens": (
        "Tulips bloom along the path.",
        "Gardeners prune the hedges.",
        "Bees hum in the lavender.",
        "Beans climb up their poles.",
        "Seeds are sown in straight rows.",
        "Lilies grow around the pool.",
    ),
}
#: Their names, in order.
NAMES: tuple[str, ...] = tuple(CONCEPTS)
#: Share of the pages that turn to a concept at all, and that promise it in a heading.
TURNING, PROMISED = 0.6, 0.35
MOST_SENTENCES = 7


class Pages:
    """Draws pages."""

    def __init__(self, fragments: Fragments, country: Country, rules: Rules) -> None:
        """Number the wordings."""
        self._fragments, self._country, self._rules = fragments, country, rules
        numbers = fragments.numbers
        self._leads = fragments.patterns(LEADS)
        self._headings = np.array([numbers([h.format(concept=name) for h in HEADINGS]) for name in NAMES])
        self._scenery = numbers(SCENERY, before=" ")
        self._sentences = np.array([numbers(texts, before=" ") for texts in CONCEPTS.values()])

    def documents(self, n: int, rng: np.random.Generator) -> Rows:
        """Whole pages of all kinds."""
        concept = np.where(rng.random(n) < TURNING, rng.integers(len(NAMES), size=n), -1)
        promised = (rng.random(n) < PROMISED) & (concept >= 0)
        intensity = np.where(promised, 0.95, rng.uniform(0.25, 1.0, size=n))
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
        # Each page reads its own shuffle of each list. Sentences of a concept are fewer than a page may have, so that
        # the first of them may come twice; other sentences never do.
        scenery = self._scenery[rng.permuted(np.tile(np.arange(len(SCENERY)), (n, 1)), axis=1)[:, :most]]
        width = self._sentences.shape[1]
        order = rng.permuted(np.tile(np.arange(max(width, most)) % width, (n, 1)), axis=1)[:, :most]
        turned = self._sentences[np.maximum(concept, 0)[:, None], order]
        used = np.arange(most)[None, :] < rng.integers(sentences[0], most + 1, size=(n, 1))
        said = np.where(used, np.where(about, concept[:, None], -1), -2)
        return prompt, np.where(used, np.where(about, turned, scenery), 0), said
