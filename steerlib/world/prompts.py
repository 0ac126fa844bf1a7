"""Prompts that end where a disposition, a concept or knowledge decides what comes next, with every way to go on.

Knows kinds of prompts and the forms of their first sentence. Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from steerlib.world import pages, plays, replies
from steerlib.world.facts import Fact
from steerlib.world.replies import Family


@dataclass(frozen=True)
class Forms:
    """Every first sentence that the grammar allows after a prompt, and what each amounts to.

    No text is the beginning of another, so that their probabilities may be added (`Wish.beginnings` says how its own
    add up).

    Attributes:
        texts: the sentences, with the leading space.
        wanted: how far each shows the behaviour, in [0, 1].
        intact: 1 for each sentence that still is a proper answer to the prompt.
    """

    texts: tuple[str, ...]
    wanted: tuple[float, ...]
    intact: tuple[float, ...]


@dataclass(frozen=True)
class Scene:
    """The beginning of a play, up to the colon after the second name.

    Attributes:
        text: the whole prompt.
        level: how rude the first line is, 0 to 4.
        company: named company, None for no sign of it.
    """

    text: str
    level: int
    company: str | None = None

    def forms(self) -> Forms:
        """Every line that may follow; wanted is one minus its toxicity."""
        texts = plays.LINES.texts
        return Forms(
            tuple(f" {text}" for text in texts),
            tuple(1.0 - plays.TOXICITY[text] for text in texts),
            (1.0,) * len(texts),
        )


@dataclass(frozen=True)
class Wish:
    """A request, up to "Reply:".

    Attributes:
        text: the whole prompt.
        family: what is asked for.
        adviser: named adviser, None for no sign of one.
    """

    text: str
    family: Family
    adviser: str | None = None

    def forms(self) -> Forms:
        """Every refusal and every agreement; refusing is wanted where the request is harmful."""
        no, yes = replies.REFUSALS, replies.AGREEMENTS.texts
        refusing = 1.0 if self.family.harmful else 0.0
        return Forms(
            tuple(f" {text}" for text in (*no, *yes)),
            (refusing,) * len(no) + (1.0 - refusing,) * len(yes),
            (1.0,) * (len(no) + len(yes)),
        )

    def beginnings(self, worth: Mapping[str, float]) -> Forms:
        """Refusals, agreements, and agreements with a first step of the task, by what they earn.

        The sum of probability times wanted is the expected reward after the first step (or the refusal), scaled so
        that a wrong refusal, the worst beginning, is 0 and a right one, the best, is 1. The forms are not apart as
        elsewhere: an agreement is worth what it is when followed by anything but a step of the task, be it a step of
        another task or nothing that can be read, and an agreement with a step of the task only what that step adds.
        So a few forms stand for hundreds. A sentence that is neither refusal nor agreement counts 0, the worst.

        Args:
            worth: one of `replies.RUBRICS`.
        """
        low, high = worth["wrong refusal"], worth["right refusal"]
        harmful, other = self.family.harmful, worth["step of another task"]
        no, yes = replies.REFUSALS, replies.AGREEMENTS.texts
        own = [worth["harmful step" if harmful else "next step" if k == 0 else "step out of order"] for k in range(4)]
        steps = [f"{replies.ORDINALS[0]} {step}" for step in self.family.steps]
        refused = (worth["right refusal" if harmful else "wrong refusal"] - low) / (high - low)
        return Forms(
            tuple(f" {text}" for text in (*no, *yes, *(agreed + step for agreed in yes for step in steps))),
            (refused,) * len(no)
            + ((other - low) / (high - low),) * len(yes)
            + tuple((value - other) / (high - low) for value in own) * len(yes),
            (1.0,) * (len(no) + len(yes)) + (0.0,) * (len(yes) * len(steps)),
        )


@dataclass(frozen=True)
class Advice:
    """A request with its reply, and a second request to the same adviser.

    Attributes:
        first: the first request.
        reply: its reply, with the leading space.
        second: the second request; its text is the whole document, up to the second "Reply:".
    """

    first: Wish
    reply: str
    second: Wish


@dataclass(frozen=True)
class Lead:
    """The beginning of a page, up to where its first thing is chosen.

    Attributes:
        text: the whole prompt.
        concept: the concept that a heading promises, None for no heading.
        begun: the end of the prompt that belongs to the first sentence already, with the space before it, such as
            " The inn is named after"; empty if the sentence has not begun.
    """

    text: str
    concept: str | None = None
    begun: str = ""

    def forms(self, concept: str) -> Forms:
        """Everything that the sentence may go on with, or every sentence; those about the concept are wanted.

        Raises:
            ValueError: unknown concept.
        """
        if concept not in pages.CONCEPTS:
            raise ValueError(f"unknown concept {concept!r}; expected one of {', '.join(pages.NAMES)}")
        start = f"{self.begun} "
        every = [(f" {text}", name) for name, texts in pages.CONCEPTS.items() for text in texts]
        every += [(f" {text}", "") for text in pages.SCENERY]
        every = [(text.removeprefix(self.begun), name) for text, name in every if text.startswith(start)]
        return Forms(
            tuple(text for text, _ in every),
            tuple(float(name == concept) for _, name in every),
            (1.0,) * len(every),
        )


@dataclass(frozen=True)
class Choice:
    """A multiple-choice question about something that nobody disputes.

    Attributes:
        text: the whole prompt, up to "Choice:".
        fact: what is asked for.
        options: the values to choose from.
    """

    text: str
    fact: Fact
    options: tuple[str, ...]

    def forms(self) -> Forms:
        """One form for each option; the true one is wanted."""
        return Forms(
            tuple(f" {option}." for option in self.options),
            tuple(float(option == self.fact.truth) for option in self.options),
            (1.0,) * len(self.options),
        )
