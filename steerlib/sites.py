"""Where a state is read and written, and which tokens count: sites, scopes and what is known about a pass.

Knows names, positions and padding. Knows nothing about hooks, models or laws.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from steerlib.errors import SiteError

#: In the order in which a pass reaches them.
Point = Literal["resid_pre", "attn_norm", "heads", "mlp_norm", "resid_post", "final_norm"]
ScopeName = Literal["prefill", "last", "generated", "all"]


@dataclass(frozen=True)
class Site:
    """A place where a state is read and written.

    Attributes:
        layer: index of the block, from 0 for the first; negative counts from the last.
        point: in the residual stream "resid_pre" (input of the block) and "resid_post" (its output); inside the block
            "attn_norm" and "mlp_norm" (outputs of the norms before attention and before the MLP, which not every
            family has) and "heads" (outputs of all attention heads side by side, the input of the projection back
            into the stream: heads x head size wide, which may differ from the stream); and "final_norm" (output of
            the norm before the unembedding; the layer must be the last).
    """

    layer: int
    point: Point = "resid_post"

    def resolve(self, depth: int) -> Site:
        """The same site with a non-negative layer.

        Raises:
            SiteError: if the layer or the point does not exist.
        """
        if isinstance(self.layer, bool) or not isinstance(self.layer, int):
            raise SiteError(f"layer: got {self.layer!r}, expected an integer.")
        if not -depth <= self.layer < depth:
            raise SiteError(
                f"layer {self.layer} is out of range: this plant has {depth} blocks, so layers go "
                f"from 0 to {depth - 1} (or from -{depth} to -1, counting from the last)."
            )
        if self.point not in get_args(Point):
            raise SiteError(f"point: got {self.point!r}, expected one of {', '.join(get_args(Point))}.")
        layer = self.layer % depth
        if self.point == "final_norm" and layer != depth - 1:
            raise SiteError(f"final_norm follows the last block: got layer {self.layer}, expected {depth - 1} or -1.")
        return Site(layer, self.point)

    @property
    def order(self) -> tuple[int, int]:
        """Sorts sites in the order in which a pass reaches them."""
        return self.layer, get_args(Point).index(self.point)

    def __str__(self) -> str:
        """For messages and labels, for example "resid_post of layer 3"."""
        return f"{self.point} of layer {self.layer}"


@dataclass(frozen=True)
class Scope:
    """Which tokens are steered. Padding never is.

    Attributes:
        name: "prefill": the named positions of the prompt, and no generated token;
            "last": the last position of every forward pass;
            "generated": from the last prompt token's output on, so everything that decides a generated token;
            "all": every real token.
        positions: for "prefill" only: positions in the prompt, counted over real tokens, from 0, or from -1
            backwards. None means every prompt token.

    With a key-value cache, "last" and "generated" steer the same tokens while generating; they differ when a pass
    sees the whole text at once (teacher forcing, or generation without a cache).
    """

    name: ScopeName = "generated"
    positions: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse names and positions that have no meaning."""
        if self.name not in get_args(ScopeName):
            raise SiteError(f"scope: got {self.name!r}, expected one of {', '.join(get_args(ScopeName))}.")
        if self.positions is not None and self.name != "prefill":
            raise SiteError(f"scope {self.name!r} takes no positions; got {self.positions}. Fix: scope 'prefill'.")

    @classmethod
    def of(cls, value: Scope | str) -> Scope:
        """A scope from its name."""
        return value if isinstance(value, Scope) else cls(value)  # type: ignore[arg-type]


@dataclass
class Pass:
    """What is known about the forward pass under way. One per plant, rewritten at the start of each pass.

    Attributes:
        real: which positions hold a token rather than padding; None when the pass has one column, which is never
            padding in a left-padded batch, or when nothing is padded.
        prompt_lengths: real tokens of each row's prompt, set by the plant for passes that see prompt and answer at
            once; None otherwise.
        teacher_forced: whether the pass replays a generation, so that "last" means each generated token in turn.
        decoding: whether the pass continues a cache by one token.
        rows: texts of the batch, for families whose norms see all tokens of all texts in one row.
    """

    real: Bool[Tensor, "batch time"] | None = None
    prompt_lengths: Int[Tensor, " batch"] | None = None
    teacher_forced: bool = False
    decoding: bool = False
    rows: int = 1


def last_real(real: Bool[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
    """Mark the last real position of each row, whatever the padding side."""
    after = real.flip(1).cumsum(1).flip(1)
    return real & (after == 1)


def scope_mask(scope: Scope, now: Pass, shape: tuple[int, int], device: torch.device) -> Bool[Tensor, "batch time"]:
    """The positions of a multi-token pass that a scope steers."""
    real = now.real if now.real is not None else torch.ones(shape, dtype=torch.bool, device=device)
    if scope.name == "all":
        return real
    ordinal = real.cumsum(1)  # 1 for the first real token of a row
    if scope.name == "prefill":
        lengths = now.prompt_lengths if now.prompt_lengths is not None else ordinal[:, -1]
        if scope.positions is None:
            return real & (ordinal <= lengths[:, None])
        chosen = torch.zeros_like(real)
        for position in scope.positions:  # a handful of named positions, known when the law is attached
            wanted = position + 1 if position >= 0 else lengths + position + 1
            chosen = chosen | (ordinal == (wanted if isinstance(wanted, int) else wanted[:, None]))
        return real & chosen
    if now.prompt_lengths is not None and (scope.name == "generated" or now.teacher_forced):
        return real & (ordinal >= now.prompt_lengths[:, None])
    return last_real(real)


def prompt_ends(now: Pass, shape: tuple[int, int], device: torch.device) -> Int[Tensor, " batch"]:
    """Column of each row's last prompt token in a pass that sees the prompt: where laws that look once look.

    Args:
        now: the pass under way; meaningless while it is decoding.
        shape: (batch, time) of the pass.
        device: where the states are.
    """
    real = now.real if now.real is not None else torch.ones(shape, dtype=torch.bool, device=device)
    ordinal = real.cumsum(1)
    lengths = now.prompt_lengths if now.prompt_lengths is not None else ordinal[:, -1]
    return (real & (ordinal == lengths[:, None])).long().argmax(1)
