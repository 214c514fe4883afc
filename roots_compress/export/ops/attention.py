"""Self-attention as ONNX operators: fused, and by standard operators dense and top-m.

Block-sparse attention is in `block_attention.py`; here are its caches.

Shape legend as in `models/attention.py`: B batch, N tokens of all rows, T queries, S keys (cached ones
first), H query heads, G key/value heads, R = H / G, D head dimension, M keys chosen.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from roots_compress.export.builder import GraphBuilder
from roots_compress.export.compact import Compact
from roots_compress.export.norms import by_head, rms_norm
from roots_compress.export.ops.block_attention import block_attention, grouped_product
from roots_compress.export.ops.fused_attention import (
    CacheScales,
    Heads,
    KeyValue,
    Packed,
    capped,
    fused_attention,
    turned,
    turned_parts,
)
from roots_compress.export.ops.latent import of_latent, without_zeros
from roots_compress.export.shared import Shared
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.attention import Attention, BlockSparse, QkNorm
from roots_compress.models.quantized import has_int8_cache
from roots_compress.runtime.onnx.session import PAST_MEANS


def self_attention(
    matrices: Matrices, shared: Shared, op: Attention, module: str, x_NW: ir.Value, past: KeyValue
) -> tuple[ir.Value, KeyValue]:
    """Return the output of a module's attention, `NW`, and the keys and values to cache."""
    builder, norm = matrices.builder, op.qk_norm
    factor = op.factor
    if shared.compact is not None:
        # A single token's products with the keys use the fast vector kernel only if their scale is 1
        # (MLAS, sgemm.cpp). The scale is folded into queries instead; the rotary positions after it only
        # rotate them.
        matrices.scale_output(f"{module}.{'q_proj' if norm is None else 'q_norm'}", factor)
        factor = 1.0
    normed_last = norm is not None and norm.after_rope
    rope = None if normed_last else op.rope
    sinks = matrices.vector(f"{module}.sinks") if op.sinks else None
    heads = Heads(op.heads, op.kv_heads, op.head_dim, factor, op.window, rope, op.softcap, sinks)
    projections = [f"{module}.{name}" for name in ("q_proj", *op.made)]
    scales = None
    if has_int8_cache(matrices.config):
        scales = CacheScales(
            *(matrices.vector(f"{module}.cache_rounding.{part}_scale") for part in ("key", "value"))
        )
    joinable = op.latent is None and norm is None and matrices.joinable(projections)
    if shared.compact is not None and joinable:
        rows: Packed = shared.rows(matrices.linear(projections, x_NW)), None, None
    else:
        if op.latent is None:
            query, key, *others = (matrices.linear(name, x_NW) for name in projections)
            value = others[0] if others else key
        else:
            query, key, value = of_latent(matrices, op, op.latent, module, x_NW, shared.leading)
        if normed_last:
            query, key = (
                rotated(builder, shared, op, shared.rows(x), heads)
                for x, heads in ((query, op.heads), (key, op.kv_heads))
            )
        if norm is not None:
            of_query, of_key = ((count, op.head_dim, shared.leading) for count in (op.heads, op.kv_heads))
            query = query_norm(matrices, norm, f"{module}.q_norm", query, *of_query)
            key = query_norm(matrices, norm, f"{module}.k_norm", key, *of_key)
            if norm.values:
                value = by_head(builder, value, builder.filled(op.head_dim, 1), norm.eps, *of_key)
        rows = shared.rows(query), shared.rows(key), shared.rows(value)
    if shared.compact is None:
        context_BTx, present = _standard(builder, shared, op, rows, past, heads)
    elif isinstance(op.sparse, BlockSparse):
        context_BTx, present = _block_sparse(
            builder, shared, shared.compact, op.sparse, module, rows, past, heads
        )
    else:
        context_BTx, present = fused_attention(builder, shared.compact, rows, past, heads, scales)
    context_Nx = shared.flat(context_BTx, op.heads * op.head_dim)
    context_Nx = without_zeros(builder, op, context_Nx, shared.leading)
    if op.gated:
        gate_Nx = builder.op("Sigmoid", matrices.linear(f"{module}.gate_proj", x_NW))
        context_Nx = builder.op("Mul", context_Nx, gate_Nx)
    return matrices.linear(f"{module}.o_proj", context_Nx), present


def _standard(
    builder: GraphBuilder,
    shared: Shared,
    op: Attention,
    query_key_value_BTx: Packed,
    past: KeyValue,
    heads: Heads,
) -> tuple[ir.Value, KeyValue]:
    """Attend by standard operators, densely or sparsely, over a cache that grows by concatenation."""
    query_BTx, key_BTx, value_BTx = query_key_value_BTx
    assert key_BTx is not None
    assert value_BTx is not None
    sees = op.window, op.causal
    if heads.rope is not None:
        query_BTx = rotated(builder, shared, op, query_BTx, op.heads)
        key_BTx = rotated(builder, shared, op, key_BTx, op.kv_heads)
    if op.sparse is None and not op.sinks:
        return _dense(builder, query_BTx, key_BTx, value_BTx, shared.bias_B1TS[sees], past, heads)
    query_BHTD = split_heads(builder, query_BTx, op.heads, op.head_dim)
    present = KeyValue(
        *(
            builder.op("Concat", cached, split_heads(builder, new_BTx, op.kv_heads, op.head_dim), axis=2)
            for cached, new_BTx in zip(past, (key_BTx, value_BTx), strict=True)
        )
    )
    if isinstance(op.sparse, BlockSparse):
        scaled_BHTD = builder.op("Mul", query_BHTD, builder.floats(heads.scale))
        blocks = shared.blocks[op.window, op.sparse.size]
        context_BTx, _means = block_attention(
            builder, blocks, scaled_BHTD, present, None, heads, op.sparse.blocks
        )
        return context_BTx, present
    keys = None if op.sparse is None else op.sparse.keys
    context_BHTD = _by_scores(builder, query_BHTD, present, shared.bias_B1TS[sees], heads, keys)
    return builder.op("Transpose", context_BHTD, perm=[0, 2, 1, 3]), present


def _block_sparse(
    builder: GraphBuilder,
    shared: Shared,
    compact: Compact,
    sparse: BlockSparse,
    module: str,
    packed: Packed,
    past: KeyValue,
    heads: Heads,
) -> tuple[ir.Value, KeyValue]:
    """Attend to blocks of keys over a cache that may be one buffer, into which new tokens are written."""
    query_BTx, *new = turned_parts(builder, compact, packed, heads)
    new_BGTD = [split_heads(builder, each_BTx, heads.key_value, heads.width) for each_BTx in new]
    index_BGT3 = shared.cache_index(heads.key_value)
    slots_1, axis = builder.op("Unsqueeze", shared.slots.capacity, builder.integers(0)), builder.integers(2)
    held_1 = builder.op("Shape", past.key, start=2, end=3)
    fits = builder.op("Squeeze", builder.op("Equal", held_1, slots_1))
    presents: list[list[ir.Value]] = []
    with builder.body("in_place") as in_place:
        presents.append([])
        for cached, each in zip(past, new_BGTD, strict=True):
            presents[-1].append(builder.op("ScatterND", cached, index_BGT3, each))
    with builder.body("grown") as grown:
        presents.append([])
        for cached, each in zip(past, new_BGTD, strict=True):
            shape = builder.op("Shape", each)
            missing_1 = builder.op("Sub", slots_1, held_1)
            wide_4 = builder.op("ScatterElements", shape, axis, missing_1, axis=0)
            whole = builder.op("Concat", cached, builder.op("ConstantOfShape", wide_4), axis=2)
            presents[-1].append(builder.op("ScatterND", whole, index_BGT3, each))
    for body, values in zip((in_place, grown), presents, strict=True):
        for value in values:
            value.type = ir.TensorType(builder.dtype)
        body.outputs.extend(values)
    present = KeyValue(*builder.op_outputs("If", (fits,), 2, then_branch=in_place, else_branch=grown))
    names: list[int | str] = ["batch_size", heads.key_value, "blocks", heads.width]
    given = np.zeros((1, heads.key_value, 0, heads.width), dtype=builder.dtype.numpy())
    means = builder.optional_input(PAST_MEANS + module, given, names)
    context_BTx, means_BGCD = block_attention(
        builder,
        shared.blocks[heads.window, sparse.size],
        split_heads(builder, query_BTx, heads.query, heads.width),
        present,
        means,
        heads,
        sparse.blocks,
    )
    shared.block_means[module] = means_BGCD, names
    return context_BTx, present


def rotated(builder: GraphBuilder, shared: Shared, op: Attention, x_BTx: ir.Value, heads: int) -> ir.Value:
    """Return queries or keys of this many heads, with rotary positions."""
    assert op.rope is not None
    turning = op.rope, op.head_dim
    compact = shared.compact
    if compact is None:
        angles: tuple[ir.Value, ...] = shared.cos_sin[turning]
    else:
        angles = (*compact.cos_sin[turning], compact.position_ids_BT)
    return builder.op("RotaryEmbedding", x_BTx, *angles, num_heads=heads, **turned(op.rope))


def query_norm(
    matrices: Matrices,
    norm: QkNorm,
    module: str,
    x: ir.Value,
    heads: int,
    width: int,
    leading: tuple[int, ...] = (-1,),
) -> ir.Value:
    """Return queries or keys normed over each head, or over all heads of a token at once; see `by_head`."""
    builder, weight = matrices.builder, matrices.vector(module + ".weight")
    if norm.over == "projection":
        return rms_norm(builder, x, weight, norm.eps)
    return by_head(builder, x, weight, norm.eps, heads, width, leading)


def split_heads(builder: GraphBuilder, x_BTx: ir.Value, heads: int, width: int) -> ir.Value:
    """Return `(B, heads, T, width)`."""
    split = builder.op("Reshape", x_BTx, builder.integers(0, 0, heads, width))
    return builder.op("Transpose", split, perm=[0, 2, 1, 3])


def _dense(
    builder: GraphBuilder,
    query_BTx: ir.Value,
    key_BTx: ir.Value,
    value_BTx: ir.Value,
    bias_B1TS: ir.Value,
    past: KeyValue,
    heads: Heads,
) -> tuple[ir.Value, KeyValue]:
    context_BTx, key_BGSD, value_BGSD = builder.op_outputs(
        "Attention",
        (query_BTx, key_BTx, value_BTx, bias_B1TS, *past),
        3,
        scale=heads.scale,
        q_num_heads=heads.query,
        kv_num_heads=heads.key_value,
        **capped(heads.softcap),
    )
    return context_BTx, KeyValue(key_BGSD, value_BGSD)


def _by_scores(
    builder: GraphBuilder,
    query_BHTD: ir.Value,
    present: KeyValue,
    bias_B1TS: ir.Value,
    heads: Heads,
    top_m: int | None,
) -> ir.Value:
    """Attend to the `top_m` highest-scoring visible keys of each query and head; see `top_m_attention`.

    Without `top_m` attend to all keys, with the heads' sinks; see `explicit_attention`.
    """
    key_BGDS = builder.op("Transpose", present.key, perm=[0, 1, 3, 2])
    scaled_BHTD = builder.op("Mul", query_BHTD, builder.floats(heads.scale))
    scores_BHTS = builder.op("Add", grouped_product(builder, scaled_BHTD, key_BGDS, heads), bias_B1TS)
    if top_m is None:
        assert heads.sinks is not None
        rows_3 = builder.op("Shape", query_BHTD, end=3)
        shape = builder.op("Concat", rows_3, builder.integers(1), axis=0)
        sinks_H11 = builder.op("Unsqueeze", heads.sinks, builder.integers(1, 2))
        all_BHTs = builder.op("Concat", scores_BHTS, builder.op("Expand", sinks_H11, shape), axis=3)
        weights_BHTs = builder.op("Softmax", all_BHTs, axis=-1)
        weights_BHTS = builder.op(
            "Slice", weights_BHTs, builder.integers(0), builder.integers(-1), builder.integers(3)
        )
        return grouped_product(builder, weights_BHTS, present.value, heads)
    keys = builder.op("Min", builder.op("Shape", scores_BHTS, start=3), builder.integers(top_m))
    best_BHTM, index_BHTM = builder.op_outputs("TopK", (scores_BHTS, keys), 2, axis=-1)
    weights_BHTM = builder.op("Softmax", best_BHTM, axis=-1)
    nothing_BHTS = builder.op("Sub", bias_B1TS, bias_B1TS)
    nothing_BHTS = builder.op("Expand", nothing_BHTS, builder.op("Shape", scores_BHTS))
    weights_BHTS = builder.op("ScatterElements", nothing_BHTS, index_BHTM, weights_BHTM, axis=-1)
    return grouped_product(builder, weights_BHTS, present.value, heads)
