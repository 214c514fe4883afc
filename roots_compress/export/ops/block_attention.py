"""Block-sparse attention as ONNX operators: the chosen blocks are gathered, and nothing else is computed.

A step of one token gathers the blocks that each head chose; `block_tiles.py` is for prompts.

The mean key of each complete block is an optional input and an output besides the caches: if a caller passes
the means back, a step does not read all keys. Without them they are computed from the keys.

Shape legend: B batch, H query heads, G key/value heads, R = H / G, T queries, D head dimension, C blocks, P
keys in a block, K blocks chosen, y = K * P, x heads * D.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from roots_compress.export.blocks import FAR, Blocks
from roots_compress.export.builder import GraphBuilder
from roots_compress.export.ops.block_tiles import Caches, Picks, lowest, prompt, seen_keys
from roots_compress.export.ops.fused_attention import Heads, KeyValue


def block_attention(
    builder: GraphBuilder,
    blocks: Blocks,
    query_BHTD: ir.Value,
    present: KeyValue,
    means: ir.Value | None,
    heads: Heads,
    num_blocks: int,
) -> tuple[ir.Value, ir.Value]:
    """Return the queries' attention to their chosen blocks, `BTx`, and the mean keys of all blocks, `BGCD`.

    Args:
        query_BHTD: scaled queries with rotary positions.
        present: the caches, new tokens written.
        means: the given mean keys of the blocks that were complete before; None to compute all.
        num_blocks: the number of chosen blocks, with the own one.
    """
    rows_BGCP = blocks.rows(heads.key_value)
    flat = builder.integers(-1, heads.width)
    keys, values = (builder.op("Reshape", cached, flat) for cached in present)
    means_BGCD = _mean_keys(builder, blocks, rows_BGCP, keys, means)
    picks = _picks(builder, blocks, query_BHTD, means_BGCD, heads, num_blocks)
    caches = Caches(keys, values, builder.op("Reshape", rows_BGCP, builder.integers(-1, blocks.size)))
    single = builder.op("Shape", query_BHTD, start=2, end=3)
    is_step = builder.op("Squeeze", builder.op("Equal", single, builder.integers(1)))
    with builder.body("step") as step:
        builder.give(step, _step(builder, blocks, query_BHTD, picks, caches, heads))
    with builder.body("prompt") as body:
        builder.give(body, prompt(builder, blocks, query_BHTD, picks, caches, heads))
    context_BTHD = builder.op("If", is_step, then_branch=step, else_branch=body)
    width = builder.integers(0, 0, heads.query * heads.width)
    return builder.op("Reshape", context_BTHD, width), means_BGCD


def _mean_keys(
    builder: GraphBuilder, blocks: Blocks, rows_BGCP: ir.Value, keys: ir.Value, means: ir.Value | None
) -> ir.Value:
    """Return the mean key of each block; those of incomplete blocks are finite and unused."""
    axis, far = builder.integers(2), builder.integers(FAR)
    new_BGCP = rows_BGCP
    if means is not None:
        known_1 = builder.op("Min", builder.op("Shape", means, start=2, end=3), blocks.complete_before())
        new_BGCP = builder.op("Slice", rows_BGCP, known_1, far, axis)
    keys_BGCPD = builder.op("Gather", keys, new_BGCP)
    new_BGCD = builder.op("ReduceMean", keys_BGCPD, builder.integers(3), keepdims=0)
    if means is None:
        return new_BGCD
    known_BGCD = builder.op("Slice", means, builder.integers(0), known_1, axis)
    # The default has one row.
    rows_4 = builder.op("Concat", builder.op("Shape", rows_BGCP, end=1), builder.integers(1, 1, 1), axis=0)
    return builder.op("Concat", builder.op("Expand", known_BGCD, rows_4), new_BGCD, axis=2)


def _picks(
    builder: GraphBuilder,
    blocks: Blocks,
    query_BHTD: ir.Value,
    means_BGCD: ir.Value,
    heads: Heads,
    num_blocks: int,
) -> Picks:
    means_BGDC = builder.op("Transpose", means_BGCD, perm=[0, 1, 3, 2])
    scores_BHTC = grouped_product(builder, query_BHTD, means_BGDC, heads)
    ranked_BHTC = builder.op("Where", blocks.open_B1TC, scores_BHTC, blocks.rank_B1TC)
    count_1 = builder.op("Min", builder.op("Shape", ranked_BHTC, start=3), builder.integers(num_blocks))
    best_BHTK, index_BHTK = builder.op_outputs("TopK", (ranked_BHTC, count_1), 2, axis=-1)
    lost_BHTK = builder.op("Equal", best_BHTK, builder.floats(float("-inf")))
    number_BHTK = builder.op("Where", lost_BHTK, blocks.own_B1T1, index_BHTK)
    batch = builder.op("Squeeze", builder.op("Shape", query_BHTD, end=1))
    row_B = builder.op("Range", builder.integer(0), batch, builder.integer(1))
    row_B1 = builder.op(
        "Mul", builder.op("Unsqueeze", row_B, builder.integers(1)), builder.integer(heads.key_value)
    )
    group_H = builder.vector(
        f"groups_{heads.query}_{heads.key_value}",
        np.arange(heads.query, dtype=np.int64) // (heads.query // heads.key_value),
    )
    first_BH = builder.op("Mul", builder.op("Add", row_B1, group_H), blocks.count)
    first_BH11 = builder.op("Unsqueeze", first_BH, builder.integers(2, 3))
    return Picks(number_BHTK, lost_BHTK, builder.op("Add", number_BHTK, first_BH11))


def grouped_product(
    builder: GraphBuilder, left_BHTx: ir.Value, right_BGxy: ir.Value, heads: Heads
) -> ir.Value:
    """Return `BHTy`, the product of each query head with its group's matrix.

    The R query heads of a group are adjacent, so their T rows are joined to R * T rows.
    """
    if heads.query == heads.key_value:
        return builder.op("MatMul", left_BHTx, right_BGxy)
    rows = builder.op("Shape", left_BHTx, start=3)
    shape = builder.op("Concat", builder.integers(0, heads.key_value, -1), rows, axis=0)
    product = builder.op("MatMul", builder.op("Reshape", left_BHTx, shape), right_BGxy)
    tokens = builder.op("Shape", left_BHTx, start=2, end=3)
    back = builder.op("Concat", builder.integers(0, heads.query), tokens, builder.integers(-1), axis=0)
    return builder.op("Reshape", product, back)


def _step(
    builder: GraphBuilder,
    blocks: Blocks,
    query_BHTD: ir.Value,
    picks: Picks,
    caches: Caches,
    heads: Heads,
) -> ir.Value:
    """Return the attention output of single tokens, `BTHD` with T = 1."""
    rows_BHTKP = builder.op("Gather", caches.rows, picks.block_BHTK)
    number_BHTK1 = builder.op("Unsqueeze", picks.number_BHTK, builder.integers(4))

    def place(each_BT: ir.Value) -> ir.Value:
        return builder.op("Unsqueeze", each_BT, builder.integers(1, 3, 4))

    seen = seen_keys(builder, blocks, number_BHTK1, rows_BHTKP, place)
    kept = builder.op("Not", builder.op("Unsqueeze", picks.lost_BHTK, builder.integers(4)))
    seen = builder.op("And", seen, kept)
    joined = builder.integers(0, 0, -1, heads.width)
    keys_BHyD, values_BHyD = (
        builder.op("Reshape", builder.op("Gather", each, rows_BHTKP), joined)
        for each in (caches.keys, caches.values)
    )
    keys_BHDy = builder.op("Transpose", keys_BHyD, perm=[0, 1, 3, 2])
    scores_BH1y = builder.op("MatMul", query_BHTD, keys_BHDy)
    seen_BH1y = builder.op("Reshape", seen, builder.op("Shape", scores_BH1y))
    weights_BH1y = builder.op(
        "Softmax", builder.op("Where", seen_BH1y, scores_BH1y, lowest(builder)), axis=-1
    )
    context_BH1D = builder.op("MatMul", weights_BH1y, values_BHyD)
    return builder.op("Transpose", context_BH1D, perm=[0, 2, 1, 3])
