"""The happiness of a story: a behaviour that any English language model has.

Contrasts come from SST-2 (Socher et al. 2013) where it is asked for, else from the short list in
`data/contrasts/sentiment.json`. Exact scores compare the probabilities of happy and of sad words after a stem
that asks for a feeling; sampled scores count such words in a story that the plant goes on with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from steerlib.data.sentiment import load_sst2, sst2_files
from steerlib.errors import ContrastError
from steerlib.files import data_folder
from steerlib.forest import Forest
from steerlib.metrics import dist_n
from steerlib.plant import Plant
from steerlib.tasks.base import Labels, Pair, Scores, Split, Task, share_within, spread

STORY_TOKENS = 60
SST2_WORDS = (4, 14)  # short sentences: a small plant has seen nothing like the long ones
CHOICE = ". It felt very"  # a word for a feeling comes next, so the feeling must be in the state here


@dataclass(frozen=True)
class Lexicon:
    """The texts and words of the task, as shipped.

    Attributes:
        openings: beginnings of stories, by split.
        stems: texts after which a word for a feeling is expected, by split.
        happy: words that count as happy.
        sad: words that count as sad.
        positive: happy sentences to fit on.
        negative: sad sentences to fit on, alike but for the feeling.
    """

    openings: dict[str, list[str]]
    stems: dict[str, list[str]]
    happy: list[str]
    sad: list[str]
    positive: list[str]
    negative: list[str]


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    """Read the shipped texts."""
    return Lexicon(**json.loads(_lexicon_file().read_text(encoding="utf-8")))


def _lexicon_file() -> Path:
    return data_folder() / "contrasts" / "sentiment.json"


class Sentiment(Task):
    """Happiness of what a plant writes.

    Args:
        plant: any causal language model of English.
        data: folder of the data; see `steerlib.data.sources.locate`.
        fit_on: "sst2", or the "shipped" sentences; by default SST-2 if a folder is given. An environment variable
            alone does not change what a law is fitted on; where SST-2 is asked for, it says where that lies.
    """

    name = "sentiment"
    labels = Labels(
        behaviour="happy",
        wanted="Happy",
        intact="Feeling",
        combined="H*F",
        positive="happy sentences",
        negative="sad sentences",
        goal="",
    )

    def __init__(
        self, plant: Plant, *, data: str | Path | None = None, fit_on: Literal["shipped", "sst2"] | None = None
    ) -> None:
        """Choose where contrasts come from.

        Raises:
            ContrastError: unknown ``fit_on``, or a folder where the shipped sentences are asked for.
            DataError: SST-2 is absent or malformed.
        """
        super().__init__(plant)
        self.loaded = load_sst2(data) if _reads_sst2(data, fit_on) else None
        self.paired = self.loaded is None  # sentences of SST-2 have no counterparts
        self.words = lexicon()
        self._forests: dict[tuple[str, ...], Forest] = {}

    @classmethod
    def data_files(cls, options: Mapping[str, Any]) -> tuple[Path, ...]:
        """The shipped texts, and the sentences of SST-2 where they are asked for."""
        data = options.get("data")
        return (_lexicon_file(), *(sst2_files(data) if _reads_sst2(data, options.get("fit_on")) else ()))

    def prompts(self, split: Split = "test") -> list[str]:
        """Beginnings of stories."""
        return list(self.words.openings[split])

    def pairs(self, split: Split = "test") -> list[Pair]:
        """Stems that ask for a feeling, with the first happy and the first sad word of the lexicon."""
        return [Pair(stem, f" {self.words.happy[0]}", f" {self.words.sad[0]}") for stem in self.words.stems[split]]

    def contrast_texts(
        self, *, n: int, seed: int, at: str = "choice", split: Split = "fit"
    ) -> tuple[list[str], list[str]]:
        """Happy and sad sentences; see `Task.contrast_texts`.

        With the shipped sentences "choice" ends where a word for the feeling is due ("... and smiled. It felt
        very") and "end" at the full stop. Sentences of SST-2 are opinions, not stories: for them both are the end
        of the sentence, without and with its full stop.
        """
        if at not in ("choice", "end"):
            raise ValueError(f"at: got {at!r}, expected 'choice' or 'end'.")
        both = self._sst2(split) if self.loaded else self._shipped(split)
        rng = np.random.default_rng(seed)
        # Sentence i of one list is the counterpart of sentence i of the other, so both are drawn together; no sentence
        # is drawn twice, so there may be fewer than n.
        count = min(len(rows) for rows in both)
        chosen = rng.permutation(count)[:n]
        drawn = [[rows[i] for i in chosen] for rows in both]
        end = "." if at == "end" else "" if self.loaded else CHOICE
        return [row + end for row in drawn[0]], [row + end for row in drawn[1]]

    def _shipped(self, split: Split) -> tuple[list[str], list[str]]:
        keep = _part(len(self.words.positive), split)
        return [self.words.positive[i] for i in keep], [self.words.negative[i] for i in keep]

    def _sst2(self, split: Split) -> tuple[list[str], list[str]]:
        if self.loaded is None:
            raise ContrastError(
                f"{self.name}: got a task that was made on the shipped sentences, expected one on SST-2. Fix: "
                "Sentiment(plant, fit_on='sst2')."
            )
        low, high = SST2_WORDS
        by_label = [[_plain(row.sentence) for row in self.loaded.rows if row.happy is happy] for happy in (True, False)]
        happy, sad = ([s for s in found if low <= len(s.split()) <= high] for found in by_label)
        return [happy[i] for i in _part(len(happy), split)], [sad[i] for i in _part(len(sad), split)]

    def exact(self, *, split: Split = "test", limit: int | None = None) -> Scores:
        """Happy: share of happy among words of feeling. Feeling: probability that a word of feeling comes at all."""
        stems = spread(self.words.stems[split], limit)
        groups = [f" {word}" for word in (*self.words.happy, *self.words.sad)]
        owner = torch.arange(len(stems)).repeat_interleave(len(groups))
        key = tuple(stems)
        if key not in self._forests:
            self._forests[key] = Forest.of(self.plant, [s for s in stems for _ in groups], groups * len(stems))
        logs = self._forests[key].logprobs(self.plant)
        sad = torch.tensor([0] * len(self.words.happy) + [1] * len(self.words.sad)).repeat(len(stems))
        mass = share_within(logs, sad * len(stems) + owner, 2 * len(stems)).reshape(2, len(stems))
        return Scores(mass[0] / mass.sum(0), mass.sum(0))

    def expected_rewards(self, *, n: int, seed: int = 0) -> tuple[list[str], Float[np.ndarray, " prompts"]]:
        """Stems that ask for a feeling, with the share of happy words: exact scores are of stems, not of openings."""
        del seed
        return spread(self.words.stems["fit"], n), self.exact(split="fit", limit=n).wanted

    def sampled(self, *, split: Split = "test", seed: int = 0, limit: int | None = None) -> tuple[Scores, list[str]]:
        """Happy: 1 if happy words outnumber sad ones, 1/2 if neither does. Feeling: Dist-2, which falls when stuck."""
        prompts = spread(self.prompts(split), limit)
        texts = list(self.plant.generate(prompts, max_new_tokens=STORY_TOKENS, seed=seed).texts)
        wanted = np.array([self.happiness(text) for text in texts])
        return Scores(wanted, np.array([dist_n([text], 2) if len(text.split()) > 1 else 0.0 for text in texts])), texts

    def happiness(self, text: str) -> float:
        """1 if happy words outnumber sad ones, 0 if the other way round, 1/2 if neither does."""
        found = re.findall(r"[a-z]+", text.lower())
        balance = sum(w in self.words.happy for w in found) - sum(w in self.words.sad for w in found)
        return 0.5 + 0.5 * float(np.sign(balance))

    def reference(self, *, split: Split = "test", limit: int | None = None) -> Scores | None:
        """None: a plant of this size cannot be told to be happy."""
        del split, limit
        return None


def _reads_sst2(data: str | Path | None, fit_on: str | None) -> bool:
    """Whether contrasts come from SST-2."""
    if fit_on not in (None, "shipped", "sst2") or (fit_on == "shipped" and data):
        raise ContrastError(
            f"sentiment: got fit_on={fit_on!r} {'with' if data else 'without'} a folder of data; expected 'sst2', or "
            "'shipped' without one."
        )
    return fit_on == "sst2" or bool(data)


def _plain(sentence: str) -> str:
    """An SST-2 sentence, without its detached final stop."""
    return re.sub(r"\s+([.,!?;:'])", r"\1", sentence.strip()).rstrip(" .")


def _part(count: int, split: Split) -> list[int]:
    """Which of `count` items belong to a split: three of five to fit, one each to validation and test."""
    wanted = {"fit": (0, 1, 2), "validation": (3,), "test": (4,)}[split]
    return [i for i in range(count) if i % 5 in wanted]
