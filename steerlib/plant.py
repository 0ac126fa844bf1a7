"""The plant: a frozen causal language model, seen as the system to be controlled.

Knows tokens, padding, forward passes and generation; knows nothing about how a control law computes its input,
or about tasks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steerlib.actuator import Actuator, Pass, Point, Scope, Site, Wiring
from steerlib.anatomy import find_anatomy
from steerlib.errors import PlantError
from steerlib.finite import check_logits, check_logprobs
from steerlib.generation import Generation, answer_texts, check_generation, cut, generate_batch
from steerlib.laws.base import Law
from steerlib.laws.stack import Stack
from steerlib.loading import PlantSource, load_pair, resolve_plant, weight_hash
from steerlib.sampling import GumbelSampler

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Tokens:
    """A padded batch.

    Attributes:
        input_ids: token ids.
        attention_mask: 1 for a token, 0 for padding.
    """

    input_ids: Int[Tensor, "batch time"]
    attention_mask: Int[Tensor, "batch time"]

    @property
    def lengths(self) -> Int[Tensor, " batch"]:
        """Real tokens in each row."""
        return self.attention_mask.sum(1)


class Plant:
    """A causal language model with its tokenizer and the wiring that lets laws act on it.

    Use `Plant.load` for a shipped plant, a folder or a hub id, and `Plant.from_model` for a model in memory.
    The model is put in evaluation mode and never trained.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: PlantSource) -> None:
        """Wire the model; see `load` and `from_model`."""
        self.model = _uncompiled(model).eval()
        self.tokenizer = tokenizer
        self.source = source
        self.anatomy = find_anatomy(self.model)
        self.notes: list[str] = []
        self.pad_id = self._pad_id()
        self.wiring = Wiring(self.model, self.anatomy)
        self._compiled: dict[str, Callable[..., Any]] = {}

    @classmethod
    def load(
        cls, name_or_path: str, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Plant:
        """Load a shipped plant, a local folder or a hub id.

        Args:
            name_or_path: see `steerlib.loading.resolve_plant`.
            device: where to put it; by default a GPU if there is one.
            dtype: parameter type; by default the one that config.json names (float32 for the shipped plants, whose
                files are half as large), or else the one the weights are stored in.

        Raises:
            PlantError: if it cannot be found, or is not a causal language model in safetensors with a tokenizer.
        """
        source = resolve_plant(name_or_path)
        chosen = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
        model, tokenizer = load_pair(source, device=chosen, dtype=dtype)
        return cls(model, tokenizer, source)

    @classmethod
    def from_model(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, name: str = "unnamed") -> Plant:
        """Wrap a model that is in memory already; its hooks and weights are otherwise left alone."""
        return cls(model, tokenizer, PlantSource(name, "", True, {}))

    def close(self) -> None:
        """Take the plant's hooks off the model."""
        self.wiring.remove()

    # What the plant is

    @property
    def name(self) -> str:
        """Name in records and headers."""
        return self.source.name

    @property
    def blocks(self) -> nn.ModuleList:
        """The residual blocks, in order of depth."""
        return self.anatomy.blocks

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.anatomy.depth

    @property
    def width(self) -> int:
        """Size of the residual stream."""
        return self.anatomy.width

    @property
    def heads(self) -> int:
        """Attention heads of a block."""
        return self.anatomy.heads

    def width_at(self, site: Site) -> int:
        """Size of the states at a site; SiteError if there is none."""
        return self.wiring.width(site)

    @property
    def device(self) -> torch.device:
        """Where the input embeddings live, which is where token ids must go."""
        return self.model.get_input_embeddings().weight.device  # type: ignore[union-attr]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters."""
        return self.model.dtype

    @cached_property
    def weight_hash(self) -> str:
        """SHA-256 of the weights, computed once; see `steerlib.loading.weight_hash`."""
        return weight_hash(self.model)

    def __repr__(self) -> str:
        """One line: name, family, sizes, place."""
        kind = type(self.model).__name__
        return f"Plant({self.name!r}, {kind}, depth={self.depth}, width={self.width}, {self.dtype}, {self.device})"

    def _pad_id(self) -> int:
        """The padding token, or the end-of-text token where there is none (masked, so it is never read)."""
        tokenizer = self.tokenizer
        if isinstance(tokenizer.pad_token_id, int):
            return tokenizer.pad_token_id
        fallback = tokenizer.eos_token_id if isinstance(tokenizer.eos_token_id, int) else 0
        self.notes.append(f"no padding token: padding with token {fallback}, masked")
        return fallback

    # Text to tokens

    def encode(self, texts: Sequence[str], *, side: Side = "left") -> Tokens:
        """Tokenize and pad.

        Args:
            texts: non-empty strings.
            side: padding side; generation needs "left".

        Raises:
            TypeError: if `texts` is one string, or holds something else than strings.
            PlantError: if there is no text, or one that gives no token.
        """
        return self._pad(self._ids(texts), side)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"texts: got {type(texts).__name__}, expected a list of strings. Fix: [text].")
        if len(texts) == 0:
            raise PlantError("texts: got an empty list, expected at least one string.")
        rows = self.tokenizer(list(texts), padding=False, return_attention_mask=False)["input_ids"]
        empty = [i for i, row in enumerate(rows) if not row]
        if empty:
            raise PlantError(f"texts: number {empty[0]} gives no token ({texts[empty[0]]!r}). Fix: leave it out.")
        longest, limit = max(map(len, rows)), self.context_length
        if limit is not None and longest > limit:
            raise PlantError(f"texts: got {longest} tokens, but {self.name} reads at most {limit}. Fix: shorten them.")
        return rows

    @property
    def context_length(self) -> int | None:
        """Longest text the model was made for, in tokens, or None where its configuration does not say."""
        return getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)

    def _pad(self, rows: list[list[int]], side: Side = "left") -> Tokens:
        longest = max(map(len, rows))
        fill = [[self.pad_id] * (longest - len(row)) for row in rows]
        ones = [[1] * len(row) for row in rows]
        zeros = [[0] * len(pad) for pad in fill]
        order = (fill, rows, zeros, ones) if side == "left" else (rows, fill, ones, zeros)
        first, second, mask_first, mask_second = order
        ids = torch.tensor([a + b for a, b in zip(first, second, strict=True)], device=self.device)
        mask = torch.tensor([a + b for a, b in zip(mask_first, mask_second, strict=True)], device=self.device)
        return Tokens(ids, mask)

    # Steering

    def under(
        self,
        law: Law | Stack | Callable[[Tensor], Tensor],
        *,
        layer: int | None = None,
        point: Point | None = None,
        scope: Scope | str | None = None,
    ) -> Actuator:
        """A `with` block in which a law acts on the plant.

        Args:
            law: a `Law`, a `Stack` of laws at several sites, or any function from states (..., width) to states.
            layer: where to act; by default where the law was fitted.
            point: see `Site`; by default where the law was fitted, else "resid_post".
            scope: which tokens; by default the law's own scope, else "generated".

        Raises:
            LawError: if the law was fitted at another site, or on another plant.
            SiteError: if the site does not exist.
        """
        if isinstance(law, (Law, Stack)):
            entries = law.entries(self, layer=layer, point=point)
        elif layer is None:
            raise PlantError(
                "layer: a bare function does not say where it acts. Fix: plant.under(function, layer=...)."
            )
        else:
            entries = [(Site(layer, point or "resid_post"), law, "generated")]
        for site, part, _ in entries:
            if isinstance(part, Law):
                part.to(next(self.blocks[site.layer].parameters()).device)
        return Actuator(
            self.wiring, [(site, part, Scope.of(scope if scope is not None else own)) for site, part, own in entries]
        )

    @contextmanager
    def passing(self, *, prompt_lengths: Tensor | None, teacher_forced: bool = False) -> Iterator[None]:
        """Tell the wiring what the passes inside see: where prompts end, and whether they replay an answer."""
        now: Pass = self.wiring.now
        before = (now.prompt_lengths, now.teacher_forced)
        now.prompt_lengths, now.teacher_forced = prompt_lengths, teacher_forced
        try:
            yield
        finally:
            now.prompt_lengths, now.teacher_forced = before

    # Running

    def forward(
        self, tokens: Tokens | Sequence[str], *, prompt_lengths: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch time vocabulary"]:
        """Logits of one pass over whole texts, without gradient.

        Args:
            tokens: a padded batch (either side), or texts.
            prompt_lengths: real tokens of each row that are prompt; scope "generated" then starts at the last of them.

        Raises:
            NotFiniteError: if the logits of a token are no numbers: a law is too strong for the precision.
        """
        batch = tokens if isinstance(tokens, Tokens) else self.encode(tokens)
        with torch.inference_mode(), self.passing(prompt_lengths=prompt_lengths):
            return check_logits(self, self._logits(batch), batch.attention_mask)

    def _logits(self, batch: Tokens) -> Tensor:
        # Positions are counted over real tokens, so that padding on either side changes nothing.
        positions = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
        arguments: dict[str, Any] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if self._takes_positions:
            arguments["position_ids"] = positions
        return self.model(**arguments, use_cache=None).logits

    @cached_property
    def _takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(self.model.forward).parameters

    def logprobs(
        self, prompts: Sequence[str], continuations: Sequence[str], *, batch_size: int = 64
    ) -> Float[Tensor, " pairs"]:
        """Log probability of each continuation after its prompt, summed over its tokens (nats, float64, on the CPU).

        The pass replays the generation, so a law acts on the tokens it would have acted on while generating:
        with scopes "last" and "generated", from the last prompt token on.

        Args:
            prompts: one for each continuation.
            continuations: non-empty; usually begin with a space.
            batch_size: rows at a time; rows are sorted by length first, so little is padding.

        Raises:
            PlantError: if the lists differ in length, or a prompt does not end at a token boundary.
            NotFiniteError: if the logits are no numbers: a law is too strong for the precision.
        """
        heads, rows = self._pairs(prompts, continuations)
        out = torch.empty(len(rows), dtype=torch.float64)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = self._pad([rows[i] for i in chosen])
            lengths = torch.tensor([len(heads[i]) for i in chosen], device=self.device)
            out[chosen] = check_logprobs(self, self._continuation_logprobs(batch, lengths).double().cpu())
        return out

    def _pairs(self, prompts: Sequence[str], continuations: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of each prompt, and of each prompt with its continuation; see `logprobs`."""
        if len(prompts) != len(continuations):
            raise PlantError(f"got {len(prompts)} prompts and {len(continuations)} continuations, expected as many.")
        known = dict(zip(dict.fromkeys(prompts), self._ids(list(dict.fromkeys(prompts))), strict=True))
        heads = [known[prompt] for prompt in prompts]
        rows = self._ids([p + c for p, c in zip(prompts, continuations, strict=True)])
        for i, (head, row) in enumerate(zip(heads, rows, strict=True)):
            if row[: len(head)] != head or len(row) == len(head):
                raise PlantError(
                    f"pair {i}: prompt {prompts[i][-20:]!r} and continuation {continuations[i][:20]!r} share a token. "
                    "Fix: begin the continuation with the space, not the prompt."
                )
        return heads, rows

    def _continuation_logprobs(self, batch: Tokens, prompt_lengths: Tensor) -> Float[Tensor, " batch"]:
        with torch.inference_mode(), self.passing(prompt_lengths=prompt_lengths, teacher_forced=True):
            logits = self._logits(batch)[:, :-1].float()
        chosen = logits.log_softmax(-1).gather(-1, batch.input_ids[:, 1:, None])[..., 0]
        ordinal = batch.attention_mask.cumsum(1)[:, 1:]
        answer = batch.attention_mask[:, 1:].bool() & (ordinal > prompt_lengths[:, None])
        return torch.where(answer, chosen, 0.0).sum(1)

    def generate(
        self,
        prompts: Sequence[str],
        *,
        max_new_tokens: int,
        seed: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        samples: int = 1,
        batch_size: int = 64,
        cache: Literal["dynamic", "static", "none"] = "dynamic",
        compile: str | None = None,
    ) -> Generation:
        """Sample an answer to each prompt.

        Args:
            prompts: texts.
            max_new_tokens: longest answer, in tokens.
            seed: the same seed gives a prompt the same noise in any batch, steered or not (`steerlib.sampling`).
            temperature: 0 for greedy.
            top_k: keep only the k most likely tokens.
            top_p: keep the smallest set of tokens whose probability reaches p.
            samples: answers for each prompt.
            batch_size: rows at a time.
            cache: kind of key-value cache.
            compile: a `torch.compile` backend such as "inductor", for the one-token passes of a static cache;
                None runs eagerly.

        Raises:
            PlantError: if an argument is out of its range.
            NotFiniteError: if a token was chosen from logits that are no numbers: a law is too strong for the
                precision. Asked once for each batch.
            BackendError: if the backend cannot work on this machine.
        """
        check_generation(max_new_tokens, temperature, top_k, top_p, samples, batch_size, cache, compile)
        rows = [row for row in self._ids(prompts) for _ in range(samples)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        answers: dict[int, tuple[int, ...]] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = self._pad([rows[i] for i in chosen])
            sampler = None
            if temperature > 0:
                index = torch.tensor(chosen, device=self.device)
                sampler = GumbelSampler(
                    seed=seed, rows=index, temperature=temperature, top_k=top_k, top_p=top_p,
                    prompt_columns=batch.input_ids.shape[1],
                )  # fmt: skip
            new = generate_batch(self, batch, max_new_tokens, sampler, cache, compile)
            answers.update(zip(chosen, cut(self, new), strict=True))
        tokens = tuple(answers[i] for i in range(len(rows)))
        texts = answer_texts(self, rows, tokens)
        return Generation(tuple(p for p in prompts for _ in range(samples)), texts, tokens, seed)


def _uncompiled(model: Any) -> PreTrainedModel:
    """The model itself, where `torch.compile(model)` has wrapped it."""
    return getattr(model, "_orig_mod", model)
