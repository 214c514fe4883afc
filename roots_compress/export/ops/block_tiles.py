"""Block-sparse attention of a prompt: pairs of a query and a chosen block in tiles that share a block.

`models/block_attention.py` explains them, and does the same in torch.

Shape legend: B batch, H query heads, G key/value heads, T queries, D head dimension, C blocks, P keys in a
block, K blocks chosen, N = B * H * T * K pairs, J tiles, M pairs in a tile, y rows of all tiles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from roots_compress.export.blocks import FAR, Blocks
from roots_compress.export.builder import GraphBuilder
from roots_compress.export.ops.fused_attention import Heads

LARGEST_TILE = 128


class Picks(NamedTuple):
    """The blocks that queries chose, the own one first."""

    number_BHTK: ir.Value
    """The own one's again where too few are open."""
    lost_BHTK: ir.Value
    """Where too few are open."""
    block_BHTK: ir.Value
    """Number of the block among those of all rows and key/value heads."""


class Caches(NamedTuple):
    """Keys and values of all rows as `(B * G * slots, D)`, and the rows of each block, `(B * G * C, P)`."""

    keys: ir.Value
    values: ir.Value
    rows: ir.Value


def seen_keys(
    builder: GraphBuilder,
    blocks: Blocks,
    first_position: ir.Value,
    slots: ir.Value,
    query_position: ir.Value,
    query_slot: ir.Value,
) -> ir.Value:
    """Return which of a block's keys a query sees: those up to its own position, inside its window."""
    seen = builder.op("LessOrEqual", builder.op("Add", first_position, blocks.offset_P), query_position)
    if blocks.window is None:
        return seen
    age = builder.op("Sub", query_slot, slots)
    return builder.op("And", seen, builder.op("Less", age, builder.integer(blocks.window)))


class Tiles(NamedTuple):
    """Pairs cut into tiles of one block each; see `_Tiles` of `models/block_attention.py`.

    Tiles in which a query may not see all keys come last: the others need no mask.
    """

    block_J: ir.Value
    pair_JM: ir.Value
    place_N: ir.Value
    masked_1: ir.Value
    """Where the tiles with a mask begin."""


def _tiles(builder: GraphBuilder, blocks: Blocks, picks: Picks, caches: Caches) -> Tiles:
    zero, one, one_1, last = builder.integer(0), builder.integer(1), builder.integers(1), builder.integers(-1)
    count_1 = builder.op("Shape", caches.rows, end=1)
    count = builder.op("Squeeze", count_1)
    # A query sees all of an earlier block, but for a window, and its own block up to itself.
    number_BHTK, kinds_1 = picks.block_BHTK, count_1
    if blocks.window is None:
        choices = builder.op("Squeeze", builder.op("Shape", number_BHTK, start=3))
        choice_K = builder.op("Range", zero, choices, one)
        own_K = builder.op("Where", builder.op("Equal", choice_K, zero), count, zero)
        number_BHTK = builder.op("Add", number_BHTK, own_K)
        kinds_1 = builder.op("Mul", count_1, builder.integer(2))
    number_N = builder.op("Reshape", number_BHTK, last)
    pairs_1 = builder.op("Shape", number_N)
    sorted_N, order_N = builder.op_outputs("TopK", (number_N, pairs_1), 2, largest=0)

    zero_of = ir.tensor(np.zeros(1, dtype=np.int64))
    ones_N = builder.op("ConstantOfShape", pairs_1, value=ir.tensor(np.ones(1, dtype=np.int64)))
    zeros_C = builder.op("ConstantOfShape", kinds_1, value=zero_of)
    pairs_C = builder.op("ScatterElements", zeros_C, sorted_N, ones_N, axis=0, reduction="add")
    wanted_1 = builder.op("Div", pairs_1, builder.op("Mul", count_1, builder.integer(2)))
    size_1 = builder.op("Max", builder.op("Min", wanted_1, builder.integer(LARGEST_TILE)), one)
    tiles_C = builder.op("Div", builder.op("Add", pairs_C, builder.op("Sub", size_1, one)), size_1)
    first_pair_C = builder.op("CumSum", pairs_C, zero, exclusive=1)
    first_tile_C = builder.op("CumSum", tiles_C, zero, exclusive=1)
    tiles_1 = builder.op("ReduceSum", tiles_C, keepdims=1)
    masked_1 = builder.integers(0)
    if blocks.window is None:
        masked_1 = builder.op("Gather", first_tile_C, count_1)
    # The pair of rank r stands as far inside its block's tiles as inside its block's pairs.
    shift_C = builder.op("Sub", builder.op("Mul", first_tile_C, size_1), first_pair_C)
    rank_N = builder.op("Range", zero, builder.op("Squeeze", pairs_1), one)
    place_N = builder.op("Add", rank_N, builder.op("Gather", shift_C, sorted_N))
    places_1 = builder.op("Mul", tiles_1, size_1)
    # A place that no pair has repeats the first.
    pair_y = builder.op(
        "ScatterElements", builder.op("ConstantOfShape", places_1, value=zero_of), place_N, order_N, axis=0
    )
    pair_JM = builder.op("Reshape", pair_y, builder.op("Concat", tiles_1, size_1, axis=0))
    first_J = builder.op("Squeeze", builder.op("Slice", pair_JM, builder.integers(0), one_1, one_1), one_1)
    block_N = builder.op("Reshape", picks.block_BHTK, last)
    of_pair_N = builder.op("ScatterElements", ones_N, order_N, place_N, axis=0)
    return Tiles(builder.op("Gather", block_N, first_J), pair_JM, of_pair_N, masked_1)


def prompt(
    builder: GraphBuilder,
    blocks: Blocks,
    query_BHTD: ir.Value,
    picks: Picks,
    caches: Caches,
    heads: Heads,
) -> ir.Value:
    """Return what the tokens of prompts read, `BTHD`."""
    last = builder.integers(-1)
    tiles = _tiles(builder, blocks, picks, caches)
    chosen_1 = builder.op("Shape", picks.block_BHTK, start=3)
    query_JM = builder.op("Div", tiles.pair_JM, chosen_1)
    rows_JP = builder.op("Gather", caches.rows, tiles.block_J)
    query_yD = builder.op("Reshape", query_BHTD, builder.integers(-1, heads.width))
    query_JMD = builder.op("Gather", query_yD, query_JM)
    keys_JDP = builder.op("Transpose", builder.op("Gather", caches.keys, rows_JP), perm=[0, 2, 1])
    scores_JMP = builder.op("MatMul", query_JMD, keys_JDP)
    scores_JMP = _masked(builder, blocks, query_BHTD, tiles, query_JM, rows_JP, heads, scores_JMP)
    weights_JMP = builder.op("Softmax", scores_JMP, axis=-1)
    read_JMD = builder.op("MatMul", weights_JMP, builder.op("Gather", caches.values, rows_JP))

    # The largest weight is that of the largest score: one over the sum of a pair's exponentials.
    best_BHTK, largest_BHTK = (
        builder.op(
            "Reshape",
            builder.op(
                "Gather",
                builder.op("Reshape", builder.op("ReduceMax", each, builder.integers(2)), last),
                tiles.place_N,
            ),
            builder.op("Shape", picks.block_BHTK),
        )
        for each in (scores_JMP, weights_JMP)
    )
    best_BHTK = builder.op("Where", picks.lost_BHTK, lowest(builder), best_BHTK)
    most_BHT1 = builder.op("ReduceMax", best_BHTK, last, keepdims=1)
    sums_BHTK = builder.op("Div", builder.op("Exp", builder.op("Sub", best_BHTK, most_BHT1)), largest_BHTK)
    share_BHTK = builder.op("Div", sums_BHTK, builder.op("ReduceSum", sums_BHTK, last, keepdims=1))
    read_yD = builder.op("Reshape", read_JMD, builder.integers(-1, heads.width))
    read_NKD = builder.op(
        "Reshape",
        builder.op("Gather", read_yD, tiles.place_N),
        builder.op("Concat", last, chosen_1, builder.integers(heads.width), axis=0),
    )
    one_row = builder.op("Concat", builder.integers(-1, 1), chosen_1, axis=0)
    context = builder.op("MatMul", builder.op("Reshape", share_BHTK, one_row), read_NKD)
    context_BHTD = builder.op("Reshape", context, builder.op("Shape", query_BHTD))
    return builder.op("Transpose", context_BHTD, perm=[0, 2, 1, 3])


def _masked(
    builder: GraphBuilder,
    blocks: Blocks,
    query_BHTD: ir.Value,
    tiles: Tiles,
    query_JM: ir.Value,
    rows_JP: ir.Value,
    heads: Heads,
    scores_JMP: ir.Value,
) -> ir.Value:
    """Return the scores, the lowest number where a query does not see a key; j are the tiles with a mask."""
    far = builder.integers(FAR)
    query_jM, rows_jP, block_j, scores_jMP = (
        builder.op("Slice", each, tiles.masked_1, far)
        for each in (query_JM, rows_JP, tiles.block_J, scores_JMP)
    )
    tokens_1 = builder.op("Shape", query_BHTD, start=2, end=3)
    per_row_1 = builder.op("Mul", tokens_1, builder.integers(heads.query))
    token_jM = builder.op(
        "Add",
        builder.op("Mul", builder.op("Div", query_jM, per_row_1), tokens_1),
        builder.op("Mod", query_jM, tokens_1),
    )
    position_jM1, slot_jM1 = (
        builder.op(
            "Unsqueeze",
            builder.op("Gather", builder.op("Reshape", each, builder.integers(-1)), token_jM),
            builder.integers(2),
        )
        for each in (blocks.slots.position_BT, blocks.slots.slot_BT)
    )
    number_j = builder.op("Mod", block_j, blocks.count)
    first_j11 = builder.op(
        "Unsqueeze", builder.op("Mul", number_j, builder.integer(blocks.size)), builder.integers(1, 2)
    )
    slots_j1P = builder.op(
        "Unsqueeze", builder.op("Mod", rows_jP, blocks.slots.capacity), builder.integers(1)
    )
    seen_jMP = seen_keys(builder, blocks, first_j11, slots_j1P, position_jM1, slot_jM1)
    scores_jMP = builder.op("Where", seen_jMP, scores_jMP, lowest(builder))
    if blocks.window is not None:
        return scores_jMP
    first = builder.op("Squeeze", tiles.masked_1)
    end = builder.op("Squeeze", builder.op("Shape", query_JM, end=1))
    place_j = builder.op("Range", first, end, builder.integer(1))
    return builder.op(
        "ScatterND", scores_JMP, builder.op("Unsqueeze", place_j, builder.integers(1)), scores_jMP
    )


def lowest(builder: GraphBuilder) -> ir.Value:
    """Return the score of a key that is not seen, the type's lowest number."""
    return builder.floats(float(np.finfo(builder.dtype.numpy()).min))
