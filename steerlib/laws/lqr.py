"""A-LQR: hold features on setpoints over depth, with the gains of a linear-quadratic regulator (Skifstad et al. 2026).

Blocks are taken as z_{k+1} = A_k z_k + u_k with A_k the Jacobian of block k. The regulator that trades the weighted
squares of deviations (q, at the end q_f) against those of inputs (r) is u_k = -K_k dz_k (`steerlib.control.riccati`).
The deviation that is put in is the one from the nearest state whose reading is on the setpoint, dz_k = -alpha_k v_k:

    u_k = alpha_k w_k,    w_k = K_k v_k,    alpha_k = beta_k - v_k . z_k

(`steerlib.laws.setpoint`): rank one, two vectors for each block. With scope "last" or "generated" this is A-LQR, with
scope "all" A-LQR+. Cross-position Jacobians, through which a push on one token reaches the others, are ignored.

What the regulator is optimal for is bringing dz to zero in the linear model; the setpoint moves from block to block,
and no term for that is solved, in the paper, its code or here. Where they differ, each has its name here:

- `jacobian`: the text takes it at the mean state of the positive class ("mean"); the code averages the Jacobians at the
  states of single prompts ("per-prompt"). `prompts` texts, each cut to `context` tokens; the code keeps the "head".
- Key-value cache: earlier code generated without, so that only the current last token is steered and all before it are
  computed anew, unsteered: scope "last" and `plant.generate(cache="none")`. Later code, and here by default, keeps the
  keys and values of steered tokens; without a cache this is scope "generated". The law is the same.
- Several concepts: the code adds the laws of single concepts under one gain, that of the first ("sum"), which misses
  setpoints where directions are not orthogonal; "joint" takes the shortest move that meets all, V (V^T V)^-1 alpha.
- The code multiplies by K at every token (`form="full"`); here by two vectors, which is the same.

Ablations by name: `gain="proportional"` (w_k = v_k, nothing is solved); `model` "identity" (A_k = I), "random" (each
A_k with its own singular values and random singular vectors), "shuffled" (the Jacobians of the blocks in another
order).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor

from steerlib.control.quadratic import checked_weight
from steerlib.control.riccati import Jacobians, Precision, Step, riccati
from steerlib.errors import LawError
from steerlib.jacobians import BlockJacobians, block_jacobians
from steerlib.laws.base import Contrast, Source, one_of
from steerlib.laws.sensing import FullPush, Push, Reference, joint
from steerlib.laws.setpoint import Setpoints

At = Literal["per-prompt", "mean"]
Model = Literal["measured", "identity", "random", "shuffled"]
Gain = Literal["lqr", "proportional"]
Form = Literal["rank-one", "full"]
Combine = Literal["sum", "joint"]
Keep = Literal["head", "tail"]


class ALQR(Setpoints):
    """Setpoint feedback at every block, with gains from the Riccati recursion over depth.

    Args:
        setpoint: lambda, in the units of `reference`; for several concepts one for each. 0.5 to 3.5 in the paper.
        reference: "raw", "centred" or "fixed"; see `steerlib.laws.setpoint`.
        q: weight of the state: a number, a list (the diagonal), or such a list for each block. Gains depend on q / r
            and q_f / r only. The paper's values differ by model: 0.1 to 1, 1 to 10, 0.1 to 10.
        r: weight of the input.
        q_f: weight of the state after the last block.
        jacobian: where the blocks are linearised; see the module.
        prompts: how many texts of the positive class (the code: 1 to 50).
        context: tokens to which these are cut, None for whole texts (the code: 24).
        keep: which end of a text is kept: "tail", which holds the token that is steered, or "head" (the code).
        precision: of the recursion.
        gain: "lqr", or the ablation "proportional", w_k = v_k.
        model: "measured", or an ablation; see the module.
        form: "rank-one" or "full".
        combine: of several concepts, "sum" or "joint".
        seed: of the ablations "random" and "shuffled".
        strength: multiplier of the input.

    Raises:
        LawError: if an option has no meaning.
    """

    def __init__(
        self,
        *,
        setpoint: float | Sequence[float] = 1.0,
        reference: Reference = "raw",
        q: float | Sequence[Any] = 0.1,
        r: float | Sequence[Any] = 1.0,
        q_f: float | Sequence[Any] = 0.1,
        jacobian: At = "per-prompt",
        prompts: int = 50,
        context: int | None = None,
        keep: Keep = "tail",
        precision: Precision = "float64",
        gain: Gain = "lqr",
        model: Model = "measured",
        form: Form = "rank-one",
        combine: Combine = "sum",
        seed: int = 0,
        strength: float = 1.0,
    ) -> None:
        """Choose setpoint, weights and linear model."""
        super().__init__(setpoint=setpoint, reference=reference, strength=strength)
        for name, got in (("q", q), ("r", r), ("q_f", q_f)):
            checked_weight(got, name, zero=name == "q_f")
        for name, got in (("prompts", prompts), ("context", 1 if context is None else context)):
            if isinstance(got, bool) or not isinstance(got, int) or got < 1:
                raise LawError(f"{name}: got {got!r}, expected a whole number of at least 1.")
        self.q, self.r, self.q_f, self.prompts, self.context, self.seed = q, r, q_f, prompts, context, seed
        self.jacobian: At = one_of("jacobian", jacobian, At)
        self.keep: Keep = one_of("keep", keep, Keep)
        self.precision: Precision = one_of("precision", precision, Precision)
        self.gain: Gain = one_of("gain", gain, Gain)
        self.model: Model = one_of("model", model, Model)
        self.form: Form = one_of("form", form, Form)
        self.combine: Combine = one_of("combine", combine, Combine)
        if gain == "proportional" and (model != "measured" or form == "full"):
            raise LawError(
                f"gain='proportional' solves nothing: got model={model!r}, form={form!r}. Fix: leave both out."
            )

    def options(self) -> dict[str, Any]:
        """All but the strength."""
        names = (
            "q", "r", "q_f", "jacobian", "prompts", "context", "keep", "precision", "gain", "model", "form", "combine",
            "seed",
        )  # fmt: skip
        return super().options() | {name: getattr(self, name) for name in names}

    @property
    def solves(self) -> bool:
        """Whether the gains need Jacobians that were measured."""
        return self.gain == "lqr" and self.model != "identity"

    def fit_from(self, source: Source) -> Self:
        """Measure contrasts and Jacobians, and fit; see `linearised`."""
        return self.fit_from_several([source])

    def fit_from_several(self, sources: Sequence[Source]) -> Self:
        """Fit for several concepts, one source for each; the Jacobians are those on texts of the first."""
        contrasts = [self.measured(source) for source in sources]
        return self.fit(contrasts, jacobians=self.linearised(sources[0]) if self.solves else None)

    def linearised(self, source: Source, *, out: Path | str | None = None) -> BlockJacobians:
        """The Jacobian of every block on texts of the source's positive class.

        Args:
            source: with nothing attached to its plant.
            out: a folder to stream to, for plants whose Jacobians do not fit into memory together: the recursion then
                reads one at a time. See `steerlib.jacobians.block_jacobians`.
        """
        texts = positives(source)[: self.prompts]
        return block_jacobians(
            source.plant, texts, point=self.jacobian, context=self.context, keep=self.keep, out=out
        )  # fmt: skip

    def fit(
        self, contrasts: Sequence[Contrast] | Sequence[Sequence[Contrast]], *, jacobians: Jacobians | None = None
    ) -> Self:
        """Fit on contrasts at the inputs of all blocks, and the Jacobians of the blocks.

        Args:
            contrasts: one for each block; for several concepts, one such list for each concept.
            jacobians: A_k of every block, a stack or whatever reads one at a time; not needed where nothing is solved.

        Raises:
            LawError: if no block has a feature, Jacobians are missing or not one for each block, a weight has another
                shape than the states, concepts to be combined jointly depend on one another, or the recursion is too
                ill-conditioned for its precision.
        """
        by_block, features = self._features(contrasts)
        moves = [joint(f) if self.combine == "joint" and f.known else f.directions for f in features]
        if self.gain == "proportional":
            return self._build(by_block, features, lambda block: Push(moves[block]))
        width, device = by_block[0][0].width, moves[0].device
        steps = self._steps(self._modelled(jacobians, len(features), width, device), torch.stack(moves))
        acting: dict[int, Push] = {}
        for step in steps:  # backwards, one matrix at a time
            if not features[step.layer].known:
                continue
            if self.form == "full":
                acting[step.layer] = FullPush(moves[step.layer], step.gain)
            else:
                acting[step.layer] = Push(step.pushes)
        return self._build(by_block, features, acting.__getitem__)

    def _steps(self, jacobians: Jacobians, moves: Float[Tensor, "blocks concepts width"]) -> Iterator[Step]:
        """The recursion, the last block first."""
        return riccati(
            jacobians, q=self.q, r=self.r, q_f=self.q_f, features=moves, gains=self.form == "full",
            precision=self.precision, device=moves.device,
        )  # fmt: skip

    def _modelled(self, jacobians: Jacobians | None, blocks: int, width: int, device: torch.device) -> Jacobians:
        """The linear model that the recursion is given: what was measured, or an ablation of it."""
        if self.model == "identity":
            return cast("Jacobians", [torch.eye(width, device=device)] * blocks)
        if jacobians is None or len(jacobians) != blocks:
            found = "none" if jacobians is None else f"those of {len(jacobians)} blocks"
            raise LawError(
                f"ALQR: got contrasts at {blocks} blocks, and of Jacobians {found}. "
                "Fix: jacobians=law.linearised(source)."
            )
        return jacobians if self.model == "measured" else _Changed(jacobians, self.model, self.seed)


class _Changed:
    """Jacobians that are no longer those of their blocks: what the gains are worth beyond their size."""

    def __init__(self, jacobians: Jacobians, how: Literal["random", "shuffled"], seed: int) -> None:
        self._held, self._how, self._seed = jacobians, how, seed
        order = torch.randperm(len(jacobians), generator=torch.Generator().manual_seed(seed)).tolist()
        if order == sorted(order):  # a shuffle that changes nothing is no control
            order = order[1:] + order[:1]
        self._order = order

    def __len__(self) -> int:
        return len(self._held)

    def __getitem__(self, layer: int) -> Tensor:
        if self._how == "shuffled":
            return self._held[self._order[layer]]
        held = self._held[layer]
        generator = torch.Generator().manual_seed(self._seed * len(self) + layer)
        left, right = (
            torch.linalg.qr(torch.randn(held.shape, generator=generator, dtype=torch.float64))[0].to(held)
            for _ in range(2)
        )  # fmt: skip
        return left * torch.linalg.svdvals(held) @ right.T


def positives(source: Any) -> list[str]:
    """Texts of a source's positive class: those whose states its contrasts call positive, shuffled labels included.

    Raises:
        LawError: if the source has none.
    """
    try:
        wanted, other = source.task.contrast_texts(n=source.n, seed=source.seed, at=source.at)
        shuffled = source.labels == "shuffled"
    except AttributeError as error:
        raise LawError(
            "ALQR: the source has no texts to linearise the blocks on. Fix: fit(contrasts, jacobians=...)."
        ) from error
    if not shuffled:
        return list(wanted)
    every = [*wanted, *other]  # in the order of `laws.additive.shuffled`, which shuffles the states
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(source.seed))
    return [every[i] for i in order[: len(wanted)].tolist()]
