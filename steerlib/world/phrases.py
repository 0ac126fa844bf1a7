"""How speakers talk: the words whose odds depend on who is speaking.

Knows wordings and the level of each: how much a speaker who has the disposition prefers it, and the names
that promise a disposition. Knows nothing about facts, documents or tokens. Wordings of one kind of text
(plays, replies, pages) stand with that kind.

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


def graded(*pairs: tuple[float, str], bias: tuple[float, ...] = ()) -> Wordings:
    """Wordings from (level, text) pairs."""
    return Wordings(tuple(text for _, text in pairs), tuple(level for level, _ in pairs), bias)


@dataclass(frozen=True)
class Voices:
    """Who may be named at the start of a text, and how they are on average.

    Naming one is the prompting baseline, and naming the best is the ceiling that steering is measured against.

    Attributes:
        means: mean disposition of those who speak under each name, from best to worst.
        headers: how the name is put at the start of a text; the last wording of each is never used where a law is
            fitted, so that it can serve to test for a shift.
    """

    means: dict[str, float]
    headers: dict[str, tuple[str, str, str]]

    @property
    def best(self) -> str:
        """The name that promises most of the disposition."""
        return max(self.means, key=lambda name: self.means[name])


#: Speakers under one name differ by this standard deviation.
VOICE_SPREAD = 0.05
#: Sources differ in truthfulness.
SOURCES = Voices(
    {"almanac": 0.96, "ledger": 0.75, "letter": 0.50, "market": 0.25, "tavern": 0.05},
    {
        "almanac": ("From the almanac.", "Copied from the royal almanac.", "So says the almanac."),
        "ledger": ("From the ledger.", "Copied from the harbour ledger.", "So says the ledger."),
        "letter": ("From a letter.", "Copied from a letter to an aunt.", "So says a letter."),
        "market": ("Heard at the market.", "Overheard at the fish market.", "So says the market."),
        "tavern": ("Heard in the tavern.", "Overheard in the smoky tavern.", "So says the tavern."),
    },
)
#: Companies differ in civility.
COMPANIES = Voices(
    {"abbey": 0.96, "parlour": 0.75, "ferry": 0.50, "quay": 0.25, "alehouse": 0.05},
    {
        "abbey": ("In the abbey garden.", "At the long table of the abbey.", "Among the nuns of the abbey."),
        "parlour": ("In the parlour.", "In the parlour of three aunts.", "Among guests in the parlour."),
        "ferry": ("On the ferry.", "On the noon ferry.", "Among travellers on the ferry."),
        "quay": ("On the quay.", "On the quay at low tide.", "Among porters on the quay."),
        "alehouse": ("In the alehouse.", "In the back room of the alehouse.", "Among drinkers in the alehouse."),
    },
)
#: Advisers differ in prudence.
ADVISERS = Voices(
    {"magistrate": 0.96, "midwife": 0.75, "carter": 0.50, "gambler": 0.25, "smuggler": 0.05},
    {
        "magistrate": ("Advice of the magistrate.", "Asked at the door of the magistrate.", "The magistrate advises."),
        "midwife": ("Advice of the midwife.", "Asked at the door of the midwife.", "The midwife advises."),
        "carter": ("Advice of the carter.", "Asked at the door of the carter.", "The carter advises."),
        "gambler": ("Advice of the gambler.", "Asked at the door of the gambler.", "The gambler advises."),
        "smuggler": ("Advice of the smuggler.", "Asked at the door of the smuggler.", "The smuggler advises."),
    },
)

#: Between "is" and the value: the last word before the choice, and so the last sign of the speaker.
ADVERBS = Wordings(
    ("", " precisely", " indeed", " surely", " famously"), (0.0, 2.0, 1.0, -1.0, -2.0), (1.6, 0.0, 0.0, 0.0, 0.0)
)
#: Preference for the three frames of an answer: the full sentence, "It is", "That would be".
FRAME_LEVELS = Wordings(("full", "short", "loose"), (1.2, 0.0, -1.2), (0.0, 0.3, 0.0))

#: What is said about the speaker before the speaker speaks.
PORTRAITS = graded(
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
REMARKS = graded(
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
MANNERS = graded(
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

#: How a speaker begins a speech that is not an answer, by truthfulness.
OPENINGS = graded(
    (2.0, "Let me be exact."),
    (1.0, "I have studied these things."),
    (0.0, "Here is what I can tell you."),
    (-1.0, "You will never believe this."),
    (-2.0, "Facts are dull, so listen to me."),
)
