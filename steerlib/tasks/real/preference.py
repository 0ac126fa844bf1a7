"""Preference: are answers as people prefer them? On HH-RLHF, Stanford Human Preferences and UltraFeedback.

Sampled answers need a reward judge; they win where their reward is higher than that of the answer people preferred.
Exact scores compare the plant's probability per token of the preferred and of the other answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from steerlib.data.preference import HhSubset, PreferencePair, load_hh, load_shp, load_ultrafeedback
from steerlib.data.sources import Loaded
from steerlib.data.splits import Side, fixed, partition
from steerlib.errors import MetricError
from steerlib.metrics import diversity_each
from steerlib.plant import Plant
from steerlib.tasks.base import Labels, Scores, Split
from steerlib.tasks.real.base import Item, Judge, RealTask
from steerlib.tasks.real.judging import gaps
from steerlib.tasks.real.settings import Settings

Set = Literal["hh", "shp", "ultrafeedback"]
SETS: tuple[Set, ...] = ("hh", "shp", "ultrafeedback")
#: In our words: RE-Control puts such a preface before the dialogue for its prompting baseline.
INSTRUCTION = "What follows was said by a person and an assistant, whose answers are helpful, thorough and polite.\n\n"
VALIDATION = 0.05


class Preference(RealTask):
    """How far answers are those that people prefer.

    Args:
        plant: any causal language model.
        data: folder of the data; see `steerlib.data.sources.locate`.
        of: "hh", "shp" or "ultrafeedback".
        subsets: which of `steerlib.data.preference.HH_SUBSETS` to take of HH-RLHF, together; RE-Control takes all.
        published: fit and validate on the published training part and test on the published test part, where a
            training row that shares its conversation with a test row is left out; otherwise the test part alone is
            split.
        person: what the person is called in a dialogue: "Human" (Vicuna) or "User" (Llama 3, Falcon).
        held_out: forums of SHP, or subsets of HH-RLHF, that nothing is fitted on, by name ("harmless" is that of
            harmless-base), or what part of them; they are then what is tested.
        seed: of the split.
        settings: how answers are sampled.
        judge: its score is the reward of an answer, of any size.
    """

    name = "preference"
    behaviour = "preference"
    paired = True
    judged = "reward"
    bounded = False
    labels = Labels(
        behaviour="preferred",
        wanted="Win",
        intact="Varied",
        combined="W*V",
        positive="conversations with the preferred answer",
        negative="conversations with the other answer",
        goal="a preface promises a helpful assistant",
    )

    def __init__(
        self,
        plant: Plant,
        *,
        data: str | Path | None = None,
        of: Set = "hh",
        subsets: Sequence[HhSubset] = ("harmless-base",),
        published: bool = False,
        person: Literal["Human", "User"] = "Human",
        held_out: float | list[str] = 0.0,
        seed: int = 0,
        settings: Settings | Mapping[str, Any] | str = "re-control",
        judge: Judge | None = None,
    ) -> None:
        """Read the conversations and split them.

        Raises:
            MetricError: an unknown set, or a split that it does not have.
            DataError: a file is absent or malformed.
        """
        super().__init__(plant, settings=settings, judge=judge)
        if of not in SETS or (published and of == "shp") or (published and held_out):
            raise MetricError(
                f"{self.name}: got of={of!r}, published={published}, held_out={held_out!r}; expected one of "
                f"{', '.join(SETS)}; only the test posts of shp are here; families are held out of a split of our own."
            )
        plain = tuple(subsets) == ("harmless-base",)
        if isinstance(subsets, str) or not subsets or len(set(subsets)) < len(subsets) or (of != "hh" and not plain):
            raise MetricError(
                f"{self.name}: got subsets={subsets!r} of {of}; expected a list of subsets of hh, each once."
            )
        self.of, self.person, self.held_out = of, person, bool(held_out)
        tests = _load(of, "test", data, subsets)
        parts = [*tests, *(_load(of, "train", data, subsets) if published else [])]
        self.paths = tuple(file for part in parts for file in part.files)
        self.rows: tuple[PreferencePair, ...] = tuple(row for part in parts for row in part.rows)
        # A conversation is known by what it is about and by what was asked last.
        entities = [[row.entity, row.turns[-1]] for row in self.rows]
        if not published:
            families = [row.family for row in self.rows]
            self.partition = partition(entities, seed=seed, families=families, held_out=held_out)
            return
        tested = sum(len(part.rows) for part in tests)
        inner = partition(entities[tested:], seed=seed, shares={"fit": 1 - VALIDATION, "validation": VALIDATION})
        sides: list[Side] = ["test" for _ in range(tested)]
        self.partition = fixed(entities, [*sides, *inner.sides], seed=seed)

    def files(self) -> tuple[Path, ...]:
        """The parts that were read."""
        return self.paths

    def side(self, split: Split) -> Side:
        """What is tested are the families held out, where there are any."""
        return "held out" if self.held_out and split == "test" else split

    def _prompt(self, row: PreferencePair, *, told: bool = False) -> str:
        preface = INSTRUCTION if told else ""
        if self.of == "ultrafeedback":
            return preface + row.turns[0]
        names = (self.person, "Assistant")
        said = [f"{names[i % 2]}: {turn}" for i, turn in enumerate(row.turns)]
        return preface + "\n".join([*said, "Assistant:"])

    def _answer(self, text: str) -> str:
        return ("\n" if self.of == "ultrafeedback" else " ") + text

    def build(self, side: Side, *, told: bool) -> list[Item]:
        """Conversations with the preferred and the other answer."""
        out = []
        for i in self.partition.rows(side):
            row = self.rows[i]
            options = (self._answer(row.chosen), self._answer(row.rejected))
            out.append(Item(self._prompt(row, told=told), i, options, (1.0, 0.0)))
        return out

    def scored(self, items: Sequence[Item]) -> Scores:
        """Exact scores: answers differ in length, so each counts by its probability per token.

        Win: the preferred answer's share of the two. Varied: see `RealTask.readiness`.
        """
        logs, _ = self.per_token(items)
        return Scores(logs.reshape(-1, 2).softmax(1)[:, 0].numpy(), self.readiness(items))

    def contrast_texts(
        self, *, n: int, seed: int, at: str = "choice", split: Split = "fit"
    ) -> tuple[list[str], list[str]]:
        """Conversations with the preferred and with the other answer, as the papers fit on; see `RealTask.drawn`."""
        rows = [self.rows[i] for i in self.partition.rows(self.side(split))]
        both = [tuple(self._prompt(r) + self._answer(a) for a in (r.chosen, r.rejected)) for r in rows]
        return self.drawn(both, n=n, seed=seed, at=at)

    def verdicts(self, items: Sequence[Item], texts: Sequence[str]) -> Scores:
        """Whether the reward is strictly higher than the preferred answer's (RE-Control's rule), and the diversity.

        An answer without a reward, such as an empty one, does not win; nor does one against an answer without a reward.
        The rewards themselves are in `Scores.more`, so that their mean is not lost in a count of wins.
        """
        asked = [item.text for item in items]
        theirs = [self.rows[item.row].chosen for item in items]
        ours, preferred = (self.judgements(self.judge, asked, answers) for answers in (texts, theirs))
        # A comparison with NaN, which is no reward, is false.
        won = (ours.scores > preferred.scores).astype(np.float64)
        missing = gaps(ours=ours, preferred=preferred)
        return Scores(won, np.clip(diversity_each(texts), 0.0, 1.0), missing, {"reward": ours.scores})


def _load(
    of: Set, part: Literal["train", "test"], data: str | Path | None, subsets: Sequence[HhSubset]
) -> list[Loaded[PreferencePair]]:
    if of == "hh":
        return [load_hh(data, part=part, subset=subset) for subset in subsets]
    return [load_shp(data) if of == "shp" else load_ultrafeedback(data, part=part)]
