"""Find the parts of any Hugging Face causal language model: its blocks and its final norm.

Knows where the parts of a transformer are by their structure, not by the name of the architecture;
knows nothing about hooks, tokens or text.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
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
    """

    blocks: nn.ModuleList
    blocks_name: str
    final_norm: nn.Module | None
    width: int

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
    return Anatomy(blocks, name, _norm_after(parent, blocks), text_config.hidden_size)


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
