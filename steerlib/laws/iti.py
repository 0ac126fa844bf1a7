"""Inference-time intervention (Li et al. 2023), as its authors do it: at attention heads.

A probe on the output of every head says how well the head tells the two classes apart on examples it was not fitted
on. The K best heads are pushed, each along its own direction and in units of its own spread:

    head output + alpha * sigma * theta,    |theta| = 1,    sigma = standard deviation of theta . head output,

which is the bias alpha * W sigma theta after the projection W back into the residual stream (their eq. 2). Comparisons
that call a probe at one site of the residual stream by the same name are in `steerlib.laws.probe`.

Where text and released code (honest_llama) agree, so does this: probes are logistic regressions with the defaults of
scikit-learn on raw head outputs, fitted on four fifths of the examples and ranked on the last; pairs are not torn
apart; the mean shift is that of all examples; alpha multiplies the push at every generated token (scope "last" or
"generated"). Where they do not, or the code goes on:

- the code counts examples, here accuracy is the mean over both classes, which differs for classes of unequal size only;
- of heads of equal accuracy the earlier layer, then the lower number comes first here; the code leaves that open;
- sigma here is that of the examples that the law is fitted on; the code takes that of all its texts, the ones that it
  is tested on included (no labels, but a look at them), and its newer version divides by n - 1;
- the code's control pushes random heads along random directions (`ranking="random", direction="random"`), so that it
  does not tell what knowing heads are worth from what directions are; each can be had by itself here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from steerlib.actuator import Site
from steerlib.control.logistic import LogisticFit, fit_logistic
from steerlib.errors import LawError
from steerlib.laws.additive import Additive
from steerlib.laws.base import Contrast, Source, norm_or_raise, one_of
from steerlib.laws.stack import Stack

Direction = Literal["mass-mean", "probe", "random"]
Ranking = Literal["accuracy", "random"]
Looked = Literal["all", "site"]


class ITI(Stack):
    """Push the attention heads that know best, each along its own direction.

    One constant push for each layer that has a chosen head, under one strength, alpha.

    Args:
        num_heads: K, how many heads are pushed; 48 for the authors' 7 B model with 1,024 heads.
        direction: "mass-mean", the difference of the class means (best in the paper); "probe", the weights of the
            head's probe; "random", a control: the same heads, another direction.
        ranking: which heads come first: by "accuracy" of their probes, or at "random", a control.
        layers: blocks whose heads are looked at: numbers, "all", as in the paper, or "site" for the block at which the
            law is asked to act. With "all" there is no such block: `fit_from` refuses a site before the last.
        held_out: share of the examples on which heads are ranked.
        seed: of the split, and of random heads and directions.
        strength: alpha; 15 in the paper.

    Attributes:
        accuracies: share of held-out examples that a head's probe gets right, the mean over both classes.
        selected: which heads are pushed.

    Raises:
        LawError: if an option has no meaning.
    """

    accuracies: Float[Tensor, "layers heads"]
    selected: Bool[Tensor, "layers heads"]

    def __init__(
        self,
        *,
        num_heads: int = 48,
        direction: Direction = "mass-mean",
        ranking: Ranking = "accuracy",
        layers: Sequence[int] | Looked = "all",
        held_out: float = 0.2,
        seed: int = 0,
        strength: float = 1.0,
    ) -> None:
        """Choose how many heads, and along what."""
        super().__init__(strength=strength)
        if num_heads < 1 or not 0 < held_out < 1:
            raise LawError(
                f"got num_heads={num_heads}, held_out={held_out}; expected at least one head and a share in (0, 1)."
            )
        self.num_heads, self.held_out, self.seed = num_heads, held_out, seed
        self.direction: Direction = one_of("direction", direction, Direction)
        self.ranking: Ranking = one_of("ranking", ranking, Ranking)
        self.layers: tuple[int, ...] | Looked = (
            one_of("layers", layers, Looked) if isinstance(layers, str) else tuple(layers)
        )
        self.register_buffer("accuracies", torch.empty(0, 0))
        self.register_buffer("selected", torch.empty(0, 0, dtype=torch.bool))

    def options(self) -> dict[str, Any]:
        """All but the strength."""
        return {
            "num_heads": self.num_heads,
            "direction": self.direction,
            "ranking": self.ranking,
            "layers": self.layers if isinstance(self.layers, str) else list(self.layers),
            "held_out": self.held_out,
            "seed": self.seed,
        }

    def fit_from(self, source: Source) -> Self:
        """Measure all heads in one pass and fit; see `fit_heads`.

        Raises:
            LawError: if the law is asked to act at one block, and is to look at all of them.
        """
        depth, asked = source.plant.depth, source.site.resolve(source.plant.depth).layer
        if self.layers == "all" and asked != depth - 1:
            raise LawError(
                f"ITI: got layer {asked}, but it chooses among the heads of all {depth} blocks (layers='all'). Fix: "
                f"layer -1, or layers='site' to choose among those of block {asked}."
            )
        layers = {"all": range(depth), "site": [asked]}[self.layers] if isinstance(self.layers, str) else self.layers
        sites = [Site(layer, "heads").resolve(depth) for layer in layers]
        return self.fit_heads(source.contrasts(sites), heads=source.plant.heads)

    def fit(self, contrasts: Sequence[Contrast]) -> Self:
        """Refused: the states do not say how many heads they come from; see `fit_heads`."""
        raise LawError(
            f"ITI: got {len(contrasts)} contrasts without the number of heads. Fix: fit_heads(contrasts, heads=...)."
        )

    def fit_heads(self, contrasts: Sequence[Contrast], *, heads: int) -> Self:
        """Rank all heads, choose the best, and set their pushes; return the law.

        Args:
            contrasts: states at the point "heads", one contrast for each layer, all of the same texts.
            heads: heads of each layer.

        Raises:
            LawError: if the states cannot be split into heads, there are fewer heads than are to be chosen, too few
                examples to hold any out, or a chosen head has no direction because its output never changes.
        """
        split = self._split(contrasts, heads)
        fits = [[self._probe(split, *pair) for pair in _by_head(c, heads)] for c in contrasts]
        self.accuracies = torch.tensor([[accuracy for _, accuracy in row] for row in fits])
        generator = torch.Generator().manual_seed(self.seed)
        if self.ranking == "random":
            order = torch.randperm(self.accuracies.numel(), generator=generator)
        else:
            order = torch.sort(self.accuracies.flatten(), descending=True, stable=True).indices
        self.selected = torch.zeros_like(self.accuracies, dtype=torch.bool)
        self.selected.view(-1)[order[: self.num_heads]] = True
        parts = []
        for contrast, row, chosen in zip(contrasts, fits, self.selected.tolist(), strict=True):
            pushes = torch.zeros(heads, contrast.width // heads, dtype=torch.float64)
            for head, (positive, negative) in enumerate(_by_head(contrast, heads)):
                draw = torch.randn(contrast.width // heads, generator=generator, dtype=torch.float64)
                if chosen[head]:
                    pushes[head] = self._push(positive, negative, row[head][0], draw, f"head {head}").cpu()
            if any(chosen):
                law = Additive(pushes.flatten().float().to(contrast.positive.device))
                law.header = contrast.header
                parts.append(law)
        self.parts = nn.ModuleList(parts)
        self.at(self._strength)
        return self

    def _split(self, contrasts: Sequence[Contrast], heads: int) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """For each class an order of its rows, of which the last are held out; pairs have one order."""
        found = sum(heads for _ in contrasts)
        if found < self.num_heads:
            raise LawError(f"num_heads: got {self.num_heads}, but there are {found} heads. Fix: fewer, or more layers.")
        for contrast in contrasts:
            if contrast.width % heads:
                raise LawError(f"got states of width {contrast.width}, which {heads} heads cannot share.")
        first = contrasts[0]
        few = min(len(first.positive), len(first.negative))
        if few < 2:
            raise LawError(f"ITI: got {few} examples of a class; expected at least 2, one of them to be held out.")
        generator = torch.Generator().manual_seed(self.seed)
        one = torch.randperm(len(first.positive), generator=generator)
        return (one, one) if first.paired else (one, torch.randperm(len(first.negative), generator=generator))

    def _probe(
        self, split: tuple[Tensor, Tensor], positive: Float[Tensor, "n size"], negative: Float[Tensor, "m size"]
    ) -> tuple[LogisticFit, float]:
        """A head's probe, fitted on the first part of each class, and its accuracy on the rest."""
        seen, unseen = [], []
        for rows, order in zip((positive, negative), split, strict=True):
            count = max(1, min(len(rows) - 1, round(self.held_out * len(rows))))
            order = order.to(rows.device)
            seen.append(rows[order[:-count]])
            unseen.append(rows[order[-count:]])
        probe = fit_logistic(*seen)
        right = ((probe.logit(unseen[0]) > 0).double().mean(), (probe.logit(unseen[1]) <= 0).double().mean())
        return probe, float(sum(right)) / 2

    def _push(
        self, positive: Tensor, negative: Tensor, probe: LogisticFit, draw: Tensor, name: str
    ) -> Float[Tensor, " size"]:
        """Sigma * theta of one head."""
        both = torch.cat([positive, negative]).double()
        along = {
            "mass-mean": positive.double().mean(0) - negative.double().mean(0),
            "probe": probe.weight.double(),
            "random": draw.to(both.device),
        }[self.direction]
        what = [
            "its output never changes",
            "both classes hold the same states",
            f"num_heads={self.num_heads} is more than there are heads that know",
        ]
        beside = float(both.abs().amax()) if self.direction == "mass-mean" else 0.0
        theta = along / norm_or_raise(along, f"{name}: {self.direction}", what, beside=beside)
        sigma = (both @ theta).std(correction=0)
        return theta * norm_or_raise(sigma, f"{name}: spread along {self.direction}", what)


def _by_head(contrast: Contrast, heads: int) -> list[tuple[Float[Tensor, "n size"], Float[Tensor, "m size"]]]:
    """States of both classes, for each head."""
    both = [states.reshape(len(states), heads, -1).unbind(1) for states in contrast]
    return list(zip(*both, strict=True))
