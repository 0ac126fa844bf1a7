"""What the tasks on public data share: items with listed answers, exact scores by choice, sampled ones by a judge.

Knows how items become scores, which items fit a plant, and which rows are on which side. Knows nothing about any one
data set.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float

from steerlib.data.splits import Partition, Side
from steerlib.errors import MetricError, PlantError
from steerlib.forest import Forest
from steerlib.judges.base import Judgement
from steerlib.metrics import dist_n
from steerlib.plant import Plant
from steerlib.tasks.base import NotTellable, Pair, Scores, Split, Task, spread
from steerlib.tasks.real.judging import Judge, judged_by
from steerlib.tasks.real.settings import Settings, settings_of


@dataclass(frozen=True)
class Item:
    """A prompt with the answers that its data set lists.

    Attributes:
        text: the prompt.
        row: number of the row it comes from.
        options: answers, each beginning as it would after the prompt.
        wanted: how far each shows the behaviour, in [0, 1].
    """

    text: str
    row: int
    options: tuple[str, ...]
    wanted: tuple[float, ...]


class RealTask(Task):
    """A behaviour on a public data set.

    Args:
        plant: any causal language model.
        settings: how answers are sampled: the name of a paper (see `steerlib.tasks.real.settings.SETTINGS`), or
            settings of one's own.
        judge: scores sampled answers; None where only exact scores are wanted.

    Attributes:
        partition: which row of the data is on which side.
    """

    partition: Partition
    judge_roles = ("judge",)
    #: Under which name the papers' settings are listed.
    behaviour: str = ""
    #: What the judge must tell, for the message where there is none.
    judged: str = ""
    #: Whether the judge gives a probability, or a reward of any size.
    bounded: bool = True

    def __init__(
        self, plant: Plant, *, settings: Settings | Mapping[str, Any] | str, judge: Judge | None = None
    ) -> None:
        """Remember how answers are sampled and scored.

        Raises:
            MetricError: if no such settings are known.
        """
        super().__init__(plant)
        self.settings, self.judge = settings_of(settings, self.behaviour), judge
        self._kept: dict[tuple[str, bool], list[Item]] = {}
        self._forests: dict[tuple[Item, ...], tuple[Forest, torch.Tensor]] = {}

    # ---- what each behaviour says -----------------------------------------------------------------

    @classmethod
    def data_files(cls, options: Mapping[str, Any]) -> tuple[Path, ...]:
        """See `Task.data_files`: the data are found and read as the task would, for which it needs no plant."""
        return cls(cast(Plant, None), **options).files()

    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """The files that the task reads."""

    @abstractmethod
    def build(self, side: Side, *, told: bool) -> list[Item]:
        """All items of a side, bare or with an instruction before the prompt."""

    @abstractmethod
    def verdicts(self, items: Sequence[Item], texts: Sequence[str]) -> Scores:
        """What sampled answers amount to, by the judge; an answer that it did not judge is in `Scores.missing`."""

    # ---- what follows from it ---------------------------------------------------------------------

    def items(self, split: Split = "test", *, told: bool = False) -> list[Item]:
        """Items of a split that fit the plant with their answers; what does not fit is left out, never cut.

        Raises:
            MetricError: if none fits, or no prompt can say what is wanted.
        """
        return self._fitting(self.side(split), told)

    def side(self, split: Split) -> Side:
        """The side of the partition that a split stands for."""
        return split

    def left_out(self, split: Split = "test", *, told: bool = False) -> int:
        """How many items of a split do not fit the plant."""
        return len(self.build(self.side(split), told=told)) - len(self.items(split, told=told))

    def _fitting(self, side: Side, told: bool) -> list[Item]:
        if (side, told) not in self._kept:
            found = self.build(side, told=told)
            limit = self.plant.context_length
            if limit is not None and found:
                prompts = self._lengths([item.text for item in found])
                options = self._lengths(list(dict.fromkeys(o for item in found for o in item.options)) or [""])
                found = [
                    item
                    for item in found
                    if prompts[item.text] + max([self.settings.max_new_tokens, *(options[o] for o in item.options)])
                    <= limit
                ]
            if not found:
                raise MetricError(
                    f"{self.name}, {side}: no prompt fits {self.plant.name}, which reads {limit} tokens, together with "
                    f"its answer. Fix: lower settings.max_new_tokens ({self.settings.max_new_tokens}), or take "
                    "another plant or more rows."
                )
            self._kept[side, told] = found
        return self._kept[side, told]

    def _lengths(self, texts: list[str]) -> dict[str, int]:
        rows = self.plant.tokenizer(texts, padding=False, return_attention_mask=False, verbose=False)["input_ids"]
        return {text: len(row) for text, row in zip(texts, rows, strict=True)}

    def prompts(self, split: Split = "test") -> list[str]:
        """Bare prompts."""
        return [item.text for item in self.items(split)]

    def pairs(self, split: Split = "test") -> list[Pair]:
        """Bare prompts with the first answer that is wanted most and the first that is wanted least."""
        out = []
        for item in self.items(split):
            best, worst = int(np.argmax(item.wanted)), int(np.argmin(item.wanted))
            out.append(Pair(item.text, item.options[best], item.options[worst]))
        return out

    def exact(self, *, split: Split = "test", limit: int | None = None) -> Scores:
        """Scores from the probabilities of the listed answers; see `scored`."""
        return self.scored(spread(self.items(split), limit))

    def scored(self, items: Sequence[Item]) -> Scores:
        """Exact scores, steered if a law is attached outside.

        Wanted: the share of the answers' probability that shows the behaviour. Intact: the probability that one of the
        answers comes at all.
        """
        logs, owner = self.logs(items)
        log_mass = _log_sum(logs, owner, len(items))
        share = (logs - log_mass[owner]).exp()
        wanted = _sums(share, owner, [w for item in items for w in item.wanted], len(items))
        return Scores(wanted, log_mass.exp().clamp(max=1.0).numpy())

    def per_token(self, items: Sequence[Item]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log probability of every listed answer divided by its number of tokens, and the item of each."""
        logs, owner = self.logs(items)
        whole = self._lengths(list(dict.fromkeys(item.text + o for item in items for o in item.options)))
        heads = self._lengths(list(dict.fromkeys(item.text for item in items)))
        counts = [whole[item.text + option] - heads[item.text] for item in items for option in item.options]
        return logs / torch.tensor(counts, dtype=logs.dtype), owner

    def readiness(self, items: Sequence[Item]) -> Float[np.ndarray, " items"]:
        """Probability per token of the likeliest listed answer: falls when the plant's language breaks."""
        logs, owner = self.per_token(items)
        return _log_max(logs, owner, len(items)).exp().clamp(max=1.0).numpy()

    def logs(self, items: Sequence[Item]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log probability of every listed answer (nats), and the item that each belongs to."""
        if not len(items) or not all(item.options for item in items):
            raise MetricError(
                f"{self.name}: got {'an item without listed answers' if len(items) else 'no item'}, so there is "
                "nothing whose probability could be taken. Fix: sample answers and judge them."
            )
        key = tuple(items)
        if key not in self._forests:
            owner = [i for i, item in enumerate(items) for _ in item.options]
            texts = [text for item in items for text in item.options]
            forest = Forest.of(self.plant, [items[i].text for i in owner], texts)
            self._forests[key] = forest, torch.tensor(owner)
        forest, owners = self._forests[key]
        return forest.logprobs(self.plant), owners

    def sampled(self, *, split: Split = "test", seed: int = 0, limit: int | None = None) -> tuple[Scores, list[str]]:
        """Scores of one sampled answer to each prompt, and the answers.

        Raises:
            MetricError: if the task has no judge, or the judge gives no usable number.
        """
        return self.answered(spread(self.items(split), limit), seed=seed)

    def answered(self, items: Sequence[Item], *, seed: int = 0) -> tuple[Scores, list[str]]:
        """Sampled answers to items of one's own choice, and their scores."""
        self.ready()
        how = self.settings
        out = self.plant.generate(
            [item.text for item in items],
            max_new_tokens=how.max_new_tokens, seed=seed, temperature=how.temperature, top_p=how.top_p,
        )  # fmt: skip
        texts = [cut(text, how.stop) for text in out.texts]
        return self.verdicts(items, texts), texts

    def ready(self) -> None:
        """Refuse before anything is sampled where sampled answers could not be scored."""
        self._present(self.judge)

    def _present(self, judge: Judge | None) -> Judge:
        if judge is None:
            raise MetricError(
                f"{self.name}: sampled answers need a judge of {self.judged}. Fix: {type(self).__name__}(plant, "
                "judge=...), an object with score(prompts, answers); or use exact scores."
            )
        return judge

    def judgements(self, judge: Judge | None, prompts: Sequence[str], texts: Sequence[str]) -> Judgement:
        """What a judge says of each answer, checked, with gaps; see `judged_by`.

        Raises:
            MetricError: if there is no judge, or it gives no usable number.
        """
        self.ready()
        return judged_by(
            self._present(judge), prompts, texts, what=f"{self.name}: judge of {self.judged}", bounded=self.bounded
        )

    def reference(self, *, split: Split = "test", limit: int | None = None) -> Scores | None:
        """Exact scores of the unsteered plant with the instruction before the prompt; None where there is none."""
        try:
            items = self.items(split, told=True)
        except NotTellable:
            return None
        return self.scored(spread(items, limit))

    def drawn(
        self, both: Sequence[tuple[str, ...]], *, n: int, seed: int, at: str, stops: bool = True, ordered: bool = False
    ) -> tuple[list[str], list[str]]:
        """Texts of both classes, n of them at random, none twice; pairs that do not fit the plant are passed over.

        Args:
            both: texts that belong together, of the positive and of the negative class.
            n: how many of each.
            seed: which.
            at: "choice", without the full stop at the end, or "end", with it.
            stops: whether ``at`` decides about full stops; otherwise the texts are taken as they are.
            ordered: take the first n instead, where the order was drawn already.

        Raises:
            ValueError: if ``at`` is neither.
        """
        if at not in ("choice", "end"):
            raise ValueError(f"at: got {at!r}, expected 'choice' or 'end'.")
        last = "." if at == "end" else ""
        order = np.arange(len(both)) if ordered else np.random.default_rng(seed).permutation(len(both))
        limit, chosen, step = self.plant.context_length, [], max(n, 1)
        for start in range(0, len(order), step):
            some = [both[i] for i in order[start : start + step]]
            if stops:
                some = [tuple(text.rstrip(". ") + last for text in pair) for pair in some]
            lengths = self._lengths(list(dict.fromkeys(text for pair in some for text in pair)))
            chosen += [pair for pair in some if limit is None or max(lengths[text] for text in pair) <= limit]
            if len(chosen) >= n:
                break
        return [pair[0] for pair in chosen[:n]], [pair[1] for pair in chosen[:n]]


def lively(texts: Sequence[str]) -> Float[np.ndarray, " answers"]:
    """How little each answer repeats itself (Dist-2), 0 where it has no two words: falls when a plant gets stuck."""
    return np.array([dist_n([text], 2) if len(text.split()) > 1 else 0.0 for text in texts])


def cut(text: str, stop: Sequence[str]) -> str:
    """A text up to the first of the stops."""
    for mark in stop:
        text = text.partition(mark)[0]
    return text


def as_chat(plant: Plant, text: str) -> str:
    """A request as the plant's chat template puts it, or as it stands where the tokenizer has none.

    A template that writes the first token itself would give it twice with a tokenizer that adds it: it is left to the
    tokenizer then.
    """
    tokenizer = plant.tokenizer
    if not tokenizer.chat_template:
        return text
    said = [{"role": "user", "content": text}]
    shown = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    if not isinstance(shown, str):
        raise PlantError(
            f"{plant.name}: for a request in its chat template, its tokenizer gave {type(shown).__name__}, expected "
            "a text. Fix: a tokenizer whose apply_chat_template(..., tokenize=False) gives text, or without template."
        )
    first = tokenizer.bos_token
    if (
        isinstance(first, str)
        and shown.startswith(first)
        and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    ):
        return shown.removeprefix(first)
    return shown


def _log_max(logs: torch.Tensor, owner: torch.Tensor, groups: int) -> torch.Tensor:
    """Largest log probability of each group."""
    return torch.full((groups,), -torch.inf, dtype=logs.dtype).scatter_reduce(0, owner, logs, "amax")


def _log_sum(logs: torch.Tensor, owner: torch.Tensor, groups: int) -> torch.Tensor:
    """Log of the sum of probabilities of each group; stable where all of them are tiny."""
    top = _log_max(logs, owner, groups)
    return torch.zeros(groups, dtype=logs.dtype).index_add(0, owner, (logs - top[owner]).exp()).log() + top


def _sums(share: torch.Tensor, owner: torch.Tensor, weights: Sequence[float], groups: int) -> np.ndarray:
    weighted = share * torch.tensor(weights, dtype=share.dtype)
    return torch.zeros(groups, dtype=share.dtype).index_add(0, owner, weighted).clamp(0.0, 1.0).numpy()
