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

from steerlib.plant import Plant

TOKENS_AT_ONCE = {"cpu": 1024, "cuda": 16384}  # of a packed pass; on a CPU, what stays in its cache is fastest
AGREEMENT = 1e-3  # nats; between the two ways, in float32

_reads_trees: WeakKeyDictionary[Plant, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Tree:
    """A prompt and its continuations; node i stands in column i, parents before children, the prompt first.

    Attributes:
        tokens: token id of each node.
        parents: column of the token before it (0 for the first).
        sees: which nodes each node attends to: its ancestors and itself.
        prompt: number of prompt tokens.
        leaves: column of the last token of each continuation.
    """

    tokens: Int[Tensor, " nodes"]
    parents: Int[Tensor, " nodes"]
    sees: Bool[Tensor, "nodes nodes"]
    prompt: int
    leaves: Int[Tensor, " continuations"]

    @classmethod
    def of(cls, prompt: Sequence[int], rows: Sequence[Sequence[int]]) -> Tree:
        """The tree of token sequences that all begin with the prompt."""
        tokens, parents = list(prompt), [max(i - 1, 0) for i in range(len(prompt))]
        place: dict[tuple[int, int], int] = {}  # (parent, token) -> column
        leaves = []
        for row in rows:
            here = len(prompt) - 1
            for token in row[len(prompt) :]:
                if (here, token) not in place:
                    place[here, token] = len(tokens)
                    tokens.append(token)
                    parents.append(here)
                here = place[here, token]
            leaves.append(here)
        sees = torch.eye(len(tokens), dtype=torch.bool)
        for i, parent in enumerate(parents):
            if i:
                sees[i] |= sees[parent]
        return cls(torch.tensor(tokens), torch.tensor(parents), sees, len(prompt), torch.tensor(leaves))

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.tokens)


@dataclass(frozen=True)
class Forest:
    """Prompts with their continuations, tokenized once so that they can be scored under many laws.

    Attributes:
        trees: one for each distinct prompt.
        owners: for each tree, which of the pairs its leaves are.
        prompts: the prompts, one for each pair.
        continuations: the continuations.
    """

    trees: tuple[Tree, ...]
    owners: tuple[Int[Tensor, " leaves"], ...]
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
                out[self.owners[i]] = found
        return out

    def _fits(self, plant: Plant) -> bool:
        window = getattr(plant.model.config.get_text_config(decoder=True), "sliding_window", None)
        deepest = max(int(tree.sees.sum(1).max()) for tree in self.trees)
        return (window is None or deepest <= window) and reads_trees(plant)


def reads_trees(plant: Plant) -> bool:
    """Whether a plant gives the same numbers for a tree as for separate rows; tried once on a small one."""
    if plant.dtype not in (torch.float32, torch.float64) or not plant._takes_positions:
        return False
    if plant not in _reads_trees:
        size = int(plant.model.get_input_embeddings().weight.shape[0])  # type: ignore[union-attr, arg-type]
        words = [(7 * i + 3) % size for i in range(9)]
        rows = [words[:3] + words[3:6], words[:3] + words[4:9], words[:3] + [words[3], words[8]]]
        try:
            tree = _score(plant, [Tree.of(words[:3], rows)])[0]
        except (RuntimeError, ValueError, TypeError, IndexError):  # a mask of four dimensions is not for this model
            _reads_trees[plant] = False
            return False
        lengths = torch.tensor([3], device=plant.device)
        plain = torch.cat([plant._continuation_logprobs(plant._pad([row]), lengths) for row in rows])
        _reads_trees[plant] = bool((tree - plain.cpu()).abs().max() < AGREEMENT)
    return _reads_trees[plant]


def _score(plant: Plant, trees: Sequence[Tree]) -> list[Float[Tensor, " leaves"]]:
    """Log probability of each leaf's path after the prompt, for each tree of a batch."""
    shape = (len(trees), max(map(len, trees)))
    ids = torch.full(shape, plant.pad_id)
    parents, depth = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    sees = torch.zeros(*shape, shape[1], dtype=torch.bool)
    for i, tree in enumerate(trees):
        n = len(tree)
        ids[i, :n], parents[i, :n], depth[i, :n] = tree.tokens, tree.parents, tree.sees.sum(1) - 1
        sees[i, :n, :n] = tree.sees
        sees[i, n:, 0] = True  # padding must look somewhere; not at itself, which would make it a token
    prompts = torch.tensor([tree.prompt for tree in trees], device=plant.device)
    blocked = torch.zeros(sees.shape, dtype=plant.dtype).masked_fill(~sees, torch.finfo(plant.dtype).min)
    with torch.inference_mode(), plant.passing(prompt_lengths=prompts, teacher_forced=True):
        logits = plant.model(
            input_ids=ids.to(plant.device), attention_mask=blocked[:, None].to(plant.device),
            position_ids=depth.to(plant.device), use_cache=None,
        ).logits.float()  # fmt: skip
        row = torch.arange(len(trees), device=plant.device)[:, None]
        before = parents.to(plant.device)
        chosen = logits[row, before, ids.to(plant.device)] - logits.logsumexp(-1)[row, before]
    steps = chosen.double().cpu()
    totals = []
    for i, tree in enumerate(trees):
        path = tree.sees[tree.leaves].double()
        path[:, : tree.prompt] = 0.0
        totals.append(path @ steps[i, : len(tree)])
    return totals
