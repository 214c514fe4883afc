"""Attention to the keys and values of an earlier layer as ONNX operators.

Shape legend: B batch, N tokens of all rows, T queries, S keys, H query heads, G key/value heads, D head
dimension, x heads * D.
"""

from __future__ import annotations

import onnx_ir as ir

from roots_compress.export.builder import MICROSOFT
from roots_compress.export.compact import Compact
from roots_compress.export.ops.attention import query_norm, rotated, split_heads
from roots_compress.export.ops.fused_attention import KeyValue
from roots_compress.export.shared import Shared
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.attention import Attention


def taking_attention(
    matrices: Matrices, shared: Shared, op: Attention, module: str, x_NW: ir.Value, given: KeyValue
) -> ir.Value:
    """Return an attention's output, `NW`, for the keys and values `BGSD` in the giving layer's cache."""
    builder, norm = matrices.builder, op.qk_norm
    compact = shared.compact
    if compact is not None:  # See `self_attention`.
        matrices.scale_output(f"{module}.{'q_proj' if norm is None else 'q_norm'}", op.factor)
    query = matrices.linear(f"{module}.q_proj", x_NW)
    if norm is not None:
        query = query_norm(matrices, norm, f"{module}.q_norm", query, op.heads, op.head_dim)
    query_BTx = shared.rows(query)
    if compact is not None:
        context_BTx = _fused(matrices, shared, compact, op, query_BTx, given)
    else:
        if op.rope is not None:
            query_BTx = rotated(builder, shared, op, query_BTx, op.heads)
        query_BHTD = split_heads(builder, query_BTx, op.heads, op.head_dim)
        bias_B1TS = shared.bias_B1TS[op.window, op.causal]
        context_BHTD = builder.op("Attention", query_BHTD, *given, bias_B1TS, scale=op.factor)
        context_BTx = builder.op("Transpose", context_BHTD, perm=[0, 2, 1, 3])
    context_Nx = builder.op("Reshape", context_BTx, builder.integers(-1, op.heads * op.head_dim))
    return matrices.linear(f"{module}.o_proj", context_Nx)


def _fused(
    matrices: Matrices,
    shared: Shared,
    compact: Compact,
    op: Attention,
    query_BTx: ir.Value,
    given: KeyValue,
) -> ir.Value:
    """Attend by the fused operator, which adds nothing to a cache if it gets no new keys."""
    builder = matrices.builder
    nothing_B0x = shared.no_keys(op.kv_heads * op.head_dim)
    inputs: list[ir.Value | None] = [
        query_BTx,
        nothing_B0x,
        nothing_B0x,
        *given,
        compact.last_B,
        compact.slots,
    ]
    if op.rope is not None:
        inputs += (*compact.cos_sin[op.rope, op.head_dim], compact.position_ids_BT)
    return builder.op(
        "GroupQueryAttention",
        *inputs,
        domain=MICROSOFT,
        num_heads=op.heads,
        kv_num_heads=op.kv_heads,
        scale=1.0,
        do_rotary=int(op.rope is not None),
        local_window_size=-1 if op.window is None else op.window,
    )
