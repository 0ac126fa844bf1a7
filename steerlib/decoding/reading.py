"""Scorers that are models: of texts tokenized anew, of the plant's own tokens, or of its states.

| scorer        | reads                       | for each candidate                         | tokenizers      |
|---------------|-----------------------------|--------------------------------------------|-----------------|
| `TextScorer`  | prompt and answer as texts  | the whole text, by any function            | any             |
| `ModelScorer` | the same, tokenized anew    | the whole text, by a classification model  | any             |
| `TokenScorer` | the plant's token ids       | one token, on the model's own cache        | must be one     |
| `StateScorer` | a state of the plant itself | one more position of the plant, cached     | the plant's own |

ARGS (Khanov et al. 2024) is `TokenScorer` with a reward model that was trained on whole answers; a prefix scorer
(Mudgal et al. 2023) is `TokenScorer` or `StateScorer` with one that was trained on beginnings.

Where tokenizers differ, candidates are decoded and tokenized anew. A beginning may end inside a word, or inside a
character that only the next token completes: the reward model then reads pieces, or a replacement character, which it
never saw while training. Nothing hides this; it is one of the costs of the method.

Knows models and what they read; knows nothing about how candidates are proposed or chosen.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steerlib.actuator import Site
from steerlib.decoding.base import Cost, DecodingError
from steerlib.decoding.branches import Branches
from steerlib.decoding.scoring import Job, Scorer, Session, TextScorer, checked, finite, kept
from steerlib.trajectories import READ_OUT


class ModelScorer(TextScorer):
    """A classification model with one output as the reward of texts, with its own tokenizer; see the module's text.

    Args:
        model: a Hugging Face model for sequence classification, with one label.
        tokenizer: its own.
        reads: prompt and answer "joined" to one text, or as a "pair".
        batch_size: texts at a time.

    Raises:
        DecodingError: if the model has several outputs, or cannot pad.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        reads: Literal["joined", "pair"] = "joined",
        batch_size: int = 64,
    ) -> None:
        if reads not in ("joined", "pair"):
            raise DecodingError(f"reads: got {reads!r}, expected 'joined' or 'pair'.")
        _one_output(model)
        if tokenizer.pad_token_id is None and batch_size > 1:
            raise DecodingError(
                f"tokenizer: has no padding token, so texts of unlike length cannot be read {batch_size} at a time. "
                "Fix: give it one that the model knows (model.config.pad_token_id), or batch_size=1."
            )
        self.model, self.tokenizer = model.eval(), tokenizer
        self._takes = frozenset(inspect.signature(model.forward).parameters)
        self.reads, self.batch_size = reads, batch_size
        super().__init__(self._unmetered)

    def _unmetered(self, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        return self.rewards(prompts, answers, Cost())

    def rewards(self, prompts: Sequence[str], answers: Sequence[str], cost: Cost) -> Float[Tensor, " answers"]:
        """The model's output for each answer, checked and counted."""
        pair = self.reads == "pair"
        first = list(prompts) if pair else [p + a for p, a in zip(prompts, answers, strict=True)]
        rows = self.tokenizer(first, list(answers) if pair else None)
        _fits(self.model, max(map(len, rows["input_ids"])))  # type: ignore[arg-type]
        order = sorted(range(len(first)), key=lambda i: len(rows["input_ids"][i]))  # type: ignore[arg-type, index]
        found = torch.empty(len(first))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            some = {name: [column[i] for i in chosen] for name, column in rows.items()}
            batch = self.tokenizer.pad(some, padding=len(chosen) > 1, return_tensors="pt").to(self.model.device)
            # Some tokenizers tell the first text of a pair from the second, which not every model asks for.
            given = {name: tensor for name, tensor in batch.items() if name in self._takes}
            with torch.inference_mode():
                found[chosen] = self.model(**given).logits[:, 0].float().cpu()
            cost.reward_positions += given["input_ids"].numel()
        cost.reward_calls += 1
        cost.rewards += len(answers)
        return checked(found, prompts, answers)


class TokenScorer(Scorer):
    """A causal model with one output that reads the plant's own token ids, each once (the form of ARGS).

    Args:
        model: a decoder for sequence classification, with one label: its base model keeps a cache, its `score` head
            turns the state of a token into a number. Trained on whole answers (ARGS) or on beginnings
            (`steerlib.decoding.prefix`).
        tokenizer: the model's own, compared with the plant's before anything is read.

    Raises:
        DecodingError: if the model has several outputs, or no causal base with a `score` head; when it goes to work,
            if the tokenizers differ.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        _one_output(model)
        head = getattr(model, "score", None)
        if not isinstance(head, nn.Module):
            raise DecodingError(
                f"{type(model).__name__}: has no `score` head behind a causal base, so it cannot read token by token. "
                "Fix: ModelScorer, which reads whole texts."
            )
        self.model, self.head, self.tokenizer = model.eval(), head, tokenizer

    def begin(self, job: Job) -> Session:
        """Read the prompts."""
        one_tokenizer(job.plant.tokenizer, self.tokenizer)
        _fits(self.model, job.batch.input_ids.shape[1] + job.room)
        return _TokenSession(self, job)


def one_tokenizer(plant: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> None:
    """Refuse two tokenizers by which a token id means two things.

    Raises:
        DecodingError: names a token that differs.
    """
    ours, theirs = plant.get_vocab(), other.get_vocab()
    if ours == theirs:
        return
    token = next(token for token in {**ours, **theirs} if ours.get(token) != theirs.get(token))
    raise DecodingError(
        f"tokenizers: the plant's has {len(ours)} tokens, the reward model's {len(theirs)}, and {token!r} is "
        f"{ours.get(token, 'none')} in one and {theirs.get(token, 'none')} in the other, so the plant's token ids mean "
        "nothing to the reward model. Fix: ModelScorer, which reads texts; or a scorer trained on this plant's tokens "
        "(steerlib.decoding.prefix)."
    )


class _TokenSession(Session):
    def __init__(self, scorer: TokenScorer, job: Job) -> None:
        self.job = job
        self.device = scorer.model.device
        head = scorer.head

        def read_out(out: Any) -> Tensor:
            return head(out.last_hidden_state[:, -1])

        self.walk = Branches(
            scorer.model.base_model, read_out,  # type: ignore[arg-type]
            job.batch.input_ids.to(self.device), job.batch.attention_mask.to(self.device),
            branches=job.branches, room=job.room, cache=job.cache,
        )  # fmt: skip
        job.cost.reward_positions += self.walk.positions
        self.value = torch.zeros(len(job.heads), job.branches, device=job.plant.device)

    def read(self, tokens: Tensor, live: Tensor, states: Tensor | None) -> None:  # noqa: ARG002 - reads tokens
        found = self.walk.step(tokens.to(self.device))[..., 0].float().to(live.device)
        self.job.cost.reward_positions += tokens.numel()
        self.job.cost.reward_calls += 1
        self.value = torch.where(live, found, self.value)

    def scores(self, live: Tensor) -> Tensor:
        self.job.cost.rewards += self.value.numel()
        return finite(self.value, live)

    def keep(self, choice: Tensor) -> None:
        self.walk.keep(choice.to(self.device))
        self.value = kept(self.value, choice)


class StateScorer(Scorer):
    """A value of the plant's state after each candidate, which costs one more position of the plant for each.

    Args:
        value: from states (..., width) to numbers (...), such as the network of `prefix.state_scorer`.
        site: where states are read, as laws that are attached before leave them; by default what the unembedding
            reads.
    """

    def __init__(self, value: Callable[[Tensor], Tensor], *, site: Site = READ_OUT) -> None:
        if not callable(value):
            raise DecodingError(f"value: got {type(value).__name__}, expected a function of states.")
        self.value = value.eval() if isinstance(value, nn.Module) else value
        self.site = site

    def begin(self, job: Job) -> Session:
        """Bring the value to where the states are."""
        if isinstance(self.value, nn.Module):
            self.value.to(job.plant.device)
        return _StateSession(self.value, job)


class _StateSession(Session):
    def __init__(self, value: Callable[[Tensor], Tensor], job: Job) -> None:
        self.value, self.job = value, job
        self.states: Tensor | None = None

    def read(self, tokens: Tensor, live: Tensor, states: Tensor | None) -> None:  # noqa: ARG002 - reads states
        assert states is not None
        self.states = states if self.states is None else torch.where(live[..., None], states, self.states)

    def scores(self, live: Tensor) -> Tensor:
        assert self.states is not None
        self.job.cost.reward_calls += 1
        self.job.cost.rewards += live.numel() * self.job.branches
        found = self.value(self.states)
        if found.shape != self.states.shape[:-1]:
            raise DecodingError(
                f"value: got shape {tuple(found.shape)} for states {tuple(self.states.shape)}, expected one number "
                "for each state."
            )
        return finite(found.float(), live)

    def keep(self, choice: Tensor) -> None:
        assert self.states is not None
        self.states = kept(self.states, choice)


def _fits(model: PreTrainedModel, tokens: int) -> None:
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and tokens > most:
        raise DecodingError(
            f"{type(model).__name__}: got up to {tokens} tokens of prompt and answer, but it reads at most {most}. "
            "Fix: shorter prompts or answers, or another reward model."
        )


def _one_output(model: PreTrainedModel) -> None:
    if getattr(model.config, "num_labels", None) != 1:
        raise DecodingError(
            f"{type(model).__name__}: has {getattr(model.config, 'num_labels', 'no')} outputs, expected one reward. "
            "Fix: a model for sequence classification with num_labels=1."
        )
