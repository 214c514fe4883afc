"""An encoder's attention as ONNX operators, and its shared part with a decoder after an encoder.

Shape legend: B batch, T tokens, N tokens of all rows, H query heads, x heads * D.
"""

from __future__ import annotations

import onnx_ir as ir

from roots_compress.export.builder import MICROSOFT
from roots_compress.export.ops.attention import query_norm
from roots_compress.export.ops.fused_attention import capped, turned
from roots_compress.export.relative import Distances
from roots_compress.export.rotations import CosSin
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.attention import Attention


def encoder_attention(
    matrices: Matrices,
    op: Attention,
    module: str,
    x_NW: ir.Value,
    shape_BTx: ir.Value,
    mask_BT: ir.Value,
    bias_B1TT: ir.Value,
    distances: Distances,
    angles: CosSin | None,
) -> ir.Value:
    """Return the output of an attention over a whole text, `NW`.

    Args:
        op: one that sees every token, or earlier ones only, possibly within a window.
        mask_BT: 1 at tokens.
        bias_B1TT: 0 at tokens, lowest at padding.
        distances: biases by distances and windows.
    """
    builder = matrices.builder
    query, key, value = projected(matrices, op, module, x_NW, shape_BTx, angles)
    terms = [distances.added(op, module), distances.met(op, module, query, key)]
    added = [each for each in terms if each is not None]
    if len(added) > 1:
        added = [builder.op("Add", *added)]
    unlike = op.heads != op.kv_heads or op.softcap is not None
    if builder.portable or builder.dtype != ir.DataType.FLOAT or unlike:
        context_BTx = builder.op(
            "Attention",
            query,
            key,
            value,
            builder.op("Add", bias_B1TT, *added) if added else bias_B1TT,
            scale=op.factor,
            q_num_heads=op.heads,
            kv_num_heads=op.kv_heads,
            is_causal=int(op.causal),
            **capped(op.softcap),
        )
    else:
        seen_BT = builder.cast(mask_BT, ir.DataType.INT32)
        context_BTx = builder.op(
            "MultiHeadAttention",
            query,
            key,
            value,
            None,
            seen_BT,
            *added,
            domain=MICROSOFT,
            num_heads=op.heads,
            scale=op.factor,
            unidirectional=int(op.causal),
        )
    context_Nx = builder.op("Reshape", context_BTx, builder.integers(-1, op.heads * op.head_dim))
    return matrices.linear(f"{module}.o_proj", context_Nx)


def projected(
    matrices: Matrices,
    op: Attention,
    module: str,
    x_NW: ir.Value,
    shape_BTx: ir.Value,
    angles: CosSin | None,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return queries, keys and values, `BTx`, normed and with rotary positions."""
    builder = matrices.builder
    query, key, value = (matrices.linear(f"{module}.{part}_proj", x_NW) for part in "qkv")
    if op.qk_norm is not None:
        query = query_norm(matrices, op.qk_norm, f"{module}.q_norm", query, op.heads, op.head_dim)
        key = query_norm(matrices, op.qk_norm, f"{module}.k_norm", key, op.kv_heads, op.head_dim)
    query, key, value = (builder.op("Reshape", each, shape_BTx) for each in (query, key, value))
    if angles is not None:
        assert op.rope is not None
        query, key = (
            builder.op("RotaryEmbedding", x_BTx, *angles, num_heads=count, **turned(op.rope))
            for x_BTx, count in ((query, op.heads), (key, op.kv_heads))
        )
    return query, key, value
