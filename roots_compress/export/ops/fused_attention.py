"""Dense attention as ONNX Runtime's `GroupQueryAttention`, over a cache of floats or of int8.

The operator reads an int8 cache directly, which is faster for a step after a long context, but two to three
times slower for a prompt. So an int8 cache gets two branches: a step attends in integers, and a prompt
attends in floats to the dequantized cache. Both see the same numbers.

Shape legend: B batch, T new tokens, S all tokens, P cached tokens, H query heads, G key/value heads, D head
dimension, x heads * D.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from roots_compress.export.builder import MICROSOFT, Attribute, GraphBuilder
from roots_compress.export.compact import Compact
from roots_compress.models.ops.attention import Rope

INT8 = int(ir.DataType.INT8)
END = int(np.iinfo(np.int64).max)
LEVELS = "cache_levels"
"""Scope of the nodes between floats and levels, which `exact.py` removes."""

Packed = tuple[ir.Value, ir.Value | None, ir.Value | None]
"""Queries, keys and values, `BTx`; or all concatenated in the first."""


class KeyValue(NamedTuple):
    """Cached keys and values of one layer, `BGSD`."""

    key: ir.Value
    value: ir.Value


class CacheScales(NamedTuple):
    """Scales of keys and values in an int8 cache, one a channel, `GD`."""

    key: ir.Value
    value: ir.Value


class Heads(NamedTuple):
    """Widths, scale and window of one layer's attention."""

    query: int
    key_value: int
    width: int
    scale: float
    window: int | None
    """Keys visible to a query, itself included; None for all."""
    rope: Rope | None
    softcap: float | None
    sinks: ir.Value | None = None
    """The attention sink of each query head; None if there is none."""


def fused_attention(
    builder: GraphBuilder,
    compact: Compact,
    packed: Packed,
    past: KeyValue,
    heads: Heads,
    scales: CacheScales | None,
) -> tuple[ir.Value, KeyValue]:
    """Attend over a cache that may be one buffer, into which new keys and values are written.

    With `scales` the cache is in int8, and queries read its rounded values, also of their own tokens.
    """
    if scales is None:
        return _grouped_query(builder, compact, packed, past, heads, rotary=_angles(compact, heads))
    assert compact.place is not None
    with builder.body("step") as step:
        context_BTx, present = _grouped_query(
            builder, compact, packed, past, heads, rotary=_angles(compact, heads), scales=scales
        )
        _give(builder, step, context_BTx, present)
    with builder.body("prompt") as prompt:
        context_BTx, present = _in_floats(builder, compact, packed, past, heads, scales)
        _give(builder, prompt, context_BTx, present)
    context_BTx, *caches = builder.op_outputs(
        "If", (compact.place.is_step,), 3, then_branch=step, else_branch=prompt
    )
    return context_BTx, KeyValue(*caches)


def _give(builder: GraphBuilder, body: ir.Graph, context_BTx: ir.Value, present: KeyValue) -> None:
    builder.give(body, context_BTx, dtype=ir.DataType.FLOAT)
    builder.give(body, *present, dtype=ir.DataType.INT8)


def _angles(compact: Compact, heads: Heads) -> tuple[ir.Value, ...]:
    """Return the operator's rotary tables: none if positions are learned."""
    if heads.rope is None:
        return ()
    return (*compact.cos_sin[heads.rope, heads.width], compact.position_ids_BT)


def _grouped_query(
    builder: GraphBuilder,
    compact: Compact,
    packed: Packed,
    past: KeyValue,
    heads: Heads,
    *,
    rotary: tuple[ir.Value, ...],
    scales: CacheScales | None = None,
) -> tuple[ir.Value, KeyValue]:
    inputs: list[ir.Value | None] = [*packed, *past, compact.last_B, compact.slots]
    inputs += rotary or (None, None, None)
    integers: dict[str, Attribute] = {}
    if scales is not None or heads.sinks is not None:
        inputs += (None, heads.sinks)  # The first input would be an attention bias.
    if scales is not None:
        inputs += scales
        integers = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    context_BTx, key_BGSD, value_BGSD = builder.op_outputs(
        "GroupQueryAttention",
        inputs,
        3,
        domain=MICROSOFT,
        num_heads=heads.query,
        kv_num_heads=heads.key_value,
        scale=heads.scale,
        do_rotary=int(bool(rotary)),
        local_window_size=-1 if heads.window is None else heads.window,
        **capped(heads.softcap),
        **integers,
    )
    return context_BTx, KeyValue(key_BGSD, value_BGSD)


def _in_floats(
    builder: GraphBuilder,
    compact: Compact,
    packed: Packed,
    past: KeyValue,
    heads: Heads,
    scales: CacheScales,
) -> tuple[ir.Value, KeyValue]:
    """Attend to a dequantized int8 cache, and append the new tokens' levels.

    A batch of several rows has no past here, because the operator takes several tokens after a past only in
    one row; so one place serves all rows.
    """
    assert compact.place is not None
    first_1, end_1, _is_step = compact.place
    query_BTx, *new = turned_parts(builder, compact, packed, heads)
    read, floats, presents = [], [], []
    begin, axis, far = builder.integers(0), builder.integers(2), builder.integers(END)
    for x_BTx, cached_BGSD, scale_GD in zip(new, past, scales, strict=True):
        past_BGPD = builder.op("Slice", cached_BGSD, begin, first_1, axis)
        rest = builder.op("Slice", cached_BGSD, end_1, far, axis)
        with builder.scope(LEVELS):
            # With a scale for each channel, QuantizeLinear and DequantizeLinear go element by element.
            scale_x = builder.op("Reshape", scale_GD, builder.integers(-1))
            scale_G1D = builder.op("Unsqueeze", scale_GD, builder.integers(1))
            scaled_BTx = builder.op("Div", x_BTx, scale_x)
            levels_BTx = builder.op("QuantizeLinear", scaled_BTx, builder.float32(1.0), output_dtype=INT8)
            read.append(builder.op("Mul", builder.cast(levels_BTx, ir.DataType.FLOAT), scale_x))
            floats.append(builder.op("Mul", builder.cast(past_BGPD, ir.DataType.FLOAT), scale_G1D))
        split = builder.op("Reshape", levels_BTx, builder.integers(0, 0, heads.key_value, heads.width))
        new_BGTD = builder.op("Transpose", split, perm=[0, 2, 1, 3])
        presents.append(builder.op("Concat", past_BGPD, new_BGTD, rest, axis=2))
    slots = builder.cast(builder.op("Squeeze", end_1), ir.DataType.INT32)
    context_BTx, _floats = _grouped_query(
        builder,
        replace(compact, slots=slots),
        (query_BTx, read[0], read[1]),
        KeyValue(*floats),
        heads,
        rotary=(),
    )
    return context_BTx, KeyValue(*presents)


def turned_parts(
    builder: GraphBuilder, compact: Compact, packed: Packed, heads: Heads
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return queries, keys and values apart, `BTx`, rotary positions applied to the first two."""
    query_BTx, key_BTx, value_BTx = packed
    if key_BTx is None or value_BTx is None:
        widths = builder.integers(*(count * heads.width for count in (heads.query, *[heads.key_value] * 2)))
        query_BTx, key_BTx, value_BTx = builder.op_outputs("Split", (query_BTx, widths), 3, axis=-1)
    if heads.rope is not None:
        query_BTx, key_BTx = (
            builder.op(
                "RotaryEmbedding", x_BTx, *_angles(compact, heads), num_heads=count, **turned(heads.rope)
            )
            for x_BTx, count in ((query_BTx, heads.query), (key_BTx, heads.key_value))
        )
    return query_BTx, key_BTx, value_BTx


def turned(rope: Rope) -> dict[str, Any]:
    """Return the attribute of `RotaryEmbedding` for the number of rotated channels, if not all are."""
    return {} if rope.rotary_dim is None else {"rotary_embedding_dim": rope.rotary_dim}


def capped(softcap: float | None) -> dict[str, Any]:
    """Return the softcap attribute of attention operators, if scores have a softcap."""
    return {} if softcap is None else {"softcap": softcap}
