"""Read the parts of a block of known shape off its module, so that its Jacobian is a product of weights.

Two shapes are known: Llama's (also Mistral's and Qwen2's), and GPT-2's. Knows the names of parts in these families;
knows no mathematics, which is in `steerlib.control.products`. What is read here is trusted only where the parts, put
together again, give the output of the block itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlib.blocks import Frozen
from steerlib.control.products import Affine, Attention, Context, Mlp, Norm, Shape, block_jacobian
from steerlib.errors import PlantError


def shape_of(block: nn.Module) -> Shape | None:
    """The parts of a block, or None if its family is not known here."""
    known = _KNOWN.get(type(block).__name__)
    return None if known is None else known(block)


def by_products(
    frozen: Frozen, state: Float[Tensor, "rows width"], *, memory: int, average: bool = False
) -> Float[Tensor, "*rows width width"]:
    """Jacobian of a frozen block of known shape at given states, formed by matrix products.

    Args:
        frozen: the block.
        state: where to differentiate, in the precision of the block.
        memory: bytes that the rows under way may take; at least one row is.
        average: give the mean over rows.

    Raises:
        PlantError: if the family of the block is not known here, or its parts do not give its own output.
    """
    kind, shape = type(frozen.block).__name__, shape_of(frozen.block)
    if shape is None:
        known = ", ".join(sorted(_KNOWN))
        raise PlantError(f"route 'products': got a {kind}, known are {known}. Fix: route='reverse' or 'auto'.")
    found: list[Tensor] = []
    with torch.no_grad():
        context, size = _context(frozen), max(1, memory // (shape.numbers * state.element_size()))
        expected = frozen.output if state is frozen.state else frozen(state)
        for start in range(0, len(state), size):
            rows = slice(start, start + size)
            output, made = block_jacobian(shape, state[rows], _rows(context, rows))
            off = float((output - expected[rows]).norm() / expected[rows].norm())
            if not off <= 1000 * torch.finfo(state.dtype).eps:
                raise PlantError(
                    f"route 'products': the parts of a {kind} give something else than the block itself (off by "
                    f"{off:.1e}). Fix: route='reverse'; this variant of the family is not the one known here."
                )
            found.append(made.sum(0) if average else made)
    return torch.stack(found).sum(0) / len(state) if average else torch.cat(found)


def _context(frozen: Frozen) -> Context:
    """Mask and rotation as the plant handed them to the block."""
    given = inspect.signature(frozen.block.forward).bind(None, *frozen.args, **frozen.kwargs).arguments
    given = {**given, **given.pop("kwargs", {})}
    rows, _, before, _ = frozen.keys.shape
    bias, mask = None, given.get("attention_mask")
    if mask is not None:
        seen = mask[:, 0, -1, : before + 1].expand(rows, -1)
        bias = torch.where(seen, 0.0, -torch.inf).to(frozen.keys.dtype) if seen.dtype == torch.bool else seen
    rotation = None
    if given.get("position_embeddings") is not None:
        cos, sin = (part[:, -1].expand(rows, -1) for part in given["position_embeddings"])
        size = cos.shape[-1]
        half = torch.eye(size, dtype=cos.dtype, device=cos.device).roll(size // 2, 1)
        half[: size // 2] *= -1  # (x1, x2) -> (-x2, x1)
        rotation = torch.diag_embed(cos) + sin[:, :, None] * half
    return Context(frozen.keys, frozen.values, bias, rotation)


def _rows(context: Context, rows: slice) -> Context:
    bias = None if context.bias is None else context.bias[rows]
    rotation = None if context.rotation is None else context.rotation[rows]
    return Context(context.keys[rows], context.values[rows], bias, rotation)


def _llama(block: Any) -> Shape:
    attention, mlp = block.self_attn, block.mlp
    parts = (_linear(getattr(attention, f"{name}_proj")) for name in "qkvo")
    heads = attention.q_proj.out_features // attention.head_dim
    return Shape(
        _rms(block.input_layernorm),
        Attention(*parts, heads=heads, scaling=attention.scaling),
        _rms(block.post_attention_layernorm),
        Mlp(_linear(mlp.up_proj), _linear(mlp.down_proj), mlp.act_fn, gate=_linear(mlp.gate_proj)),
    )


def _gpt2(block: Any) -> Shape:
    attention, mlp = block.attn, block.mlp
    weights, biases = attention.c_attn.weight.T.chunk(3), attention.c_attn.bias.chunk(3)
    query, key, value = (Affine(w, b) for w, b in zip(weights, biases, strict=True))
    out = _conv(attention.c_proj)
    return Shape(
        _layer_norm(block.ln_1),
        Attention(query, key, value, out, heads=attention.num_heads, scaling=attention.scaling),
        _layer_norm(block.ln_2),
        Mlp(_conv(mlp.c_fc), _conv(mlp.c_proj), mlp.act),
    )


def _linear(module: Any) -> Affine:
    return Affine(module.weight, module.bias)


def _conv(module: Any) -> Affine:
    return Affine(module.weight.T, module.bias)


def _rms(module: Any) -> Norm:
    return Norm(module.weight, module.variance_epsilon)


def _layer_norm(module: Any) -> Norm:
    return Norm(module.weight, module.eps, module.bias, centred=True)


_KNOWN: dict[str, Callable[[nn.Module], Shape]] = {
    "LlamaDecoderLayer": _llama,
    "MistralDecoderLayer": _llama,
    "Qwen2DecoderLayer": _llama,
    "GPT2Block": _gpt2,
}
