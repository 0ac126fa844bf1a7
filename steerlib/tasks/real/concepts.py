"""Concepts on OneSeC sentences: does the plant come to speak of a noun, such as a church or a dog?

Exact scores ask, where a sentence is about to name some other noun of the set, which of them the plant would name.
Sampled texts are judged, or counted where they mention the noun.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steerlib.data.concepts import load_concepts
from steerlib.data.splits import Side, partition
from steerlib.errors import MetricError, unknown
from steerlib.metrics import words
from steerlib.plant import Plant
from steerlib.tasks.base import Labels, Scores, Split, spread
from steerlib.tasks.real.base import Item, Judge, NotTellable, RealTask, lively
from steerlib.tasks.real.settings import Settings

#: Beginnings of stories, one for each split; A-LQR goes on with that of the test split, 500 times.
OPENINGS: dict[str, str] = {"fit": "In a small town", "validation": "Long ago", "test": "Once upon a time"}
SAMPLES = 500
#: Sentences of a split that exact scores use, and the words that must stand before the noun.
STEMS, WORDS_BEFORE = 200, 4


class Concepts(RealTask):
    """Prevalence of a concept in open-ended text.

    Args:
        plant: any causal language model.
        concept: a lemma of the set, such as "dog".
        data: folder of the data; see `steerlib.data.sources.locate`.
        held_out: fit on the commonest sense of every noun alone, and test on sentences with its other senses.
        seed: of the split.
        settings: how texts are sampled.
        judge: its score is the probability that a text is about the concept; by default a text counts that mentions it.
    """

    name = "onesec"
    behaviour = "concepts"
    judged = "the concept"

    def __init__(
        self,
        plant: Plant,
        *,
        concept: str,
        data: str | Path | None = None,
        held_out: bool = False,
        seed: int = 0,
        settings: Settings | Mapping[str, Any] | str = "a-lqr",
        judge: Judge | None = None,
    ) -> None:
        """Read the sentences and split them.

        Raises:
            MetricError: a concept that the set has not.
            DataError: the file is absent or malformed.
        """
        super().__init__(plant, settings=settings, judge=judge)
        self.loaded = load_concepts(data)
        self.lemmas = sorted({row.lemma for row in self.loaded.rows})
        if concept not in self.lemmas:
            raise MetricError(unknown("concept", concept, self.lemmas))
        self.concept, self.held_out, self.name = concept, held_out, f"onesec: {concept}"
        self.labels = Labels(
            behaviour=f"about {concept}",
            wanted=concept.capitalize(),
            intact="Varied",
            combined="C*V",
            positive=f"sentences about {concept}",
            negative="sentences about the other nouns",
            goal="",
        )
        senses = Counter((row.lemma, row.sense) for row in self.loaded.rows)
        best = {lemma: max((count, s) for (of, s), count in senses.items() if of == lemma)[1] for lemma in self.lemmas}
        rest = sorted({row.sense for row in self.loaded.rows} - set(best.values())) if held_out else []
        self.partition = partition(
            [[row.sentence] for row in self.loaded.rows],
            seed=seed,
            families=[row.sense for row in self.loaded.rows],
            held_out=rest,
        )

    def files(self) -> tuple[Path, ...]:
        """The table of sentences."""
        return self.loaded.files

    def side(self, split: Split) -> Side:
        """What is tested are the other senses, where they are held out."""
        return "held out" if self.held_out and split == "test" else split

    def build(self, side: Side, *, told: bool) -> list[Item]:
        """Sentences up to the noun they are about, which is not the concept; every noun of the set may come next."""
        if told:
            raise NotTellable(f"{self.name}: no prompt says what is wanted; the papers compare with none.")
        options = tuple(f" {lemma}" for lemma in self.lemmas)
        wanted = tuple(float(lemma == self.concept) for lemma in self.lemmas)
        out = []
        for i in self.partition.rows(side):
            row = self.loaded.rows[i]
            found = re.search(rf" {re.escape(row.lemma)}\b", row.sentence)
            if row.lemma != self.concept and found and found.start() > 0:
                stem = row.sentence[: found.start()]
                if len(stem.split()) >= WORDS_BEFORE:
                    out.append(Item(stem.rstrip(), i, options, wanted))
        return spread(out, STEMS) if out else []

    def openings(self, split: Split = "test") -> list[Item]:
        """The beginning of a story, once for each text that is sampled."""
        return [Item(OPENINGS[split], -1, (), ())] * SAMPLES

    def sampled(self, *, split: Split = "test", seed: int = 0, limit: int | None = None) -> tuple[Scores, list[str]]:
        """Scores of stories that all begin alike, and the stories."""
        return self.answered(spread(self.openings(split), limit), seed=seed)

    def contrast_texts(
        self, *, n: int, seed: int, at: str = "choice", split: Split = "fit"
    ) -> tuple[list[str], list[str]]:
        """Sentences about the concept, and about the other nouns in turn; see `RealTask.drawn`.

        Raises:
            ValueError: if ``at`` is neither "choice" nor "end".
        """
        rows = [self.loaded.rows[i] for i in self.partition.rows(split)]
        own = [row.sentence for row in rows if row.lemma == self.concept]
        rng = np.random.default_rng(seed)
        piles = [[row.sentence for row in rows if row.lemma == lemma] for lemma in self.lemmas if lemma != self.concept]
        mixed = [[pile[i] for i in rng.permutation(len(pile))] for pile in piles]
        # Round after round, one sentence of each noun that has one left.
        others = [pile[k] for k in range(max(map(len, mixed), default=0)) for pile in mixed if k < len(pile)]
        chosen = [own[i] for i in rng.permutation(len(own))]
        count = min(len(chosen), len(others))
        return self.drawn(list(zip(chosen[:count], others[:count], strict=True)), n=n, seed=seed, at=at, ordered=True)

    def ready(self) -> None:
        """Always: a mention counts where there is no judge."""

    def verdicts(self, items: Sequence[Item], texts: Sequence[str]) -> Scores:
        """Whether each text is about the concept, and how little it repeats itself.

        A text that was not judged, such as an empty one, counts as not about it (`filled(0.0)`).
        """
        if self.judge is not None:
            found = self.judgements(self.judge, [item.text for item in items], texts)
            return Scores(found.filled(0.0), lively(texts), found.missing)
        forms = {self.concept, f"{self.concept}s", f"{self.concept}es", f"{self.concept.removesuffix('y')}ies"}
        said = [float(any(word.lower() in forms for word in words(text))) for text in texts]
        return Scores(np.array(said), lively(texts))
