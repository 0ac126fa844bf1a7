"""A plant as a model of lm-evaluation-harness, so that utility can be measured on any of its benchmarks.

Knows what the harness asks of a model: log-likelihoods of continuations, rolling log-likelihoods of texts, and
continuations up to a stop. The harness is imported when it is asked for; a law attached to the plant acts in all three.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch

from steerlib.errors import MetricError
from steerlib.plant import Plant
from steerlib.tasks.real.base import cut

NEW_TOKENS = 256


class HarnessError(MetricError):
    """lm-evaluation-harness is not installed, or asks for what a plant cannot do."""


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
        """Log probability of each whole text (nats), in windows that do not overlap but for the token between them."""
        out = []
        for text in texts:
            tokens = self._tokens(text)
            step = self.limit - 1
            heads = [[self.first if start == 0 else tokens[start - 1]] for start in range(0, len(tokens), step)]
            rows = [(h, tokens[k * step : (k + 1) * step]) for k, h in enumerate(heads)]
            out.append(sum(found for found, _ in self._scored(rows)))
        return out

    def generate_until(self, asked: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        """Continuations up to a stop.

        Raises:
            HarnessError: if an argument of generation is not one that is known here.
        """
        out: list[str] = []
        for number, (context, options) in enumerate(asked):
            how = dict(options)
            until = how.pop("until", [])
            until = [until] if isinstance(until, str) else list(until)
            new = int(how.pop("max_gen_toks", NEW_TOKENS))
            sampled = bool(how.pop("do_sample", False))
            temperature = float(how.pop("temperature", 1.0) or 0.0) if sampled else 0.0
            top_p, top_k = how.pop("top_p", None), how.pop("top_k", None)
            how.pop("temperature", None)
            if how:
                raise HarnessError(f"generation: got {', '.join(sorted(how))}, which a plant does not know.")
            tokens = self._tokens(context)[-max(1, self.limit - new) :] if context else [self.first]
            text = str(self.plant.tokenizer.decode(tokens, skip_special_tokens=True))
            found = self.plant.generate(
                [text or str(self.plant.tokenizer.decode([self.first]))],
                max_new_tokens=min(new, self.limit - len(tokens)), seed=self.seed + number, temperature=temperature,
                top_p=top_p if sampled else None, top_k=top_k if sampled else None,
            )  # fmt: skip
            out.append(cut(found.texts[0], until))
        return out

    def _tokens(self, text: str) -> list[int]:
        return list(self.plant.tokenizer(text, return_attention_mask=False)["input_ids"])

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokens of the context and of the continuation in it; space at the end of a context goes to what follows."""
        if not context:
            tokens = self._tokens(continuation)
            # A tokenizer that adds the first token has put it there already.
            return [self.first], tokens[1:] if tokens[:1] == [self.first] else tokens
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
            if len(tail) >= self.limit:
                raise HarnessError(
                    f"request {number}: a continuation of {len(tail)} tokens, but {self.plant.name} reads {self.limit}."
                )
        rows = [(head[-(self.limit - len(tail)) :], tail) for head, tail in pairs]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1]))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            for i, found in zip(chosen, self._batch([rows[i] for i in chosen]), strict=True):
                out[i] = found
        return out

    def _batch(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        plant = self.plant
        batch = plant._pad([head + tail for head, tail in rows])
        lengths = torch.tensor([len(head) for head, _ in rows], device=plant.device)
        with torch.inference_mode(), plant.passing(prompt_lengths=lengths, teacher_forced=True):
            logs = plant._logits(batch)[:, :-1].float().log_softmax(-1)
        out = []
        for (_, tail), found in zip(rows, logs, strict=True):
            told = torch.tensor(tail, device=found.device)
            last = found[-len(tail) :]  # rows end at the right edge
            out.append((float(last.gather(1, told[:, None]).double().sum()), bool((last.argmax(1) == told).all())))
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


def evaluate(plant: Plant, tasks: Sequence[str], *, limit: int | None = None, shots: int | None = None) -> dict:
    """Results of benchmarks of the harness, by benchmark, on the plant as it is steered now.

    Args:
        plant: the plant.
        tasks: names that the harness knows, such as "mmlu", "arc_challenge" and "commonsense_qa".
        limit: questions of each; all by default.
        shots: examples before each question; the benchmark's own number by default.

    Raises:
        HarnessError: if lm-evaluation-harness is not installed.
    """
    found = _harness("lm_eval").simple_evaluate(
        model=harness_model(plant), tasks=list(tasks), limit=limit, num_fewshot=shots
    )
    return found["results"]


def _harness(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("lm_eval"):
            raise
        raise HarnessError(
            "lm-evaluation-harness is not installed, so its benchmarks cannot be run. Fix: pip install 'lm-eval', or "
            "use steerlib.tasks.real.Knowledge for MMLU."
        ) from error
