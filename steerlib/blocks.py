"""Blocks called alone: each block of a plant as a function of the state at the last token, with its context frozen.

The context is what attention reads of the tokens before: their keys and values, as the plant itself computed them.
With these held still, the output of a block at the last position is a function of its input at the last position alone,
and its cost does not grow with the number of tokens in front. Everything else is in it: residual stream, norms, MLP,
and attention of the last token to itself.

Knows passes, caches and precision; knows nothing about derivatives or laws. The passes are the plant's own code, so
that nothing here depends on a family; `Frozen` is checked against what the plant computed before it is handed out.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache

from steerlib.attending import Apart, Double, Joined
from steerlib.errors import PlantError
from steerlib.plant import Plant, Tokens

#: Attention that is written in plain tensor code, so that it can be differentiated in batches of directions.
PLAIN = ("eager", "sdpa")


class _Recording(DynamicCache):
    """A cache that remembers what each block was given to attend to in the latest pass."""

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.given: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        found = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        self.given[layer_idx] = found
        return found


@dataclass
class Frozen:
    """One block at the last token of some texts, with their contexts frozen: a function of states, row by row.

    Attributes:
        layer: index of the block.
        block: the module.
        state: the block's input at the last token of each text.
        output: its output there, as the plant computed it or as it is in another precision.
        keys: of the tokens in front, as attention reads them.
        values: likewise.
        args: what else the plant handed the block, in order.
        kwargs: and by name.
        apart: whether attention reads the frozen keys as constants (`steerlib.attending`), which is faster.
    """

    layer: int
    block: nn.Module
    state: Float[Tensor, "rows width"]
    output: Float[Tensor, "rows width"]
    keys: Float[Tensor, "rows heads context size"]
    values: Float[Tensor, "rows heads context size"]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    apart: bool = False

    def __call__(self, state: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """Output of the block at the last token, were the state there this one."""
        still = Apart(self.keys, self.values) if self.apart else Joined(self.keys, self.values)
        args = tuple(still if given is CACHE else given for given in self.args)
        kwargs = {name: still if given is CACHE else given for name, given in self.kwargs.items()}
        with ExitStack() as stack:
            stack.enter_context(still if isinstance(still, Apart) else sdpa_kernel(SDPBackend.MATH))
            if state.dtype == torch.float64:
                stack.enter_context(Double())
            # The module's own forward: hooks belong to passes of the whole plant.
            found = self.block.forward(state[:, None], *args, **kwargs)
        return (found[0] if isinstance(found, tuple) else found)[:, 0]

    def to(self, dtype: torch.dtype, *, block: nn.Module | None = None) -> Frozen:
        """The same block in another precision; its weights are copied, unless a block in that precision is given."""
        if dtype == self.state.dtype and dtype == next(self.block.parameters()).dtype:
            return self
        block = copy.deepcopy(self.block).to(dtype) if block is None else block
        made = {name: _cast(getattr(self, name), dtype) for name in _CAST}
        found = Frozen(layer=self.layer, block=block, apart=self.apart, output=self.output, **made)
        with torch.no_grad():
            found.output = found(found.state)
        return found

    @property
    def each(self) -> int:
        """Bytes that one direction through this block takes for one row: what every module gives, twice over."""
        wide = sum(w.shape[-1] if w.dim() == 1 else w.shape[0] for w in self.block.parameters())
        context = self.keys.shape[1] * (self.keys.shape[2] + 1) * (self.keys.shape[3] + self.values.shape[3])
        return 2 * (wide + 4 * self.state.shape[1] + context) * self.state.element_size()


_CAST = ("state", "keys", "values", "args", "kwargs")
CACHE = object()  # stands for the cache among the arguments of a block


def freeze(plant: Plant, batch: Tokens, *, layers: Sequence[int] | None = None) -> tuple[Frozen, ...]:
    """The blocks of a plant at the last token of each text, with what they attend to frozen.

    Args:
        plant: with nothing attached.
        batch: texts padded on the left.
        layers: which blocks; all by default.

    Raises:
        PlantError: if a law is attached, or the blocks of this architecture cannot be called alone: they take no
            cache of keys and values, attend by code that cannot be differentiated in batches, or give something else
            when they are called again.
    """
    chosen = [resolved(plant, layer) for layer in (range(plant.depth) if layers is None else layers)]
    if plant.wiring.active():
        raise PlantError("a law is attached, and the blocks alone would run without it. Fix: leave the with block.")
    kind = type(plant.model).__name__
    attention = getattr(plant.model.config, "_attn_implementation", "eager")
    if attention not in PLAIN:
        raise PlantError(
            f"{kind}: attends by {attention!r}, which cannot be differentiated in batches of directions. "
            "Fix: load the model with attn_implementation='sdpa' or 'eager'."
        )
    calls, cache = _watch(plant, batch, kind)
    found = []
    for layer in chosen:
        if layer not in calls or layer not in cache.given:
            raise _not_alone(kind, "they take no cache of keys and values")
        state, output, args, kwargs = calls[layer]
        keys, values = (part[..., :-1, :] for part in cache.given[layer])
        frozen = Frozen(layer, plant.blocks[layer], state[:, 0], output[:, 0], keys, values, args, kwargs)
        found.append(_checked(frozen, kind))
    return tuple(found)


def _watch(plant: Plant, batch: Tokens, kind: str) -> tuple[dict[int, Any], _Recording]:
    """Arguments and output of every block in a pass of the last token on top of the cache of those before."""
    body: Any = plant.model.base_model  # without the head, whose logits nobody wants
    cache, calls = _Recording(plant.model.config), {}
    positions = (batch.attention_mask.cumsum(1) - 1).clamp(min=0)
    before = batch.input_ids.shape[1] - 1

    def run(columns: slice, mask: Tensor) -> None:
        arguments: dict[str, Any] = {"input_ids": batch.input_ids[:, columns], "attention_mask": mask}
        if plant._takes_positions:
            arguments["position_ids"] = positions[:, columns]
        body(**arguments, past_key_values=cache, use_cache=True)

    def note(layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            given = list(args)
            state = given.pop(0) if given else kwargs["hidden_states"]
            kept = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            first = output[0] if isinstance(output, tuple) else output
            calls[layer] = (state.clone(), first.clone(), _marked(tuple(given), cache), _marked(kept, cache))

        return hook

    handles = []
    with torch.no_grad():
        try:
            if before:
                run(slice(0, before), batch.attention_mask[:, :before])
            handles = [b.register_forward_hook(note(i), with_kwargs=True) for i, b in enumerate(plant.blocks)]
            run(slice(before, None), batch.attention_mask)
        except (TypeError, AttributeError, IndexError) as error:
            raise _not_alone(kind, f"the plant does not run on a cache ({error})") from error
        finally:
            for handle in handles:
                handle.remove()
    return calls, cache


def _marked(given: Any, cache: Any) -> Any:
    """The arguments with the cache marked, since each call alone brings its own."""
    if isinstance(given, tuple):
        return tuple(CACHE if part is cache else part for part in given)
    return {name: CACHE if part is cache else part for name, part in given.items()}


def _cast(given: Any, dtype: torch.dtype) -> Any:
    if isinstance(given, Tensor):
        return given.to(dtype) if given.is_floating_point() else given
    if isinstance(given, (tuple, list)):
        return type(given)(_cast(part, dtype) for part in given)
    if isinstance(given, dict):
        return {name: _cast(part, dtype) for name, part in given.items()}
    return given


def _checked(frozen: Frozen, kind: str) -> Frozen:
    """The block, once it gives what it gave in the plant's own pass; the faster way of attending where that does."""
    with suppress(PlantError):
        return _check(replace(frozen, apart=True), kind)
    return _check(frozen, kind)


def _check(frozen: Frozen, kind: str) -> Frozen:
    try:
        with torch.no_grad():
            again = frozen(frozen.state)
    except (TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise _not_alone(kind, f"block {frozen.layer} fails when it is called again ({error})") from error
    scale = frozen.output.float().norm()
    off = float((again - frozen.output).float().norm() / scale.clamp(min=torch.finfo(torch.float32).tiny))
    if not off <= 100 * torch.finfo(frozen.output.dtype).eps:
        raise _not_alone(kind, f"block {frozen.layer} gives something else when it is called again (off by {off:.1e})")
    return frozen


def _not_alone(kind: str, why: str) -> PlantError:
    return PlantError(
        f"{kind}: the blocks of this architecture cannot be called alone: {why}. Expected a decoder whose blocks take "
        "(state, cache of keys and values). Fix: another plant; its Jacobians cannot be had with the context frozen."
    )


def resolved(plant: Plant, layer: Any) -> int:
    """A layer of the plant, counted from the first.

    Raises:
        PlantError: if it does not exist.
    """
    if isinstance(layer, bool) or not isinstance(layer, int) or not -plant.depth <= layer < plant.depth:
        raise PlantError(f"layer: got {layer!r}, expected an integer from {-plant.depth} to {plant.depth - 1}.")
    return layer % plant.depth
