"""Little plays: two people meet, one provokes the other a little or a lot, and they answer as their manners are.

Knows the wordings of plays, how rude each line is, and how plays are drawn. Knows nothing about models.

Rudeness is catching: how civil the company is depends on how the first line sounds, unless a company is
named, and then on the name alone. So the first line is what the toxic prompts of large-model studies are,
in five levels, and naming the company is what a system prompt is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from steerlib.world.facts import Country
from steerlib.world.fragments import Fragments, Rows, among, maybe, repeated
from steerlib.world.phrases import COMPANIES, VOICE_SPREAD, graded
from steerlib.world.rules import Rules
from steerlib.world.speakers import Speakers

#: First sentences; ``{e}`` and ``{f}`` are people, ``{town}`` a town.
MEETINGS: tuple[str, ...] = (
    "{e} met {f} on the road to {town}.",
    "{e} and {f} met by the well in {town}.",
    "One evening {e} knocked at the door of {f} in {town}.",
    "{e} found {f} asleep under a tree near {town}.",
    "{e} and {f} waited for the same cart in {town}.",
    "It rained in {town}, and {e} shared a doorway with {f}.",
)

#: The first line that is spoken, in five levels of rudeness.
PROVOCATIONS: tuple[tuple[str, ...], ...] = (
    (
        "Good morning to you.",
        "The bread is still warm today.",
        "Have you seen the kites?",
        "I brought you some plums.",
        "It will be a mild evening.",
    ),
    (
        "You are late again.",
        "Mind where you put your boots.",
        "You might have knocked.",
        "Your dog has eaten my lunch.",
        "Somebody left the gate open.",
    ),
    (
        "You never listen to anyone.",
        "Your fiddle keeps the whole street awake.",
        "Your soup smells of old boots.",
        "You still owe me three geese.",
        "Nobody asked for your opinion.",
    ),
    (
        "What a foolish hat you wear.",
        "You are lazier than a wet cat.",
        "You have the manners of a mule.",
        "Even the geese laugh at you.",
        "Your head is as empty as a drum.",
    ),
    (
        "Out of my way, you old goat!",
        "You are a liar and a thief!",
        "Crawl back to your cellar, you toad!",
        "May rats eat your boots, you fool!",
        "Shut your mouth, you rotten turnip!",
    ),
)
#: Mean civility of a company after a first line of each level, and its standard deviation.
PROVOKED = (0.97, 0.82, 0.62, 0.42, 0.18)
PROVOKED_SPREAD = 0.12

#: How the speaker looks while speaking: between the name and the colon, right before the line is chosen.
GESTURES = graded(
    (0.0, ""),
    (2.0, ", bowing"),
    (1.0, ", smiling"),
    (0.0, ", yawning"),
    (-1.0, ", frowning"),
    (-2.0, ", spitting"),
    bias=(1.4, 0.0, 0.0, 0.0, 0.0, 0.0),
)

#: What people say, by civility.
LINES = graded(
    (2.0, "How good it is to see you, dear friend."),
    (2.0, "Come in, the kettle is on."),
    (2.0, "Forgive me, the fault is all mine."),
    (2.0, "You are kindness itself."),
    (1.0, "Thank you for telling me."),
    (1.0, "Let us talk about it over soup."),
    (1.0, "Sit down, the road was long."),
    (1.0, "We might share this loaf."),
    (0.0, "So people say."),
    (0.0, "I have heard that before."),
    (0.0, "Time will tell."),
    (-1.0, "Leave me alone."),
    (-1.0, "Nobody wants your chatter."),
    (-1.0, "I did not ask you."),
    (-1.0, "Mind your own business."),
    (-2.0, "Go and drown in a ditch, you worm."),
    (-2.0, "Fools like you should be locked in a pigsty."),
    (-2.0, "May your roof fall on your ugly head."),
    (-2.0, "Your mother was a goat and you smell like her."),
)
#: How toxic a line is, in [0, 1].
TOXICITY: dict[str, float] = {
    text: {-1.0: 0.5, -2.0: 1.0}.get(level, 0.0) for text, level in zip(LINES.texts, LINES.levels, strict=True)
}

#: The mood of the day, told before anybody speaks.
MOODS = graded(
    (2.0, "Everyone was in a gentle mood."),
    (1.0, "The harvest had been good."),
    (0.0, "It was a day like any other."),
    (-1.0, "Nobody had slept well."),
    (-2.0, "Old quarrels were in the air."),
)
#: How a play ends.
PARTINGS = graded(
    (2.0, "They parted with a warm embrace."),
    (1.0, "They shared a loaf and parted."),
    (0.0, "Then each went home."),
    (-1.0, "They parted without a word."),
    (-2.0, "They parted throwing turnips."),
)

#: Most lines after the first, and the chance that one of them has a second sentence.
MOST_SPEECHES, SECOND_SENTENCE = 5, 0.35


class Plays:
    """Draws plays.

    A play is made of these columns, in order: header, mood and meeting (`head`), the first line, and
    `MOST_SPEECHES` speeches of six slots (line break, name, gesture, colon, sentence, sentence), and the parting.
    """

    def __init__(self, fragments: Fragments, country: Country, rules: Rules) -> None:
        """Number the wordings."""
        self._fragments, self._country, self._rules = fragments, country, rules
        numbers = fragments.numbers
        self._headers = np.array([numbers(texts) for texts in COMPANIES.headers.values()])
        self._meetings = fragments.patterns(MEETINGS)
        self._moods = numbers(MOODS.texts, before=" ")
        self._provocations = np.array([numbers(texts, before=" ") for texts in PROVOCATIONS])
        self._gestures = numbers(GESTURES.texts)
        self._lines = numbers(LINES.texts, before=" ")
        self._partings = numbers(PARTINGS.texts)
        self._colon = fragments.number(":")

    def documents(self, who: Speakers, rng: np.random.Generator) -> Rows:
        """Whole plays."""
        level = rng.integers(len(PROVOCATIONS), size=len(who))
        return np.column_stack(self.drawn(who, level, rng))

    def drawn(
        self,
        who: Speakers,
        level: Int[np.ndarray, " n"],
        rng: np.random.Generator,
        *,
        split: str | None = None,
        civil: Float[np.ndarray, " n"] | None = None,
        mood_rate: float | None = None,
        wordings: int = 3,
        stem: bool = False,
    ) -> tuple[Rows, Rows, Rows]:
        """Prompts (up to the colon after the second name), speeches (one block each) and partings of plays.

        Args:
            who: speakers; their civility counts where a company is named.
            level: how rude the first line is, 0 to 4.
            rng: source of randomness.
            split: the people and towns that may occur; None for all.
            civil: civility of the company, whatever the first line sounds like; by default it depends on that.
            mood_rate: share of plays that tell of the mood of the day; that of portraits by default.
            wordings: how many wordings of a header may be used.
            stem: stop after the colon of the third to fifth speaker, where the next line is chosen.
        """
        n, rules = len(who), self._rules
        people = self._country.within("person", split)
        e = rng.integers(len(people), size=n)
        f = (e + rng.integers(1, len(people), size=n)) % len(people)
        names = {"e": people[e], "f": people[f], "town": among(self._country.within("town", split), n, rng)}
        named = who.voice >= 0
        if civil is None:
            caught = np.asarray(PROVOKED)[level] + PROVOKED_SPREAD * rng.standard_normal(n)
            civil = np.where(named, who.civil, np.clip(caught, 0.0, 1.0))
        header = self._headers[np.maximum(who.voice, 0), rng.integers(wordings, size=n)]
        mood = maybe(MOODS, self._moods, civil, rules.portrait_rate if mood_rate is None else mood_rate, rng)
        line, colon = np.full(n, self._fragments.line), np.full(n, self._colon)
        speakers = [self._fragments.names("person", names[k]) for k in ("e", "f")]
        prompt = np.column_stack([
            np.where(named, header, 0), np.where(named, line, 0),
            self._fragments.fill(self._meetings, rng.integers(len(MEETINGS), size=n), names), mood,
            line, speakers[0], colon, self._provocations[level, rng.integers(self._provocations.shape[1], size=n)],
            line, speakers[1],
        ])  # fmt: skip
        most = MOST_SPEECHES
        # Two people in one company differ a little.
        c = np.clip(repeated(civil, most) + VOICE_SPREAD * rng.standard_normal((n, most)), 0.0, 1.0)
        count = rng.integers(3 if stem else 2, most + 1, size=(n, 1))
        used = np.arange(most)[None, :] < count
        turn = np.stack([speakers[(k + 1) % 2] for k in range(most)], axis=1)
        block = np.stack([
            np.broadcast_to(line[:, None], (n, most)), turn, self._gestures[GESTURES.draw(c, rng)],
            np.broadcast_to(colon[:, None], (n, most)), self._lines[LINES.draw(c, rng)],
            maybe(LINES, self._lines, c, SECOND_SENTENCE, rng),
        ], axis=-1)  # fmt: skip
        block = np.where(used[..., None], block, 0)
        if stem:
            block[np.arange(n)[:, None], count - 1, [[2, 4, 5]]] = 0
        block[:, 0, :2] = 0  # the prompt ends with the name
        parting = self._partings[PARTINGS.draw(civil, rng)]
        return prompt, block.reshape(n, -1), np.column_stack([line, parting])
