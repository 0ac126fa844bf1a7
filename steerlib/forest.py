"""Score many continuations of the same prompts in one pass: a tree of tokens for each prompt.

The answers that a grammar allows to one question begin alike. As separate rows, each repeats the prompt and the
shared beginning; as a tree, packed in one row with an attention mask that lets every token see its ancestors only,
no token is computed twice. The numbers are those of `Plant.logprobs`, which is the plain way and the oracle.

Knows tokens and masks; knows nothing about what an answer means, or about laws: a law acts on the tokens of a tree
as it would while they were generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlib.finite import check_logprobs
from steerlib.plant import Plant

TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 16384}  # of a packed pass; on a CPU, what stays in its cache is fastest
AGREEMENT = 1e-3  # nats; between the two ways, in float32

_reads_trees: WeakKeyDictionary[Plant, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Tree:
    """A prompt and its continuations as columns of one row: parents before children, the prompt first.

    A token that nothing follows is scored but never read, so it has no column.

    Attributes:
        tokens: token id of each column.
        sees: which columns each column attends to: its ancestors and itself.
        prompt: number of prompt tokens.
        steps: column before each scored token, and its token id.
        paths: which scored tokens each continuation consists of.
    """

    tokens: Int[Tensor, " columns"]
    sees: Bool[Tensor, "columns columns"]
    prompt: int
    steps: Int[Tensor, "steps 2"]
    paths: Bool[Tensor, "continuations steps"]

    @classmethod
    def of(cls, prompt: Sequence[int], rows: Sequence[Sequence[int]]) -> Tree:
        """The tree of token sequences that all begin with the prompt and go on."""
        tokens, parents = list(prompt), [i - 1 for i in range(len(prompt))]
        columns: dict[tuple[int, int], int] = {}  # (column before, token) -> its own column
        steps: dict[tuple[int, int], int] = {}  # (column before, token) -> number of the step
        paths: list[list[int]] = []
        for row in rows:
            here, path = len(prompt) - 1, []
            for i, token in enumerate(row[len(prompt) :], start=len(prompt)):
                path.append(steps.setdefault((here, token), len(steps)))
                if i + 1 < len(row) and (here, token) not in columns:
                    columns[here, token] = len(tokens)
                    tokens.append(token)
                    parents.append(here)
                here = columns.get((here, token), -1)
            paths.append(path)
        sees = torch.eye(len(tokens), dtype=torch.bool)
        for i, parent in enumerate(parents):
            if i:
                sees[i] |= sees[parent]
        on = torch.zeros(len(rows), len(steps), dtype=torch.bool)
        for i, path in enumerate(paths):
            on[i, path] = True
        return cls(torch.tensor(tokens), sees, len(prompt), torch.tensor(list(steps)), on)

    def __len__(self) -> int:
        """Number of columns."""
        return len(self.tokens)


@dataclass(frozen=True)
class Forest:
    """Prompts with their continuations, tokenized once so that they can be scored under many laws.

    Attributes:
        trees: one for each distinct prompt.
        owners: for each tree, which of the pairs its continuations are.
        prompts: the prompts, one for each pair.
        continuations: the continuations.
    """

    trees: tuple[Tree, ...]
    owners: tuple[Int[Tensor, " continuations"], ...]
    prompts: tuple[str, ...]
    continuations: tuple[str, ...]

    @classmethod
    def of(cls, plant: Plant, prompts: Sequence[str], continuations: Sequence[str]) -> Forest:
        """Tokenize pairs of prompt and continuation.

        Raises:
            PlantError: as `Plant.logprobs`.
        """
        heads, rows = plant._pairs(prompts, continuations)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, head in enumerate(heads):
            groups.setdefault(tuple(head), []).append(i)
        trees = tuple(Tree.of(head, [rows[i] for i in members]) for head, members in groups.items())
        owners = tuple(torch.tensor(members) for members in groups.values())
        return cls(trees, owners, tuple(prompts), tuple(continuations))

    def logprobs(self, plant: Plant) -> Float[Tensor, " pairs"]:
        """Log probability of each continuation after its prompt; see `Plant.logprobs`.

        Falls back to the plain way where the model does not follow a mask of its own (positions taken from the order
        of the columns, sliding windows, half precision).

        Raises:
            NotFiniteError: as `Plant.logprobs`.
        """
        if not self._fits(plant):
            return plant.logprobs(self.prompts, self.continuations, batch_size=256)
        out = torch.empty(len(self.prompts), dtype=torch.float64)
        order = sorted(range(len(self.trees)), key=lambda i: len(self.trees[i]))
        budget = TOKENS_AT_ONCE.get(plant.device.type, TOKENS_AT_ONCE["cpu"])
        while order:
            count = max(1, min(len(order), budget // len(self.trees[order[-1]])))
            chosen, order = order[-count:], order[:-count]
            for i, found in zip(chosen, _score(plant, [self.trees[i] for i in chosen]), strict=True):
                out[self.owners[i]] = check_logprobs(plant, found)
        return out

    def _fits(self, plant: Plant) -> bool:
        window = getattr(plant.model.config.get_text_config(decoder=True), "sliding_window", None)
        deepest = max(int(tree.sees.sum(1).max()) for tree in self.trees)  # scored tokens are not read
        return (window is None or deepest <= window) and reads_trees(plant)


def reads_trees(plant: Plant) -> bool:
    """Whether a plant gives the same numbers for a tree as for separate rows; tried once on a small one.

    What is found while a law is attached is not kept: it is said of the law as much as of the plant.
    """
    if plant.dtype not in (torch.float32, torch.float64) or not plant._takes_positions:
        return False
    if plant in _reads_trees:
        return _reads_trees[plant]
    found = _agrees_on_a_small_tree(plant)
    if not plant.wiring.active():
        _reads_trees[plant] = found
    return found


def _agrees_on_a_small_tree(plant: Plant) -> bool:
    size = int(plant.model.get_input_embeddings().weight.shape[0])  # type: ignore[union-attr, arg-type]
    words = [(7 * i + 3) % size for i in range(9)]
    rows = [words[:3] + words[3:6], words[:3] + words[4:9], words[:3] + [words[3], words[8]]]
    try:
        tree = _score(plant, [Tree.of(words[:3], rows)])[0]
    except (RuntimeError, ValueError, TypeError, IndexError):  # a mask of four dimensions is not for this model
        return False
    lengths = torch.tensor([3], device=plant.device)
    plain = torch.cat([plant._continuation_logprobs(plant._pad([row]), lengths) for row in rows])
    return bool((tree - plain.cpu()).abs().max() < AGREEMENT)


def _score(plant: Plant, trees: Sequence[Tree]) -> list[Float[Tensor, " continuations"]]:
    """Log probability of each continuation, for each tree of a batch."""
    shape = (len(trees), max(map(len, trees)))
    ids, depth = torch.full(shape, plant.pad_id), torch.zeros(shape, dtype=torch.long)
    sees = torch.zeros(*shape, shape[1], dtype=torch.bool)
    for i, tree in enumerate(trees):
        n = len(tree)
        ids[i, :n], depth[i, :n], sees[i, :n, :n] = tree.tokens, tree.sees.sum(1) - 1, tree.sees
        sees[i, n:, 0] = True  # padding must look somewhere; not at itself, which would make it a token
    prompts = torch.tensor([tree.prompt for tree in trees], device=plant.device)
    blocked = torch.zeros(sees.shape, dtype=plant.dtype).masked_fill(~sees, torch.finfo(plant.dtype).min)
    with torch.inference_mode(), plant.passing(prompt_lengths=prompts, teacher_forced=True):
        logits = plant.model(
            input_ids=ids.to(plant.device), attention_mask=blocked[:, None].to(plant.device),
            position_ids=depth.to(plant.device), use_cache=None,
        ).logits.float()  # fmt: skip
        totals = []
        for tree, found in zip(trees, logits - logits.logsumexp(-1, keepdim=True), strict=True):
            before, token = tree.steps.to(plant.device).T
            # Chosen, not multiplied by zero: a token that is ruled out must not spoil answers without it.
            totals.append(torch.where(tree.paths, found[before, token].double().cpu(), 0.0).sum(1))
    return totals
