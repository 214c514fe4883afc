"""Attentions of a decoder that reads an encoder's output, as ONNX operators over caches that grow by a copy.

Shape legend: B batch, N tokens of all rows, T new tokens, S keys (cached ones first) or tokens of the source,
H query heads, G key/value heads, D head dimension, x heads * D.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from roots_compress.export.builder import MICROSOFT
from roots_compress.export.ops.attention import split_heads
from roots_compress.export.ops.encoder_attention import projected
from roots_compress.export.ops.fused_attention import KeyValue
from roots_compress.export.rotations import CosSin
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.attention import Attention


@dataclass(frozen=True)
class SourceInputs:
    """Data that the cross-attentions of a decoder share."""

    states_NW: ir.Value
    """The encoder's output, of all rows."""
    shape_BSx: ir.Value
    """Batch, tokens of the source, and -1 for the rest."""
    mask_BS: ir.Value
    """int32: 1 at tokens of the source."""
    bias_B1TS: ir.Value
    """0 at tokens of the source, lowest at padding."""
    is_cached: ir.Value
    """Whether the keys and values of the source are given."""


def cached_attention(
    matrices: Matrices,
    op: Attention,
    module: str,
    x_NW: ir.Value,
    shape_BTx: ir.Value,
    added_1HTS: ir.Value | None,
    angles: CosSin | None,
    past: KeyValue,
) -> tuple[ir.Value, KeyValue]:
    """Return the output of a decoder's self-attention, `NW`, and all keys and values.

    Args:
        op: a causal one without a window.
        added_1HTS: the scores' bias by distance.
    """
    assert op.causal, "a decoder's attention to itself is not causal"
    _check_plain(op)
    builder = matrices.builder
    query, key, value = projected(matrices, op, module, x_NW, shape_BTx, angles)
    if _is_fused(matrices, op):
        inputs = (query, key, value, None, None, added_1HTS, *past)
        context_BTx, *present = builder.op_outputs(
            "MultiHeadAttention",
            inputs,
            3,
            domain=MICROSOFT,
            num_heads=op.heads,
            scale=op.factor,
            unidirectional=1,
        )
    else:
        context_BTx, *present = builder.op_outputs(
            "Attention",
            (query, key, value, added_1HTS, *past),
            3,
            scale=op.factor,
            q_num_heads=op.heads,
            kv_num_heads=op.kv_heads,
            is_causal=1,
        )
    return _out(matrices, op, module, context_BTx), KeyValue(*present)


def cross_attention(
    matrices: Matrices,
    op: Attention,
    module: str,
    x_NW: ir.Value,
    shape_BTx: ir.Value,
    source: SourceInputs,
    past: KeyValue,
) -> tuple[ir.Value, KeyValue]:
    """Return the output of an attention to the encoder's output, `NW`, and the source's keys and values.

    If these are given, none are returned: a copy of them would take longer than attending to them.
    """
    _check_plain(op)
    builder = matrices.builder
    query_BTx = builder.op("Reshape", matrices.linear(f"{module}.q_proj", x_NW), shape_BTx)
    with matrices.body("cached") as cached:
        context_BTx = _attended(matrices, op, query_BTx, past, source)
        nothing = builder.integers(0)
        none = [builder.op("Slice", each, nothing, nothing, builder.integers(2)) for each in past]
        builder.give(cached, context_BTx, *none)
    with matrices.body("read") as read:
        new = KeyValue(
            *(
                split_heads(
                    builder,
                    builder.op(
                        "Reshape",
                        matrices.linear(f"{module}.{part}_proj", source.states_NW),
                        source.shape_BSx,
                    ),
                    op.kv_heads,
                    op.head_dim,
                )
                for part in "kv"
            )
        )
        context_BTx = _attended(matrices, op, query_BTx, new, source)
        builder.give(read, context_BTx, *new)
    context_BTx, *present = builder.op_outputs(
        "If", (source.is_cached,), 3, then_branch=cached, else_branch=read
    )
    return _out(matrices, op, module, context_BTx), KeyValue(*present)


def _attended(
    matrices: Matrices, op: Attention, query_BTx: ir.Value, of_source: KeyValue, source: SourceInputs
) -> ir.Value:
    """Attend to the source's keys and values, `BGSD`; return the heads' contexts side by side, `BTx`."""
    builder = matrices.builder
    if _is_fused(matrices, op):
        return builder.op(
            "MultiHeadAttention",
            query_BTx,
            *of_source,
            None,
            source.mask_BS,
            domain=MICROSOFT,
            num_heads=op.heads,
            scale=op.factor,
        )
    query_BHTD = split_heads(builder, query_BTx, op.heads, op.head_dim)
    context_BHTD = builder.op("Attention", query_BHTD, *of_source, source.bias_B1TS, scale=op.factor)
    context_BTHD = builder.op("Transpose", context_BHTD, perm=[0, 2, 1, 3])
    return builder.op("Reshape", context_BTHD, builder.integers(0, 0, op.heads * op.head_dim))


def _out(matrices: Matrices, op: Attention, module: str, context_BTx: ir.Value) -> ir.Value:
    builder = matrices.builder
    context_Nx = builder.op("Reshape", context_BTx, builder.integers(-1, op.heads * op.head_dim))
    return matrices.linear(f"{module}.o_proj", context_Nx)


def _is_fused(matrices: Matrices, op: Attention) -> bool:
    """Return whether ONNX Runtime's operator serves: in float32, with keys for each query head."""
    builder = matrices.builder
    return not builder.portable and builder.dtype == ir.DataType.FLOAT and op.heads == op.kv_heads


def _check_plain(op: Attention) -> None:
    assert op.window is None, "the attention has a window"
    assert op.sparse is None, "the attention is sparse"
    assert op.softcap is None, "the attention's scores are bounded"
