"""Sites, token scopes and the wiring that lets a control law act on the residual stream.

This is the only file that touches hooks. It knows where a state is read and written and which tokens count;
it knows nothing about what a law computes, and nothing about text.

Why the hooks are permanent. `torch.compile` does not guard a module's hooks: a hook added after a compiled
function has run is silently ignored (pytorch issue 117758). So a plant installs one hook per site when it is
made, and attaching a law means changing an attribute of the object behind the hook. Compiled code does guard
that attribute: attaching or detaching recompiles, and is never silently absent.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from steerlib.anatomy import Anatomy
from steerlib.errors import PlantError, SiteError

Point = Literal["resid_pre", "resid_post", "final_norm"]
ScopeName = Literal["prefill", "last", "generated", "all"]
Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Site:
    """A place in the residual stream.

    Attributes:
        layer: index of the block, from 0 for the first; negative counts from the last.
        point: "resid_pre" (input of the block), "resid_post" (its output) or "final_norm" (output of the norm
            before the unembedding; the layer must be the last).
    """

    #: Points in the order in which a pass reaches them.
    ORDER: ClassVar[tuple[str, ...]] = ("resid_pre", "resid_post", "final_norm")

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
    """

    real: Bool[Tensor, "batch time"] | None = None
    prompt_lengths: Int[Tensor, " batch"] | None = None
    teacher_forced: bool = False
    decoding: bool = False


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


def _on_a_copy(transform: Transform) -> Transform:
    """A function that may change its argument in place would change it at every token, whatever the scope."""
    return lambda state: transform(state.clone())


def _within(transform: Any, now: Pass) -> Transform:
    """A law that must know which token is which is handed the pass besides the state; see `Law.sees_pass`."""
    return lambda state: transform.during(state, now)


class Slot:
    """What stands behind one permanent hook: the transforms attached at one site, in order of attachment."""

    def __init__(self, now: Pass) -> None:
        """Start empty."""
        self.now = now
        self.entries: tuple[tuple[Transform, Scope], ...] = ()

    def apply(self, state: Float[Tensor, "batch time width"]) -> Float[Tensor, "batch time width"]:
        """Pass the state through every entry, each on its own tokens only."""
        for transform, scope in self.entries:
            if scope.name == "prefill" and self.now.decoding:
                continue
            if getattr(transform, "sees_pass", False):
                transform = _within(transform, self.now)
            elif not isinstance(transform, torch.nn.Module) and not getattr(transform, "pure", False):
                transform = _on_a_copy(transform)
            if state.shape[1] == 1 and self.now.real is None:
                state = transform(state)
                continue
            mask = scope_mask(scope, self.now, (state.shape[0], state.shape[1]), state.device)
            state = torch.where(mask[..., None], transform(state), state)
        return state


@dataclass(frozen=True)
class _PostHook:
    slot: Slot

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> Any:
        if not self.slot.entries:
            return None
        if isinstance(output, tuple):  # some families still return (state, attention weights, ...)
            return (self.slot.apply(output[0]), *output[1:])
        return self.slot.apply(output)


@dataclass(frozen=True)
class _PreHook:
    slot: Slot

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.slot.entries:
            return None
        if args:
            return (self.slot.apply(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": self.slot.apply(kwargs["hidden_states"])}


class Wiring:
    """The permanent hooks of one plant: a slot for every site, and one hook that looks at each pass.

    Args:
        model: the causal language model.
        anatomy: its parts.

    Raises:
        PlantError: if the model is a TorchScript module, whose code no hook can reach.
    """

    def __init__(self, model: nn.Module, anatomy: Anatomy) -> None:
        """Install the hooks."""
        if isinstance(model, torch.jit.ScriptModule):
            raise PlantError("got a TorchScript model, which ignores hooks; expected the original nn.Module.")
        self.anatomy = anatomy
        self.now = Pass()
        self._slots: dict[Site, Slot] = {}
        self._handles = [model.register_forward_pre_hook(self._observe, with_kwargs=True)]
        for layer, block in enumerate(anatomy.blocks):
            pre, post = self._slot(Site(layer, "resid_pre")), self._slot(Site(layer, "resid_post"))
            self._handles.append(block.register_forward_pre_hook(_PreHook(pre), with_kwargs=True))
            self._handles.append(block.register_forward_hook(_PostHook(post)))
        if anatomy.final_norm is not None:
            norm = self._slot(Site(anatomy.depth - 1, "final_norm"))
            self._handles.append(anatomy.final_norm.register_forward_hook(_PostHook(norm)))
        forget_compiled_code()

    def _slot(self, site: Site) -> Slot:
        return self._slots.setdefault(site, Slot(self.now))

    def slot(self, site: Site) -> Slot:
        """The slot of a site.

        Raises:
            SiteError: if this plant has no such site.
        """
        site = site.resolve(self.anatomy.depth)
        if site not in self._slots:
            raise SiteError(f"{site}: this architecture has no final norm. Fix: use resid_post of the last layer.")
        return self._slots[site]

    def active(self) -> bool:
        """Whether anything is attached anywhere."""
        return any(slot.entries for slot in self._slots.values())

    def scopes(self) -> set[str]:
        """Names of the scopes in use."""
        return {scope.name for slot in self._slots.values() for _, scope in slot.entries}

    def remove(self) -> None:
        """Take every hook off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _observe(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before each pass of the model: note which positions are real, and refuse what cannot be steered rightly."""
        if not self.active():
            return
        ids = kwargs.get("input_ids")
        if ids is None:
            ids = kwargs.get("inputs_embeds") if kwargs.get("inputs_embeds") is not None else args[0] if args else None
        if ids is None:
            return
        columns = ids.shape[1]
        mask = kwargs.get("attention_mask")
        if isinstance(mask, dict):
            mask = mask.get("full_attention", next(iter(mask.values())))
        cached = kwargs.get("past_key_values") is not None
        self.now.decoding = cached and columns == 1 and _cache_is_filled(kwargs["past_key_values"], mask)
        self.now.real = None if self.now.decoding or mask is None else _real_tokens(mask, columns)
        if columns > 1 and mask is not None and mask.dim() == 2 and mask.shape[1] > columns:
            self._refuse_chunks(columns)
        if kwargs.get("use_cache") is False and not cached and self.now.prompt_lengths is None and columns > 1:
            self._refuse_uncached()

    def _refuse_chunks(self, columns: int) -> None:
        """Several tokens on top of a filled cache: the start of the answer is not known."""
        if self.scopes() - {"last", "all"}:
            raise SiteError(
                f"got a pass of {columns} tokens on a filled cache (chunked prefill, assisted decoding), where scopes "
                f"{sorted(self.scopes())} are not defined. Fix: use plant.generate, or scope 'last' or 'all'."
            )

    def _refuse_uncached(self) -> None:
        """Generation without a cache through the bare model: later passes contain generated tokens."""
        if torch.compiler.is_compiling() or "generated" not in self.scopes():
            return
        raise SiteError(
            "got a pass with use_cache=False and no prompt lengths, where scope 'generated' is not defined. "
            "Fix: call plant.generate or plant.forward(..., prompt_lengths=...), or use scope 'last' or 'all'."
        )


def _cache_is_filled(cache: Any, mask: Tensor | None) -> bool:
    """Whether a one-token pass continues a cache rather than being a prompt of one token."""
    if mask is not None and mask.dim() == 2:
        return mask.shape[1] > 1
    length = cache.get_seq_length()
    return True if isinstance(length, Tensor) else length > 0


def _real_tokens(mask: Tensor, columns: int) -> Bool[Tensor, "batch time"]:
    """Which of the columns of this pass hold tokens, from a two- or four-dimensional attention mask.

    A static cache hands over a 4-d mask (batch, 1, queries, keys). A real token may attend to itself, padding may
    not, so its diagonal tells them apart, with or without a sliding window.
    """
    if mask.dim() == 2:
        return mask[:, -columns:].bool()
    diagonal = mask[:, 0, :, :columns].diagonal(dim1=-2, dim2=-1)
    return diagonal if diagonal.dtype == torch.bool else diagonal == 0


def forget_compiled_code() -> None:
    """Drop code that `torch.compile` made before the hooks were there: it would never run them.

    Nothing is lost but the time to compile again at the next call.
    """
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


class Actuator:
    """Attach transforms to sites for as long as a `with` block lasts.

    Args:
        wiring: the plant's permanent hooks.
        entries: (site, transform, scope) for each; a transform maps states (..., width) to states.
    """

    def __init__(self, wiring: Wiring, entries: list[tuple[Site, Transform, Scope]]) -> None:
        """Resolve the sites, so that an error comes before anything is attached."""
        self._targets = [(wiring.slot(site), (transform, scope)) for site, transform, scope in entries]
        self._attached = False
        self._wiring = weakref.ref(wiring)

    def __enter__(self) -> Actuator:
        """Attach.

        Raises:
            SiteError: if this very actuator is attached already, or the plant's hooks were removed.
        """
        wiring = self._wiring()
        if wiring is None or not wiring._handles:
            raise SiteError("this plant was closed: its hooks are gone. Fix: make a new Plant of the model.")
        if self._attached:
            raise SiteError("this actuator is attached already. Fix: call plant.under again for a second one.")
        for slot, entry in self._targets:
            slot.entries = (*slot.entries, entry)
        self._attached = True
        return self

    def __exit__(self, *_: object) -> None:
        """Detach what this actuator attached, and nothing else."""
        for slot, entry in self._targets:
            kept = list(slot.entries)
            kept.pop(next(i for i, held in enumerate(kept) if held is entry))
            slot.entries = tuple(kept)
        self._attached = False
