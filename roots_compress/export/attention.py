"""Self-attention as ONNX operators: fused, and by standard operators dense, top-m and block-sparse.

Shape legend as in `models/attention.py`: B batch, N tokens of all rows, T queries, S keys (cached ones
first), H query heads, G key/value heads, R = H / G, D head dimension, C blocks, M keys chosen, K blocks
chosen.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from roots_compress.export.builder import GraphBuilder
from roots_compress.export.frame import Blocks, Frame
from roots_compress.export.fused import CacheScales, Heads, KeyValue, fused_attention
from roots_compress.export.layers import rms_norm
from roots_compress.export.weights import Matrices
from roots_compress.models.quantized import has_int8_cache


def self_attention(
    matrices: Matrices, frame: Frame, index: int, normed_NW: ir.Value, past: KeyValue
) -> tuple[ir.Value, KeyValue]:
    """Return attention's contribution to the residual stream, `NW`, and the keys and values to cache."""
    builder, config, layer = matrices.builder, matrices.config, matrices.config.layers[index]
    width = layer["head_dim"]
    heads = Heads(
        layer["num_attention_heads"],
        layer["num_key_value_heads"],
        width,
        config.attention_scale or width**-0.5,
        layer["sliding_window"],
    )
    module = f"model.layers.{index}.self_attn."
    if frame.compact is not None:
        # A single token's products with the keys take the fast kernel of vectors only where their scale is 1
        # (MLAS, sgemm.cpp). Queries carry it instead; rotary positions, which come after, only turn them.
        matrices.scale_output(module + ("q_norm" if config.qk_norm else "q_proj"), heads.scale)
        heads = heads._replace(scale=1.0)
    projections = [f"{module}{part}_proj" for part in "qkv"]
    scales = None
    if has_int8_cache(config):
        scales = CacheScales(
            *(matrices.vector(f"{module}cache_rounding.{part}_scale") for part in ("key", "value"))
        )
    if frame.compact is not None and not config.qk_norm and matrices.joinable(projections):
        packed_BTx = frame.rows(matrices.linear(projections, normed_NW))
        context_BTx, present = fused_attention(
            builder, frame.compact, (packed_BTx, None, None), past, heads, scales
        )
    else:
        query, key, value = (matrices.linear(name, normed_NW) for name in projections)
        if config.qk_norm:
            query = _head_norm(matrices, module + "q_norm", query, heads.query, width)
            key = _head_norm(matrices, module + "k_norm", key, heads.key_value, width)
        rows = frame.rows(query), frame.rows(key), frame.rows(value)
        if frame.compact is not None:
            context_BTx, present = fused_attention(builder, frame.compact, rows, past, heads, scales)
        else:
            context_BTx, present = _standard(builder, frame, config.attention, rows, past, heads)
    context_Nx = builder.op("Reshape", context_BTx, builder.integers(-1, heads.query * width))
    return matrices.linear(module + "o_proj", context_Nx), present


def _standard(
    builder: GraphBuilder,
    frame: Frame,
    attention: dict[str, Any],
    query_key_value_BTx: tuple[ir.Value, ir.Value, ir.Value],
    past: KeyValue,
    heads: Heads,
) -> tuple[ir.Value, KeyValue]:
    """Attend by standard operators, densely or sparsely, over a cache that grows by concatenation."""
    query_BTx, key_BTx, value_BTx = query_key_value_BTx
    if heads.width in frame.cos_sin:
        angles = frame.cos_sin[heads.width]
        query_BTx = builder.op("RotaryEmbedding", query_BTx, *angles, num_heads=heads.query)
        key_BTx = builder.op("RotaryEmbedding", key_BTx, *angles, num_heads=heads.key_value)
    if attention["kind"] == "dense":
        return _dense(builder, query_BTx, key_BTx, value_BTx, frame.bias_B1TS[heads.window], past, heads)
    query_BHTD = _split(builder, query_BTx, heads.query, heads.width)
    present = KeyValue(
        *(
            builder.op("Concat", cached, _split(builder, new_BTx, heads.key_value, heads.width), axis=2)
            for cached, new_BTx in zip(past, (key_BTx, value_BTx), strict=True)
        )
    )
    if attention["kind"] == "top_m":
        bias_B1TS = frame.bias_B1TS[heads.window]
        context_BHTD = _top_m(builder, query_BHTD, present, bias_B1TS, heads, attention["top_m"])
    else:
        blocks, count = frame.blocks[heads.window], attention["num_blocks"]
        chosen_BHTS = _chosen_keys(builder, query_BHTD, present.key, blocks, heads, count)
        visible_BHTS = builder.op("And", frame.visible_B1TS[heads.window], chosen_BHTS)
        bias_BHTS = frame.bias(visible_BHTS)
        context_BHTD = builder.op("Attention", query_BHTD, *present, bias_BHTS, scale=heads.scale)
    return builder.op("Transpose", context_BHTD, perm=[0, 2, 1, 3]), present


def _head_norm(matrices: Matrices, module: str, x_Nx: ir.Value, heads: int, width: int) -> ir.Value:
    builder = matrices.builder
    x_NHD = builder.op("Reshape", x_Nx, builder.integers(-1, heads, width))
    normed = rms_norm(builder, x_NHD, matrices.vector(module + ".weight"), matrices.config.norm_eps)
    return builder.op("Reshape", normed, builder.integers(-1, heads * width))


def _split(builder: GraphBuilder, x_BTx: ir.Value, heads: int, width: int) -> ir.Value:
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
    )
    return context_BTx, KeyValue(key_BGSD, value_BGSD)


def _grouped_product(
    builder: GraphBuilder, left_BHTx: ir.Value, right_BGxy: ir.Value, heads: Heads
) -> ir.Value:
    """Return `BHTy`, the product of each query head with its group's matrix, which is not repeated for it.

    The R query heads of a group stand beside one another, so their T rows are joined to R * T rows.
    """
    grouped = left_BHTx
    if heads.query != heads.key_value:
        rows = builder.op("Shape", left_BHTx, start=3)
        shape = builder.op("Concat", builder.integers(0, heads.key_value, -1), rows, axis=0)
        grouped = builder.op("Reshape", left_BHTx, shape)
    product = builder.op("MatMul", grouped, right_BGxy)
    if heads.query == heads.key_value:
        return product
    shape = builder.op(
        "Concat",
        builder.integers(0, heads.query),
        builder.op("Shape", left_BHTx, start=2, end=3),
        builder.integers(-1),
        axis=0,
    )
    return builder.op("Reshape", product, shape)


def _top_m(
    builder: GraphBuilder,
    query_BHTD: ir.Value,
    present: KeyValue,
    bias_B1TS: ir.Value,
    heads: Heads,
    top_m: int,
) -> ir.Value:
    """Attend to the `top_m` highest-scoring visible keys of each query and head; see `top_m_attention`."""
    key_BGDS = builder.op("Transpose", present.key, perm=[0, 1, 3, 2])
    scaled_BHTD = builder.op("Mul", query_BHTD, builder.floats(heads.scale))
    scores_BHTS = builder.op("Add", _grouped_product(builder, scaled_BHTD, key_BGDS, heads), bias_B1TS)
    keys = builder.op("Min", builder.op("Shape", scores_BHTS, start=3), builder.integers(top_m))
    best_BHTM, index_BHTM = builder.op_outputs("TopK", (scores_BHTS, keys), 2, axis=-1)
    weights_BHTM = builder.op("Softmax", best_BHTM, axis=-1)
    nothing_BHTS = builder.op("Sub", bias_B1TS, bias_B1TS)
    nothing_BHTS = builder.op("Expand", nothing_BHTS, builder.op("Shape", scores_BHTS))
    weights_BHTS = builder.op("ScatterElements", nothing_BHTS, index_BHTM, weights_BHTM, axis=-1)
    return _grouped_product(builder, weights_BHTS, present.value, heads)


def _chosen_keys(
    builder: GraphBuilder,
    query_BHTD: ir.Value,
    key_BGSD: ir.Value,
    blocks: Blocks,
    heads: Heads,
    num_blocks: int,
) -> ir.Value:
    """Return True at the keys of each query's own block and of its best open ones, `BHTS`.

    Only complete blocks are open, and a sum of keys ranks those as their mean does.
    """
    member_B1CS = builder.op("Unsqueeze", blocks.member_BCS, builder.integers(1))
    total_BGCD = builder.op("MatMul", member_B1CS, key_BGSD)
    total_BGDC = builder.op("Transpose", total_BGCD, perm=[0, 1, 3, 2])
    scores_BHTC = _grouped_product(builder, query_BHTD, total_BGDC, heads)
    lowest = builder.floats(float("-inf"))
    ranked_BHTC = builder.op("Where", blocks.open_B1TC, scores_BHTC, lowest)
    count = builder.op("Min", builder.op("Shape", ranked_BHTC, start=3), builder.integers(num_blocks - 1))
    best_BHTK, index_BHTK = builder.op_outputs("TopK", (ranked_BHTC, count), 2, axis=-1)
    # What is not open may fill up the count; it must not be marked.
    marks_BHTK = builder.cast(builder.op("Greater", best_BHTK, lowest), builder.dtype)
    own_BHTC = builder.op(
        "Expand", builder.cast(blocks.own_B1TC, builder.dtype), builder.op("Shape", ranked_BHTC)
    )
    marks_BHTC = builder.op("ScatterElements", own_BHTC, index_BHTK, marks_BHTK, axis=-1, reduction="max")
    hits_BHTS = builder.op("MatMul", marks_BHTC, member_B1CS)
    return builder.op("Greater", hits_BHTS, builder.floats(0.0))
