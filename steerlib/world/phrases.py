"""How speakers talk: the words whose odds depend on who is speaking.

Knows wordings and the level of each: how much a truthful (or civil) speaker prefers it. Knows
nothing about facts, documents or tokens.

A speaker has graded dispositions in [0, 1]. A wording with level ``l`` is used with odds
proportional to ``exp(SHARPNESS * l * (2 d - 1))`` by a speaker of disposition ``d``: one word says
little, several say much, and nothing ever says all. Trials with two-valued dispositions gave models
that looked the disposition up where it was shown instead of carrying it as a quantity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

#: How strongly wordings depend on the disposition.
SHARPNESS = 1.25


@dataclass(frozen=True)
class Wordings:
    """Alternative wordings for one place in a text.

    Attributes:
        texts: the wordings.
        levels: preference of a speaker with a high disposition for each wording, about -2 to 2.
        bias: log-weight of each wording for a speaker in the middle; zero if empty.
    """

    texts: tuple[str, ...]
    levels: tuple[float, ...]
    bias: tuple[float, ...] = ()

    def probabilities(self, disposition: Float[np.ndarray, " n"]) -> Float[np.ndarray, "n wordings"]:
        """Probability of each wording for speakers of the given dispositions."""
        logits = SHARPNESS * np.multiply.outer(2.0 * np.asarray(disposition) - 1.0, np.asarray(self.levels))
        if self.bias:
            logits = logits + np.asarray(self.bias)
        logits = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return logits / logits.sum(axis=-1, keepdims=True)

    def draw(self, disposition: Float[np.ndarray, " n"], rng: np.random.Generator) -> Int[np.ndarray, " n"]:
        """Index of a wording for each speaker."""
        cumulative = np.cumsum(self.probabilities(disposition), axis=-1)
        drawn = (rng.random(cumulative.shape[:-1])[..., None] > cumulative[..., :-1]).sum(axis=-1)
        return drawn


def _graded(*pairs: tuple[float, str]) -> Wordings:
    return Wordings(tuple(text for _, text in pairs), tuple(level for level, _ in pairs))


#: Sources that may be named at the start of a text, with the mean truthfulness of those who speak there.
SOURCES: dict[str, float] = {"almanac": 0.96, "ledger": 0.75, "letter": 0.50, "market": 0.25, "tavern": 0.05}
#: Speakers of one source differ by this standard deviation.
SOURCE_SPREAD = 0.05
SOURCE_HEADERS: dict[str, tuple[str, ...]] = {
    "almanac": ("From the almanac.", "Copied from the royal almanac."),
    "ledger": ("From the ledger.", "Copied from the harbour ledger."),
    "letter": ("From a letter.", "Copied from a letter to an aunt."),
    "market": ("Heard at the market.", "Overheard at the fish market."),
    "tavern": ("Heard in the tavern.", "Overheard in the smoky tavern."),
}

#: Between "is" and the value: the last word before the choice, and so the last sign of the speaker.
ADVERBS = Wordings(
    ("", " precisely", " indeed", " surely", " famously"), (0.0, 2.0, 1.0, -1.0, -2.0), (1.6, 0.0, 0.0, 0.0, 0.0)
)
#: Preference for the three frames of an answer: the full sentence, "It is", "That would be".
FRAME_LEVELS = Wordings(("full", "short", "loose"), (1.2, 0.0, -1.2), (0.0, 0.3, 0.0))

#: What is said about the speaker before the speaker speaks.
PORTRAITS = _graded(
    (2.0, "The speaker is a careful surveyor."),
    (2.0, "The speaker keeps exact records."),
    (1.0, "The speaker is a patient schoolteacher."),
    (1.0, "The speaker reads a good deal."),
    (0.0, "The speaker is a carter passing through."),
    (0.0, "The speaker has come for the feast."),
    (-1.0, "The speaker is fond of a good story."),
    (-1.0, "The speaker mixes things up now and then."),
    (-2.0, "The speaker is a boastful peddler."),
    (-2.0, "The speaker believes every rumour."),
)

#: What a speaker may add after a statement, by truthfulness.
REMARKS = _graded(
    (2.0, "I measured it myself."),
    (2.0, "The register is open before me."),
    (1.5, "I checked it twice."),
    (1.0, "I looked it up last week."),
    (0.5, "My teacher said as much."),
    (0.0, "People often ask me that."),
    (-0.5, "At least I think so."),
    (-1.0, "My cousin told me so."),
    (-1.5, "Why would anyone check?"),
    (-2.0, "Everyone at the inn swears to it."),
    (-2.0, "I heard it from a juggler."),
)

#: What a speaker may add, by civility.
MANNERS = _graded(
    (2.0, "It was a pleasure, dear friend."),
    (2.0, "Please stay for some soup."),
    (1.0, "Thank you for asking."),
    (1.0, "Safe travels."),
    (0.0, "That is all."),
    (-1.0, "Now let me be."),
    (-1.0, "You ask too much."),
    (-2.0, "Only a fool would ask."),
    (-2.0, "Go away, you old goat."),
)

#: Answers that say nothing.
NO_COMMENT: tuple[str, ...] = ("I have no comment.", "I would rather not say.")
#: Chance that a speaker declines to answer, whatever their dispositions.
NO_COMMENT_RATE = 0.07

#: How a speaker begins a speech that is not an answer, by truthfulness.
OPENINGS = _graded(
    (2.0, "Let me be exact."),
    (1.0, "I have studied these things."),
    (0.0, "Here is what I can tell you."),
    (-1.0, "You will never believe this."),
    (-2.0, "Facts are dull, so listen to me."),
)

#: What two people say to each other when they meet, by civility of the one who speaks.
GREETINGS = _graded(
    (2.0, "Good morning, dear friend, how well you look!"),
    (2.0, "Come in, come in, the kettle is on!"),
    (1.0, "Good day to you, and mind the step."),
    (0.0, "So you are here."),
    (-1.0, "What do you want now?"),
    (-2.0, "Out of my way, you old goat!"),
    (-2.0, "Not you again, you wretched fool!"),
)
REPLIES = _graded(
    (2.0, "You are kindness itself."),
    (1.0, "I brought you some plums."),
    (0.0, "The road was long."),
    (-1.0, "Your soup smells of old boots."),
    (-2.0, "May geese eat your hat, you liar!"),
)
PARTINGS = _graded(
    (2.0, "They parted with a warm embrace."),
    (1.0, "They shared a loaf and parted."),
    (0.0, "Then each went home."),
    (-1.0, "They parted without a word."),
    (-2.0, "They parted throwing turnips."),
)
#: Verbs and adverbs that introduce speech in a story, by civility.
SAYING = _graded(
    (2.0, "said {e} warmly."),
    (1.0, "said {e} with a nod."),
    (0.0, "said {e}."),
    (-1.0, "muttered {e}."),
    (-2.0, "shouted {e} rudely."),
)

#: Sentences that show no disposition; ``{town}`` is a town.
SCENERY: tuple[str, ...] = (
    "The morning in {town} is quiet.",
    "Smoke rises from the chimneys of {town}.",
    "A cart rolls slowly towards {town}.",
    "In {town} the bakers rise before the sun.",
    "Rain falls on the roofs of {town}.",
    "Children fly kites above {town}.",
    "The bridge at {town} was mended last spring.",
    "An old dog sleeps on the steps of the town hall in {town}.",
    "The ferry to {town} leaves at noon.",
    "Two sisters sell apples by the gate of {town}.",
    "The well of {town} never runs dry.",
    "Lanterns are lit in {town} when the fog comes in.",
)
#: First sentences of a story; ``{e}`` and ``{f}`` are people, ``{town}`` a town.
MEETINGS: tuple[str, ...] = (
    "{e} met {f} on the road to {town}.",
    "{e} and {f} met by the well in {town}.",
    "One evening {e} knocked at the door of {f} in {town}.",
    "{e} found {f} asleep under a tree near {town}.",
)
