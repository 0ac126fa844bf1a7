"""Find the parts of any Hugging Face causal language model: its blocks and its final norm.

Knows where the parts of a transformer are by their structure, not by the name of the architecture, and those inside
a block by following one small pass through it; knows nothing about laws, tokens or text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from steerlib.errors import PlantError


@dataclass(frozen=True)
class Anatomy:
    """The parts of a causal language model that control needs.

    Attributes:
        blocks: the residual blocks, in order of depth.
        blocks_name: their dotted name in the model.
        final_norm: the norm between the last block and the unembedding, or None if there is none.
        width: size of the residual stream.
        heads: attention heads of a block.
    """

    blocks: nn.ModuleList
    blocks_name: str
    final_norm: nn.Module | None
    width: int
    heads: int

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)


def find_anatomy(model: PreTrainedModel) -> Anatomy:
    """Locate blocks and final norm.

    The blocks are the one `ModuleList` whose length is the configured number of layers and whose members are
    the deepest repeated part; the final norm is the norm that stands beside it, after it.

    Raises:
        PlantError: if no list, or more than one unnested list, fits.
    """
    text_config = model.config.get_text_config(decoder=True)
    depth = text_config.num_hidden_layers
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    # A list inside a block (experts, heads) can have the same length by chance: keep the outermost.
    outer = [(n, m) for n, m in lists if not any(n != other and n.startswith(other + ".") for other, _ in lists)]
    if len(outer) != 1:
        found = ", ".join(name for name, _ in outer) or "none"
        raise PlantError(
            f"{type(model).__name__}: expected exactly one list of {depth} blocks, found {found}. "
            "Fix: steerlib needs a decoder with a single stack of residual blocks."
        )
    name, blocks = outer[0]
    parent = model.get_submodule(name.rpartition(".")[0])
    return Anatomy(blocks, name, _norm_after(parent, blocks), text_config.hidden_size, text_config.num_attention_heads)


def _norm_after(parent: nn.Module, blocks: nn.ModuleList) -> nn.Module | None:
    """The first norm defined after the blocks among the children of their parent."""
    children = list(parent.children())
    after = children[[child is blocks for child in children].index(True) + 1 :]
    norms = [child for child in after if "norm" in type(child).__name__.lower()]
    if norms:
        return norms[0]
    # OPT defines its norm before the blocks; an embedding norm (Falcon, Bloom) is told by its name.
    before = [
        child
        for name, child in parent.named_children()
        if "norm" in type(child).__name__.lower() and "embed" not in name and child is not blocks
    ]
    return before[-1] if before else None


@dataclass(frozen=True)
class BlockParts:
    """What stands inside a block, as far as its data could be followed.

    Attributes:
        projection: maps the outputs of all attention heads back into the residual stream.
        attn_norm: the norm whose output attention reads.
        mlp_norm: the norm whose output the MLP reads.
    """

    projection: nn.Module | None
    attn_norm: nn.Module | None
    mlp_norm: nn.Module | None

    def norm(self, point: str) -> nn.Module | None:
        """The norm of a point."""
        return self.attn_norm if point == "attn_norm" else self.mlp_norm

    @property
    def heads_width(self) -> int:
        """Size of the outputs of all heads together."""
        size = getattr(self.projection, "in_features", None)
        return int(size if size is not None else self.projection.weight.shape[0])  # type: ignore[union-attr, arg-type]

    def lacks(self, point: str) -> str | None:
        """Why a law cannot act at a point inside this block, or None if it can."""
        if point == "heads":
            return None if self.projection is not None else "found no attention whose output is one projection."
        if self.norm(point) is None:
            reader = "attention" if point == "attn_norm" else "the MLP"
            return f"this block has no norm whose output {reader} reads. Fix: use resid_pre or resid_post."
        if self.attn_norm is self.mlp_norm and point == "mlp_norm":
            return "one norm serves attention and MLP here. Fix: use attn_norm, which acts on both."
        return None


def follow(model: PreTrainedModel, anatomy: Anatomy) -> tuple[BlockParts, ...]:
    """Find what stands inside the blocks by following a pass of one token.

    A norm belongs to attention, or to the MLP, if what it gives is what that module gets: the same memory. The
    projection is the module with weights that gives what attention gives. Guessing by order or name would take a norm
    after attention for one before the MLP in some families.
    """
    handles: list[Any] = []
    watched = [_Watch(block, handles) for block in anatomy.blocks]
    try:
        device: Any = model.get_input_embeddings().weight.device  # type: ignore[union-attr]
        with torch.inference_mode():
            model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(watch.parts() for watch in watched)


class _Watch:
    """What goes into and comes out of the parts of one block; tensors are kept, so that memory is not used twice."""

    def __init__(self, block: nn.Module, handles: list[Any]) -> None:
        self.got: dict[nn.Module, Tensor] = {}
        self.gave: dict[nn.Module, Tensor] = {}
        children = list(block.children())
        self.norms = [child for child in children if "norm" in type(child).__name__.lower()]
        self.attention = next((child for child in children if "attention" in type(child).__name__.lower()), None)
        self.others = [child for child in children if child not in self.norms and child is not self.attention]
        inner = [m for m in self.attention.modules() if m is not self.attention] if self.attention is not None else []
        self.weighted = [module for module in inner if getattr(module, "weight", None) is not None]
        for module in {*children, *self.weighted}:
            handles.append(module.register_forward_pre_hook(self._into, with_kwargs=True))
            handles.append(module.register_forward_hook(self._out_of))

    def _into(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found = args[0] if args else kwargs.get("hidden_states", kwargs.get("input"))
        if isinstance(found, Tensor):
            self.got[module] = found

    def _out_of(self, module: nn.Module, _args: Any, output: Any) -> None:
        found = output[0] if isinstance(output, tuple) else output
        if isinstance(found, Tensor):
            self.gave[module] = found

    def parts(self) -> BlockParts:
        def feeds(readers: list[nn.Module]) -> Callable[[nn.Module], bool]:
            read = {_memory(self.got[reader]) for reader in readers if reader in self.got}
            return lambda norm: norm in self.gave and _memory(self.gave[norm]) in read

        norms = [next(filter(feeds(readers), self.norms), None) for readers in ([self.attention], self.others)]  # type: ignore[list-item]
        projection = None
        if self.attention in self.gave:
            given = _memory(self.gave[self.attention])
            projection = next((m for m in self.weighted if m in self.gave and _memory(self.gave[m]) == given), None)
        return BlockParts(projection, *norms)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
