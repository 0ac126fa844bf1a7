"""The wiring that lets a control law act on the states of a model.

This is the only file that touches hooks while a plant is used. It knows how a state is reached; it knows nothing
about what a law computes, and nothing about text. Sites and token scopes are in `steerlib.sites`.

Why the hooks are permanent. `torch.compile` does not guard a module's hooks: a hook added after a compiled
function has run is silently ignored (pytorch issue 117758). So a plant installs one hook per site of the residual
stream when it is made, and attaching a law means changing an attribute of the object behind the hook. Compiled code
does guard that attribute: attaching or detaching recompiles, and is never silently absent. Sites inside the blocks
are used by few laws, so that their hooks would be in the way of all others: each comes when it is first asked for,
compiled code is dropped then, and from there on it is as permanent as the rest.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from steerlib.anatomy import Anatomy, BlockParts, follow
from steerlib.errors import PlantError, SiteError
from steerlib.sites import Pass, Point, Scope, ScopeName, Site, last_real, prompt_ends, scope_mask

Transform = Callable[[Tensor], Tensor]
#: Points that laws reach through hooks that are put in when they are first asked for.
INSIDE = ("attn_norm", "heads", "mlp_norm")

__all__ = [
    "Actuator", "Pass", "Point", "Scope", "ScopeName", "Site", "Slot", "Transform", "Wiring",
    "forget_compiled_code", "last_real", "prompt_ends", "scope_mask",
]  # fmt: skip


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
        if output.dim() == 2:  # OPT takes texts and tokens together before the MLP
            apart = output.reshape(self.slot.now.rows, -1, output.shape[-1])
            return self.slot.apply(apart).reshape(output.shape)
        return self.slot.apply(output)


@dataclass(frozen=True)
class _PreHook:
    slot: Slot

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.slot.entries:
            return None
        if args:
            return (self.slot.apply(args[0]), *args[1:]), kwargs
        name = "hidden_states" if "hidden_states" in kwargs else "input"
        return args, {**kwargs, name: self.slot.apply(kwargs[name])}


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
        self._model = weakref.ref(model)
        self._parts: tuple[BlockParts, ...] | None = None
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
        if site not in self._slots and site.point in INSIDE:
            self._install(site)
        if site not in self._slots:
            raise SiteError(f"{site}: this architecture has no final norm. Fix: use resid_post of the last layer.")
        return self._slots[site]

    def width(self, site: Site) -> int:
        """Size of the states at a site.

        Raises:
            SiteError: if this plant has no such site.
        """
        if site.point != "heads":
            return self.anatomy.width
        return self._part(site.resolve(self.anatomy.depth)).heads_width

    def _install(self, site: Site) -> None:
        """Put in the hook of a site inside a block, and drop compiled code that would pass it by."""
        part = self._part(site)
        if not self._handles:
            raise SiteError("this plant was closed: its hooks are gone. Fix: make a new Plant of the model.")
        slot = self._slot(site)
        if site.point == "heads":
            handle = part.projection.register_forward_pre_hook(_PreHook(slot), with_kwargs=True)  # type: ignore[union-attr]
        else:
            handle = part.norm(site.point).register_forward_hook(_PostHook(slot))  # type: ignore[union-attr]
        self._handles.append(handle)
        forget_compiled_code()

    def _part(self, site: Site) -> BlockParts:
        """The parts of a site's block, followed through one small pass the first time.

        Raises:
            SiteError: if the block has no such part.
        """
        if self._parts is None:
            held = {slot: slot.entries for slot in self._slots.values()}
            for slot in held:  # a law must not see the small pass
                slot.entries = ()
            try:
                self._parts = follow(self._model(), self.anatomy)  # type: ignore[arg-type]
            finally:
                for slot, entries in held.items():
                    slot.entries = entries
        part = self._parts[site.layer]
        if (lacking := part.lacks(site.point)) is not None:
            raise SiteError(f"{site}: {lacking}")
        return part

    def active(self) -> bool:
        """Whether anything is attached anywhere."""
        return any(slot.entries for slot in self._slots.values())

    def attached(self) -> list[tuple[Site, Transform]]:
        """What is attached and where, in order of depth."""
        sites = sorted(self._slots, key=lambda site: site.order)
        return [(site, transform) for site in sites for transform, _ in self._slots[site].entries]

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
        self.now.rows = ids.shape[0]
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
