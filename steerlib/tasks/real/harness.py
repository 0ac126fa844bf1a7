"""A plant as a model of lm-evaluation-harness, so that utility can be measured on any of its benchmarks.

Knows what the harness asks of a model: log-likelihoods of continuations, rolling log-likelihoods of texts, and
continuations up to a stop. The harness is imported when it is asked for; a law attached to the plant acts in all three.
Where a text is too long for the plant, the same tokens are kept as by the harness's own model for `transformers`, so
that an unsteered plant gets the numbers that it would get there.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steerlib.errors import MetricError
from steerlib.finite import check_logprobs
from steerlib.plant import Plant
from steerlib.tasks.real.base import cut

#: Tokens of a continuation for which a benchmark names no number; half of what a smaller plant reads.
NEW_TOKENS = 256
#: Names by which benchmarks call that number; the first one given counts, as in the harness.
_LONGEST = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class HarnessError(MetricError):
    """lm-evaluation-harness is not installed, or asks for what a plant cannot do."""


@dataclass(frozen=True)
class _Wish:
    """One continuation that is asked for, in terms of `Plant.generate`."""

    text: str
    size: int  # tokens of the text
    new: int
    temperature: float
    top_p: float | None
    top_k: int | None
    until: tuple[str, ...]


class Answers:
    """What the harness asks, answered by a plant.

    Args:
        plant: the plant, steered if a law is attached outside.
        batch_size: rows at a time.
        seed: of sampled continuations.
    """

    def __init__(self, plant: Plant, *, batch_size: int = 16, seed: int = 0) -> None:
        """Remember the plant."""
        self.plant, self.batch_size, self.seed = plant, batch_size, seed

    @property
    def limit(self) -> int:
        """Longest row, in tokens."""
        return self.plant.context_length or 2048

    @property
    def first(self) -> int:
        """Token that stands before a text that has no context."""
        tokenizer = self.plant.tokenizer
        found = [t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if isinstance(t, int)]
        return found[0] if found else self.plant.pad_id

    def loglikelihood(self, asked: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Log probability of each continuation after its context (nats), and whether greedy decoding would give it.

        A context too long for the plant loses its beginning, as the harness's own models do.

        Raises:
            HarnessError: if a continuation has no token, or none of its tokens is apart from the context.
        """
        return self._scored([self._pair(context, continuation) for context, continuation in asked])

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        """Log probability of each whole text (nats), every token predicted once.

        A text too long for the plant is cut into windows that it can just read; the last one is filled up with tokens
        before it, which are context there. A first token that the tokenizer adds is given, not predicted.
        """
        out = []
        for text in texts:
            tokens = self._without_first(self._tokens(text))
            pairs = []
            for start in range(0, len(tokens), self.limit):
                end = min(start + self.limit, len(tokens))
                pairs.append((tokens[end - self.limit - 1 : start] if start else [self.first], tokens[start:end]))
            out.append(sum(found for found, _ in self._scored(pairs)))
        return out

    def generate_until(self, asked: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        """Continuations up to a stop, greedy ones in batches.

        Raises:
            HarnessError: if an argument of generation is not one that is known here, or asks for more tokens than the
                plant can read.
        """
        wishes = [self._wish(context, options) for context, options in asked]
        out = [""] * len(wishes)
        alike: dict[int, list[int]] = {}
        for i, wish in enumerate(wishes):
            if wish.temperature == 0:
                alike.setdefault(wish.new, []).append(i)
            else:  # drawn by its place among the requests, so alone
                self._write([i], wishes, out)
        for chosen in alike.values():
            chosen.sort(key=lambda i: wishes[i].size)
            for start in range(0, len(chosen), self.batch_size):
                self._write(chosen[start : start + self.batch_size], wishes, out)
        return out

    def _wish(self, context: str, options: dict[str, Any]) -> _Wish:
        how = dict(options)
        until = how.pop("until", None) or []
        numbers = [number for number in [how.pop(name, None) for name in _LONGEST] if number is not None]
        new = int(numbers[0]) if numbers else min(NEW_TOKENS, self.limit // 2)
        temperature = how.pop("temperature", None)
        # Without do_sample the temperature decides, as in the harness.
        sampled = bool(how.pop("do_sample", bool(temperature)))
        top_p, top_k = how.pop("top_p", None), how.pop("top_k", None)
        if how.get("num_beams") == 1:
            del how["num_beams"]
        if how:
            told = ", ".join(f"{name}={value!r}" for name, value in sorted(how.items()))
            raise HarnessError(f"generation: got {told}, which a plant does not know.")
        if not 0 < new < self.limit:
            raise HarnessError(
                f"generation: got {new} new tokens, expected at least 1 and fewer than {self.limit}, which "
                f"{self.plant.name} reads. Fix: max_gen_toks in the benchmark's generation_kwargs."
            )
        tokens = self._tokens(context) if context else [self.first]
        # Decoded only if it must be: text and tokens need not correspond exactly, and the first one is added again.
        room = max(1, self.limit - new - self.plant.tokenizer.num_special_tokens_to_add())
        if not context or len(tokens) > self.limit - new:
            tokens = tokens[-room:]
            context = str(self.plant.tokenizer.decode(tokens, skip_special_tokens=bool(context)))
        return _Wish(
            context, len(tokens), new, (1.0 if temperature is None else float(temperature)) if sampled else 0.0,
            top_p if sampled else None, top_k if sampled else None,
            (until,) if isinstance(until, str) else tuple(until),
        )  # fmt: skip

    def _write(self, chosen: Sequence[int], wishes: Sequence[_Wish], out: list[str]) -> None:
        """Answer some wishes that differ in text and stop alone."""
        one = wishes[chosen[0]]
        found = self.plant.generate(
            [wishes[i].text for i in chosen], max_new_tokens=one.new, seed=self.seed + chosen[0],
            temperature=one.temperature, top_p=one.top_p, top_k=one.top_k,
        )  # fmt: skip
        for i, text in zip(chosen, found.texts, strict=True):
            out[i] = cut(text, list(wishes[i].until))

    def _tokens(self, text: str) -> list[int]:
        return list(self.plant.tokenizer(text, return_attention_mask=False)["input_ids"])

    def _without_first(self, tokens: list[int]) -> list[int]:
        """Tokens without the first one, where the tokenizer has put it there."""
        return tokens[1:] if tokens[:1] == [self.first] else tokens

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of the context and of the continuation in it; space at the end of a context goes to what follows."""
        if not context:
            return [self.first], self._without_first(self._tokens(continuation))
        bare = context.rstrip()
        if bare:
            context, continuation = bare, context[len(bare) :] + continuation
        head = self._tokens(context)
        return head, self._tokens(context + continuation)[len(head) :]

    def _scored(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        out: list[tuple[float, bool]] = [(0.0, False)] * len(pairs)
        for number, (_, tail) in enumerate(pairs):
            if not tail:
                raise HarnessError(f"request {number}: the continuation gives no token of its own.")
            if len(tail) > self.limit:
                raise HarnessError(
                    f"request {number}: a continuation of {len(tail)} tokens, but {self.plant.name} reads {self.limit}."
                )
        # The last token is not read, only predicted.
        rows = [(head[-(self.limit + 1 - len(tail)) :], tail) for head, tail in pairs]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            for i, found in zip(chosen, self._batch([rows[i] for i in chosen]), strict=True):
                out[i] = found
        return out

    def _batch(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        plant = self.plant
        batch = plant._pad([head + tail[:-1] for head, tail in rows])
        lengths = torch.tensor([len(head) for head, _ in rows], device=plant.device)
        with torch.inference_mode(), plant.passing(prompt_lengths=lengths, teacher_forced=True):
            logs = plant._logits(batch).float().log_softmax(-1)
        out = []
        for (_, tail), found in zip(rows, logs, strict=True):
            told = torch.tensor(tail, device=found.device)
            last = found[-len(tail) :]  # rows end at the right edge
            out.append((float(last.gather(1, told[:, None]).double().sum()), bool((last.argmax(1) == told).all())))
        check_logprobs(plant, torch.tensor([log for log, _ in out]))
        return out


def harness_model(plant: Plant, *, batch_size: int = 16, seed: int = 0) -> Any:
    """The plant as an `lm_eval.api.model.LM`.

    Raises:
        HarnessError: if lm-evaluation-harness is not installed.
    """
    base: Any = _harness("lm_eval.api.model").LM
    answers = Answers(plant, batch_size=batch_size, seed=seed)

    class SteeredModel(base):
        """Requests of the harness carry their arguments in `args`."""

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            """See `Answers.loglikelihood`."""
            return answers.loglikelihood([request.args for request in requests])

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            """See `Answers.loglikelihood_rolling`."""
            return answers.loglikelihood_rolling([request.args[0] for request in requests])

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            """See `Answers.generate_until`."""
            return answers.generate_until([request.args for request in requests])

    return SteeredModel()


def evaluate(
    plant: Plant,
    tasks: Sequence[str],
    *,
    limit: int | None = None,
    shots: int | None = None,
    include: str | Path | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> dict:
    """Results of benchmarks of the harness, by benchmark, on the plant as it is steered now.

    The harness seeds the global generators of Python, numpy and torch, by which some benchmarks choose their questions;
    they are afterwards as they were before.

    Args:
        plant: the plant.
        tasks: names that the harness knows, such as "mmlu", "arc_challenge" and "commonsense_qa".
        limit: questions of each; all by default.
        shots: examples before each question; the benchmark's own number by default.
        include: a folder with benchmarks of one's own, in the YAML of the harness.
        batch_size: rows at a time.
        seed: of sampled continuations.

    Raises:
        HarnessError: if lm-evaluation-harness is not installed, or asks for what a plant cannot do.
    """
    run = _harness("lm_eval").simple_evaluate
    manager = None if include is None else _harness("lm_eval.tasks").TaskManager(include_path=str(include))
    model = harness_model(plant, batch_size=batch_size, seed=seed)
    with _generators_kept():
        found = run(
            model=model, tasks=list(tasks), limit=limit, num_fewshot=shots, task_manager=manager, log_samples=False
        )
    return found["results"]


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Give the global generators back as they were."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)


def _harness(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("lm_eval"):
            raise
        raise HarnessError(
            "lm-evaluation-harness is not installed, so its benchmarks cannot be run. Fix: pip install "
            "'steerlib[harness]' (or 'lm-eval>=0.4.10,<0.5' into the environment of `make book`), or "
            "use steerlib.tasks.real.Knowledge for MMLU."
        ) from error
