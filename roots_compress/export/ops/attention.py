"""Self-attention as ONNX operators: fused, and by standard operators dense, top-m and block-sparse.

Shape legend as in `models/attention.py`: B batch, N tokens of all rows, T queries, S keys (cached ones
first), H query heads, G key/value heads, R = H / G, D head dimension, C blocks, M keys chosen, K blocks
chosen.
"""

from __future__ import annotations

import onnx_ir as ir

from roots_compress.export.builder import MICROSOFT, GraphBuilder
from roots_compress.export.norms import rms_norm
from roots_compress.export.ops.fused_attention import (
    CacheScales,
    Heads,
    KeyValue,
    capped,
    fused_attention,
    turned,
)
from roots_compress.export.shared import Blocks, Shared
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.attention import Attention, QkNorm, TopM
from roots_compress.models.quantized import has_int8_cache


def self_attention(
    matrices: Matrices, shared: Shared, op: Attention, module: str, x_NW: ir.Value, past: KeyValue
) -> tuple[ir.Value, KeyValue]:
    """Return what the attention of a module gives, `NW`, and the keys and values to cache."""
    builder, norm = matrices.builder, op.qk_norm
    factor = op.factor
    if shared.compact is not None:
        # A single token's products with the keys take the fast kernel of vectors only where their scale is 1
        # (MLAS, sgemm.cpp). Queries carry it instead; rotary positions, which come after, only turn them.
        matrices.scale_output(f"{module}.{'q_proj' if norm is None else 'q_norm'}", factor)
        factor = 1.0
    heads = Heads(op.heads, op.kv_heads, op.head_dim, factor, op.window, op.rope, op.softcap)
    projections = [f"{module}.{part}_proj" for part in "qkv"]
    scales = None
    if has_int8_cache(matrices.config):
        scales = CacheScales(
            *(matrices.vector(f"{module}.cache_rounding.{part}_scale") for part in ("key", "value"))
        )
    if shared.compact is not None and norm is None and matrices.joinable(projections):
        packed_BTx = shared.rows(matrices.linear(projections, x_NW))
        context_BTx, present = fused_attention(
            builder, shared.compact, (packed_BTx, None, None), past, heads, scales
        )
    else:
        query, key, value = (matrices.linear(name, x_NW) for name in projections)
        if norm is not None:
            query = _query_norm(matrices, norm, f"{module}.q_norm", query, op.heads, op.head_dim)
            key = _query_norm(matrices, norm, f"{module}.k_norm", key, op.kv_heads, op.head_dim)
        rows = shared.rows(query), shared.rows(key), shared.rows(value)
        if shared.compact is not None:
            context_BTx, present = fused_attention(builder, shared.compact, rows, past, heads, scales)
        else:
            context_BTx, present = _standard(builder, shared, op, rows, past, heads)
    context_Nx = builder.op("Reshape", context_BTx, builder.integers(-1, op.heads * op.head_dim))
    return matrices.linear(f"{module}.o_proj", context_Nx), present


def encoder_attention(
    matrices: Matrices,
    op: Attention,
    module: str,
    x_NW: ir.Value,
    shape_BTx: ir.Value,
    mask_BT: ir.Value,
    bias_B1TT: ir.Value,
    added_1HTT: ir.Value | None = None,
) -> ir.Value:
    """Return what an attention over a whole text gives, `NW`.

    Args:
        matrices: of the model.
        op: sees every token, and has no rotary positions.
        module: its name.
        x_NW: what it reads.
        shape_BTx: batch, tokens, and -1 for what is left.
        mask_BT: 1 at tokens.
        bias_B1TT: 0 at tokens, lowest at padding.
        added_1HTT: what distances add to the scores.
    """
    assert not op.causal, "an encoder's attention is causal"
    assert op.window is None, "an encoder's attention has a window"
    assert op.rope is None, "an encoder's attention has rotary positions"
    builder = matrices.builder
    query, key, value = (
        builder.op("Reshape", matrices.linear(f"{module}.{part}_proj", x_NW), shape_BTx) for part in "qkv"
    )
    if builder.portable or builder.dtype != ir.DataType.FLOAT or op.heads != op.kv_heads:
        context_BTx = builder.op(
            "Attention",
            query,
            key,
            value,
            bias_B1TT if added_1HTT is None else builder.op("Add", bias_B1TT, added_1HTT),
            scale=op.factor,
            q_num_heads=op.heads,
            kv_num_heads=op.kv_heads,
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
            *(() if added_1HTT is None else (added_1HTT,)),
            domain=MICROSOFT,
            num_heads=op.heads,
            scale=op.factor,
        )
    context_Nx = builder.op("Reshape", context_BTx, builder.integers(-1, op.heads * op.head_dim))
    return matrices.linear(f"{module}.o_proj", context_Nx)


def _standard(
    builder: GraphBuilder,
    shared: Shared,
    op: Attention,
    query_key_value_BTx: tuple[ir.Value, ir.Value, ir.Value],
    past: KeyValue,
    heads: Heads,
) -> tuple[ir.Value, KeyValue]:
    """Attend by standard operators, densely or sparsely, over a cache that grows by concatenation."""
    query_BTx, key_BTx, value_BTx = query_key_value_BTx
    sees = op.window, op.causal
    if op.rope is not None:
        angles = shared.cos_sin[op.rope, op.head_dim]
        query_BTx, key_BTx = (
            builder.op("RotaryEmbedding", x_BTx, *angles, num_heads=count, **turned(op.rope))
            for x_BTx, count in ((query_BTx, op.heads), (key_BTx, op.kv_heads))
        )
    if op.sparse is None:
        return _dense(builder, query_BTx, key_BTx, value_BTx, shared.bias_B1TS[sees], past, heads)
    query_BHTD = split_heads(builder, query_BTx, op.heads, op.head_dim)
    present = KeyValue(
        *(
            builder.op("Concat", cached, split_heads(builder, new_BTx, op.kv_heads, op.head_dim), axis=2)
            for cached, new_BTx in zip(past, (key_BTx, value_BTx), strict=True)
        )
    )
    if isinstance(op.sparse, TopM):
        context_BHTD = _top_m(builder, query_BHTD, present, shared.bias_B1TS[sees], heads, op.sparse.keys)
    else:
        blocks = shared.blocks[op.window, op.sparse.size]
        chosen_BHTS = _chosen_keys(builder, query_BHTD, present.key, blocks, heads, op.sparse.blocks)
        visible_BHTS = builder.op("And", shared.visible_B1TS[sees], chosen_BHTS)
        bias_BHTS = shared.bias(visible_BHTS)
        context_BHTD = builder.op("Attention", query_BHTD, *present, bias_BHTS, scale=heads.scale)
    return builder.op("Transpose", context_BHTD, perm=[0, 2, 1, 3]), present


def _query_norm(
    matrices: Matrices, norm: QkNorm, module: str, x_Nx: ir.Value, heads: int, width: int
) -> ir.Value:
    """Return queries or keys normed over each head, or over all heads of a token at once."""
    builder, weight = matrices.builder, matrices.vector(module + ".weight")
    if norm.over == "projection":
        return rms_norm(builder, x_Nx, weight, norm.eps)
    x_NHD = builder.op("Reshape", x_Nx, builder.integers(-1, heads, width))
    normed = rms_norm(builder, x_NHD, weight, norm.eps)
    return builder.op("Reshape", normed, builder.integers(-1, heads * width))


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
