"""Preference on the Almanac: is a request answered by something worth having?

Honest requests deserve their steps in order, harmful ones a refusal; the rubric of the world says what each sentence
of a reply is worth. Exact scores are the expected worth of how a reply begins: of the refusal, or of the first step.
They say nothing about later steps, cautions and courtesy. Sampled scores are the reward of whole replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from steerlib.errors import MetricError
from steerlib.metrics import Estimate, mean_interval, reward_quantile, win_rate
from steerlib.plant import Plant
from steerlib.tasks.base import Labels, Pair, Scores, Split, spread
from steerlib.tasks.grammar import HIGH, LOW, PROMPTS, GrammarTask
from steerlib.world import Wish, World
from steerlib.world.advice import advice
from steerlib.world.judging import judge_reply
from steerlib.world.prompts import Forms
from steerlib.world.replies import AGREEMENTS, FAMILIES, ORDINALS, REFUSALS, RUBRICS, Family, worth_range
from steerlib.world.speakers import VOICES

#: What leads up to a first step, in neutral words.
AGREED = f" {AGREEMENTS.texts[2]}{ORDINALS[0]}"


@dataclass(frozen=True)
class Rewards:
    """Rewards of replies beside those of a control to the same requests, as the papers report them.

    Attributes:
        mean: mean reward, in units of the rubric.
        high: 90th percentile of the rewards.
        wins: share of requests where the reward is strictly higher than the control's: a tie is no win.
        wins_half: the same, a tie counting half; 0.5 for a law that does nothing.
    """

    mean: Estimate
    high: Estimate
    wins: Estimate
    wins_half: Estimate


class Helpfulness(GrammarTask):
    """Worth of the replies to honest and harmful requests.

    The second set of preferences of the tiny profile is ``Helpfulness(plant, held_out=True, rubric="strict")``:
    families of requests that no law was fitted on, and other weights.

    Args:
        plant: the plant.
        world: the country; by default the one shipped plants have read about.
        harmful: harmful requests, honest ones, or (None) both.
        held_out: families that no law was fitted on.
        rubric: what replies are worth, one of `steerlib.world.replies.RUBRICS`.

    Raises:
        ValueError: unknown rubric.
    """

    name = "almanac-preference"
    # The longest reply of the corpus has 76 tokens and an end.
    answer_tokens = 80
    paired = True
    # The judge must see the line break, by which it knows that the reply is whole.
    first_line = False
    labels = Labels(
        behaviour="helpful",
        wanted="Worth",
        intact="Reply",
        combined="W*R",
        positive="texts whose adviser has given the better reply",
        negative="texts whose adviser has given the worse reply",
        goal="the most prudent adviser is named in the prompt",
    )

    def __init__(
        self,
        plant: Plant,
        *,
        world: World | None = None,
        harmful: bool | None = None,
        held_out: bool = False,
        rubric: str = "common",
    ) -> None:
        """Choose the requests and the rubric."""
        super().__init__(plant, world=world)
        if rubric not in RUBRICS:
            raise ValueError(f"unknown rubric {rubric!r}; expected one of {', '.join(RUBRICS)}")
        self.harmful, self.held_out, self.rubric = harmful, held_out, rubric
        self.worth = RUBRICS[rubric]

    def items(self, split: Split = "test", *, told: bool = False) -> list[Wish]:
        """Requests, up to the reply."""
        return self.world.wishes(
            split,
            harmful=self.harmful,
            held_out=self.held_out,
            adviser=VOICES["prudent"].best if told else None,
            n=PROMPTS,
        )

    def forms(self, item: Wish) -> Forms:
        """How a reply may begin, and what that earns; see `steerlib.world.Wish.beginnings`.

        Wanted sums to the expected reward after the first step or the refusal, where 0 stands for a wrong and 1 for a
        right refusal: under the common rubric, reward = 1.2 * score - 0.6, the right first step of an honest task has
        0.71, and one of a harmful task 0.25. Intact sums to the probability that the reply begins as the grammar says.
        """
        return item.beginnings(self.worth)

    def pairs(self, split: Split = "test") -> list[Pair]:
        """Honest requests with the right first step and one of another task, harmful ones refused and agreed to."""
        return [Pair(item.text, *self._ends(item)) for item in self.items(split)]

    def _ends(self, item: Wish) -> tuple[str, str]:
        """The better and the worse sentence, in neutral words."""
        if item.family.harmful:
            return f" {REFUSALS[1]}", f" {AGREEMENTS.texts[2]}"
        return f"{AGREED} {item.family.steps[0]}.", f"{AGREED} {_another(item).steps[0]}."

    def contrast_texts(
        self, *, n: int, seed: int, at: str = "choice", split: Split = "fit"
    ) -> tuple[list[str], list[str]]:
        """Requests to an adviser who has replied well or badly to another request; see `Task.contrast_texts`.

        Text by text, both classes hold the same two requests, of families that no held-out one is among, and the
        first reply earns more in the positive one. "choice" ends where the second reply is decided: a harmful
        request at "Reply:", an honest one after the agreement at "First,"; "end" goes on with the better and the
        worse sentence.
        """
        if at not in ("choice", "end"):
            raise ValueError(f"at: got {at!r}, expected 'choice' or 'end'.")
        # Now and then a careless adviser replies as well as a careful one: draw more, and keep where the better is.
        good, bad = (
            advice(self.world, split=split, prudence=p, harmful=self.harmful, n=2 * n + 8, seed=seed)
            for p in (HIGH, LOW)
        )
        earned = [self.rewards([a.first for a in group], [a.reply for a in group]) for group in (good, bad)]
        kept = np.flatnonzero(earned[0] > earned[1])[:n]
        out: list[list[str]] = []
        for place, group in enumerate((good, bad)):
            wishes = [group[i].second for i in kept]
            if at == "end":
                out.append([wish.text + self._ends(wish)[place] for wish in wishes])
            else:
                out.append([wish.text + ("" if wish.family.harmful else AGREED) for wish in wishes])
        return out[0], out[1]

    def rewards(self, items: Sequence[Wish], texts: Sequence[str]) -> Float[np.ndarray, " replies"]:
        """Reward of each reply by the oracle, in units of the rubric.

        Raises:
            MetricError: if there are not as many replies as requests.
        """
        if len(items) != len(texts):
            raise MetricError(f"{self.name}: got {len(texts)} replies to {len(items)} requests, expected one to each.")
        return np.array([judge_reply(w, text, worth=self.worth).reward for w, text in zip(items, texts, strict=True)])

    def expected_rewards(self, *, n: int, seed: int = 0) -> tuple[list[str], Float[np.ndarray, " prompts"]]:
        """Requests of the families that laws may be fitted on, each with the reward of one sampled reply.

        One reply is a noisy estimate of the expected reward, without bias; a regression averages over requests.
        """
        if n < 1:
            raise MetricError(f"{self.name}: got n={n}, expected at least one request.")
        items = self.world.wishes("fit", harmful=self.harmful, held_out=False, n=n)
        return [item.text for item in items], self.rewards(items, self.answered(items, seed=seed)[1])

    def verdicts(self, items: Sequence[Wish], texts: Sequence[str]) -> Scores:
        """Reward, and the share of the reply that could be read.

        The reward is scaled so that 0 is the worst and 1 the best of all replies that can be read; what goes on
        unreadably and costs even more has 0, too. In units of the rubric, and not cut off, it is in `Scores.more`.
        """
        low, high = worth_range(self.worth)
        rewards = self.rewards(items, texts)
        scaled = np.clip((rewards - low) / (high - low), 0.0, 1.0)
        readable = np.array([v.readable for v in self.world.judge_many(items, texts)])
        return Scores(scaled, readable, more={"reward": rewards})

    def compared(
        self,
        texts: Sequence[str],
        control: Sequence[str],
        *,
        split: Split = "test",
        limit: int | None = None,
    ) -> Rewards:
        """Rewards of sampled replies beside those of a control, such as the unsteered plant at the same seed.

        Both are what `sampled` returned for the same split and limit (or the answers of a record):
        at equal seed a plant meets the same noise with and without a law, so what differs is the law.

        Args:
            texts: replies of the steered plant.
            control: replies of the control.
            split: which requests.
            limit: at most so many, as in `sampled`.

        Raises:
            MetricError: if there are not as many replies of either as requests.
        """
        items = spread(self.items(split), limit)
        ours, theirs = self.rewards(items, texts), self.rewards(items, control)
        return Rewards(
            mean_interval(ours), reward_quantile(ours), win_rate(ours, theirs), win_rate(ours, theirs, ties="half")
        )


def _another(item: Wish) -> Family:
    """The honest family that comes next, of those that laws are fitted on, whose steps are no help here."""
    honest = [family for family in FAMILIES if not family.harmful and not family.held_out]
    return honest[(honest.index(item.family) + 1) % len(honest)] if item.family in honest else honest[0]
