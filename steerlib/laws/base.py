"""The contract every control law obeys, and how laws are saved and refused.

A law maps a state z to z + strength * u(z). A subclass writes `input` (u) and `fit`; the rest is here.
Knows nothing about models: the plant is asked only for its name, its weights' hash and its sizes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self, get_args

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from steerlib.actuator import Pass, Point, Site, Transform
from steerlib.errors import ContrastError, LawError

if TYPE_CHECKING:
    from steerlib.laws.answers import Answers
    from steerlib.laws.scored import Scored
    from steerlib.plant import Plant

FORMAT = "steerlib-law/1"


@dataclass(frozen=True)
class LawHeader:
    """Where a law was fitted: everything needed to use it rightly.

    Attributes:
        layer: block index, from 0.
        point: see `steerlib.actuator.Site`.
        scope: name of the token scope the law is meant for.
        plant: name of the plant.
        weight_hash: SHA-256 of the plant's weights.
        width: size of the residual stream.
        data_hash: SHA-256 of the texts, and of the position in them, whose states the law was fitted on.
        seed: seed of the contrast set.
    """

    layer: int
    point: Point
    scope: str
    plant: str
    weight_hash: str
    width: int
    data_hash: str
    seed: int


@dataclass(frozen=True)
class Contrast:
    """States of two classes, measured at one site: what laws are fitted on.

    Iterating gives (positive, negative).

    Attributes:
        positive: states that show the wanted behaviour.
        negative: states that show the other.
        header: where they were measured; None for states that come from nowhere in particular (toys, tests).
        paired: whether row i of both classes belongs together (one question, two answers).
    """

    positive: Float[Tensor, "positives width"]
    negative: Float[Tensor, "negatives width"]
    header: LawHeader | None = None
    paired: bool = False

    def __post_init__(self) -> None:
        """Refuse sets that no law can be fitted on.

        Raises:
            ContrastError: if a class is empty, the widths differ, or a state is not finite.
        """
        for name, states in (("positive", self.positive), ("negative", self.negative)):
            if states.dim() != 2:
                raise ContrastError(f"{name} states: got shape {tuple(states.shape)}, expected (examples, width).")
            if len(states) == 0:
                raise ContrastError(f"{name} states: got none. Fix: a contrast needs examples of both classes.")
            bad = (~torch.isfinite(states)).any(1).nonzero()
            if len(bad):
                raise ContrastError(
                    f"{name} states: row {int(bad[0])} (of {len(bad)}) is not finite. "
                    "Fix: look at that prompt; in half precision, record in float32."
                )
        if self.positive.shape[1] != self.negative.shape[1]:
            raise ContrastError(
                f"got widths {self.positive.shape[1]} and {self.negative.shape[1]}, expected the same plant for both."
            )
        if self.paired and len(self.positive) != len(self.negative):
            raise ContrastError(
                f"pairs: got {len(self.positive)} positive and {len(self.negative)} negative states, expected as many. "
                "Fix: paired=False, or keep whole pairs."
            )

    def __iter__(self):  # noqa: ANN204 - two tensors
        """Positive states, then negative ones."""
        return iter((self.positive, self.negative))

    @property
    def width(self) -> int:
        """Size of the states."""
        return self.positive.shape[1]

    @property
    def largest(self) -> float:
        """The largest absolute value in any state: what rounding is measured against."""
        return max(float(states.abs().amax()) for states in self)


class Source(Protocol):
    """Whoever can measure what a law is fitted on, at the sites it asks for; see `steerlib.tasks.source`.

    Most laws need one contrast. Those that need more (several layers, earlier layers steered, rewards, questions
    apart from answers) ask for it in `Law.fit_from`.

    Attributes:
        plant: where states are measured.
        site: where the law is to act.
        scope: name of the token scope it is meant for.
        seed: of the texts that are drawn.
    """

    @property
    def plant(self) -> Plant: ...  # noqa: D102 - described above
    @property
    def site(self) -> Site: ...  # noqa: D102
    @property
    def scope(self) -> str: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102

    def contrasts(
        self, sites: Sequence[Site], *, pairs: bool = False, position: Literal["last", "mean"] = "last"
    ) -> list[Contrast]:
        """One contrast for each site, from one pass over the texts, under whatever is attached to the plant.

        Args:
            sites: where.
            position: "last" token of each text, or the "mean" over its tokens.
            pairs: keep whole pairs, for laws that need them; ContrastError if there are none.
        """
        ...

    def by_position(
        self,
        sites: Sequence[Site],
        *,
        positions: int | None = None,
        texts: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> list[list[Contrast]]:
        """For each site, one contrast for each of the first token positions; see `steerlib.tasks.source`.

        Args:
            sites: where.
            positions: how many, counted from the first token; None for as many as every text has.
            texts: of the positive and the negative class; None for those that other laws are fitted on.
        """
        ...

    def conditions(self, sites: Sequence[Site], *, read: Literal["last", "mean"] = "last") -> list[Contrast]:
        """For each site, states of prompts on which a law is to act, and of prompts that it is to leave alone.

        Args:
            sites: where.
            read: which state speaks for a prompt: of its last token, or the mean over its tokens.
        """
        ...

    def scored(self, sites: Sequence[Site]) -> list[Scored]:
        """For each site, states at the end of prompts with the reward expected after each."""
        ...

    def answers(self, sites: Sequence[Site]) -> list[Answers]:
        """For each site, states of questions and of a right and a wrong answer to each."""
        ...


class Law(nn.Module):
    """A control law: state to state, z + strength * u(z).

    All it needs while running is in buffers, `strength` included, so that changing a value recompiles nothing.
    At strength zero the state is returned bit for bit. In half precision the sum is taken in float32, and a sum that
    leaves the range of the type is clamped to its largest number, so that no law makes an infinite state.

    Attributes:
        header: where the law was fitted, or None.
        version: raised when the law's meaning changes, so that old files are refused.
        sees_pass: whether the law must know which token is which (the end of the prompt, the position): the actuator
            then calls `during` in place of `forward`.
    """

    version: ClassVar[int] = 1
    sees_pass: ClassVar[bool] = False
    strength: Tensor

    def __init__(self, *, strength: float = 1.0) -> None:
        """Set the multiplier of the input.

        Raises:
            LawError: if it is not a finite number.
        """
        super().__init__()
        self.register_buffer("strength", torch.tensor(_finite(strength)))
        self.header: LawHeader | None = None

    def input(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The control input u for each state."""
        raise NotImplementedError(f"{type(self).__name__} must define input(state).")

    def fit(self, contrast: Contrast) -> Self:
        """Set the law's buffers from a contrast and remember where it was measured; return the law."""
        raise NotImplementedError(f"{type(self).__name__} must define fit(contrast).")

    def fit_from(self, source: Source) -> Self:
        """Fit on what the law needs, measured by the source: by default one contrast, where the law is to act."""
        return self.fit(source.contrasts([source.site])[0])

    def during(self, state: Float[Tensor, "batch time width"], now: Pass) -> Float[Tensor, "batch time width"]:  # noqa: ARG002 - for laws that look at it
        """The steered state of a pass, for laws that must know which token is which; see `sees_pass`.

        Args:
            state: of all tokens of the pass, padding included; the scope decides which of them are changed.
            now: what is known about the pass.
        """
        return self(state)

    def forward(self, state: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """The steered state."""
        return self.moved(state, self.input(state))

    def moved(
        self, state: Float[Tensor, "*batch width"], push: Float[Tensor, "*#batch width"]
    ) -> Float[Tensor, "*batch width"]:
        """The state plus strength times a push, for laws whose push depends on more than the state; see `during`."""
        if state.dtype in (torch.float16, torch.bfloat16):
            limits = torch.finfo(state.dtype)
            steered = (state.float() + self.strength * push.float()).clamp(limits.min, limits.max).to(state.dtype)
        else:
            steered = state + (self.strength * push).to(state.dtype)
        # A plain sum would turn -0.0 into 0.0, and an infinite u into NaN, at strength zero.
        return torch.where(self.strength == 0, state, steered)

    def at(self, strength: float) -> Self:
        """Set the strength in place, compiled code included; return the law.

        Raises:
            LawError: if the strength is not a finite number.
        """
        self.strength.fill_(_finite(strength))
        return self

    def check_use(self, plant: Plant, *, layer: int | None, point: Point | None = None) -> Site:
        """The site to act at, once it is known that the law belongs there.

        Raises:
            LawError: if the law was fitted at another layer or point, or on another plant; both are named.
        """
        if self.header is None:
            if layer is None:
                raise LawError(f"{type(self).__name__}: not fitted on a plant, so the layer must be given.")
            return Site(layer, point or "resid_post").resolve(plant.depth)
        fitted, head = Site(self.header.layer, self.header.point), self.header
        if head.weight_hash != plant.weight_hash:
            raise LawError(
                f"{type(self).__name__}: fitted on plant {head.plant!r} (weights {head.weight_hash[:12]}, width "
                f"{head.width}), used on {plant.name!r} (weights {plant.weight_hash[:12]}, width {plant.width}). "
                "Fix: fit it again on this plant."
            )
        wanted = Site(head.layer if layer is None else layer, point or head.point).resolve(plant.depth)
        if wanted != fitted:
            raise LawError(
                f"{type(self).__name__}: fitted at {fitted}, used at {wanted}. Fix: leave layer out, or fit it there."
            )
        return fitted

    def entries(
        self, plant: Plant, *, layer: int | None = None, point: Point | None = None
    ) -> list[tuple[Site, Transform, str]]:
        """Where the law acts, itself, and its scope by default; `steerlib.laws.stack` has several. See `check_use`."""
        scope = self.header.scope if self.header is not None else "generated"
        return [(self.check_use(plant, layer=layer, point=point), self, scope)]

    # Files

    def options(self) -> dict[str, Any]:
        """Arguments of the constructor that no buffer holds, so that a loaded law can be fitted again as it was."""
        return {}

    def save(self, path: str | Path) -> Path:
        """Write the law to a safetensors file, its header in the file's metadata."""
        target = Path(path)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.named_buffers()}
        meta = {
            "format": FORMAT,
            "law": type(self).__name__,
            "version": str(self.version),
            "layers": "from 0",
        }
        meta["options"] = json.dumps(self.options())
        meta["header"] = json.dumps(dataclasses.asdict(self.header)) if self.header is not None else "null"
        save_file(tensors, target, metadata=meta)
        return target

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a law that `save` wrote.

        Raises:
            LawError: if the file is missing, is not a law, or holds another law or version; both are named.
        """
        meta, tensors = read_law(path, FORMAT, cls.__name__, cls.version)
        return cls._restore(tensors, json.loads(meta["options"]), json.loads(meta["header"]))

    @classmethod
    def _restore(cls, tensors: dict[str, Tensor], options: dict[str, Any], header: dict[str, Any] | None) -> Self:
        law = cls(**options)
        for name, tensor in tensors.items():
            owner, _, leaf = name.rpartition(".")
            law.get_submodule(owner).register_buffer(leaf, tensor)
        law.header = LawHeader(**header) if header is not None else None
        return law

    def __repr__(self) -> str:
        """Name, strength and place."""
        place = f", {Site(self.header.layer, self.header.point)} of {self.header.plant}" if self.header else ""
        return f"{type(self).__name__}(strength={float(self.strength):.3g}{place})"


def one_of(name: str, got: Any, allowed: Any) -> Any:
    """An option, once it is known to be one of those allowed.

    Args:
        name: of the option, for people.
        got: what was given.
        allowed: a `Literal` type, or the values themselves.

    Raises:
        LawError: names what was got and all that is allowed.
    """
    known = [*(get_args(allowed) or allowed)]
    if got not in known:
        raise LawError(f"{name}: got {got!r}, expected {' or '.join(map(repr, known))}.")
    return got


def _finite(strength: float) -> float:
    """A strength that float32, in which it is kept, can hold."""
    if not isinstance(strength, (int, float)) or not abs(strength) <= torch.finfo(torch.float32).max:
        raise LawError(f"strength: got {strength!r}, expected a finite number (at most 3.4e38 in size).")
    return float(strength)


def read_law(path: str | Path, kind: str, name: str, version: int) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file that holds the law of a name and version, in a format.

    Raises:
        LawError: if the file is missing, is not of the format, or holds another law or version; both are named.
    """
    source = Path(path)
    if not source.is_file():
        raise LawError(f"{source}: no such file.")
    try:
        with safe_open(source, framework="pt") as handle:
            meta = handle.metadata() or {}
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 - not a dict
    except Exception as error:  # safetensors raises its own type, which is not public
        raise LawError(f"{source}: cannot be read as safetensors ({error}). Fix: save the law again.") from error
    if meta.get("format") != kind:
        raise LawError(
            f"{source}: got format {meta.get('format')!r}, expected {kind!r}: not a steerlib law of that kind."
        )
    if (meta["law"], int(meta["version"])) != (name, version):
        raise LawError(
            f"{source}: holds {meta['law']} version {meta['version']}, expected {name} version {version}. "
            "Fix: load it with its own class, or fit it again."
        )
    return meta, tensors


def check_width(law: Law, held: Float[Tensor, " width"], state: Float[Tensor, "*batch width"]) -> None:
    """Refuse states of another width than a law holds.

    Raises:
        LawError: if the law has not been fitted, or was fitted for another width.
    """
    if len(held) != state.shape[-1]:
        found = f"holds a map of width {len(held)}" if len(held) else "is not fitted"
        raise LawError(f"{type(law).__name__}: {found}; the state has width {state.shape[-1]}. Fix: fit it.")


def norm_or_raise(
    vector: Float[Tensor, " width"], what: str, causes: Sequence[str], *, beside: float = 0.0
) -> Float[Tensor, ""]:
    """The norm of a direction that must not be zero.

    Args:
        vector: the direction, in float64.
        what: its name.
        causes: why it may be zero.
        beside: size of the numbers that it is a difference of: a trillionth of that is rounding. The same states in
            another order have means that differ by so much, and a direction of it would be noise.

    Raises:
        LawError: if it is zero or not finite, with the likely causes.
    """
    norm = vector.norm()
    if not torch.isfinite(norm) or norm <= 1e-12 * beside:
        expected = "a positive one" if norm == 0 else f"more than rounding of numbers as large as {beside:.3g}"
        raise LawError(f"{what}: got norm {float(norm)}, expected {expected}. Likely cause: {'; '.join(causes)}.")
    return norm
