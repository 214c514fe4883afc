"""Block-sparse attention of a prompt: pairs of a query and a chosen block in tiles that share a block.

`models/block_attention.py` explains them, and does the same in torch.

Shape legend: B batch, H query heads, G key/value heads, T queries, D head dimension, C blocks, P keys in a
block, K blocks chosen, N = B * H * T * K pairs, J tiles, M pairs in a tile, y rows of all tiles.
"""

from __future__ import annotations

from collections.abc import Callable
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
    number: ir.Value,
    rows: ir.Value,
    place: Callable[[ir.Value], ir.Value],
) -> ir.Value:
    """Return which of a block's keys a query sees: those up to its own position, inside its window.

    Args:
        builder: of the graph.
        blocks: of the keys.
        number: of each block in its row; the last axis is for its keys.
        rows: where the keys lie in the caches.
        place: gives each query its own of what is known of the tokens, `BT`, laid out as the keys are.
    """
    first = builder.op("Mul", number, builder.integer(blocks.size))
    position = builder.op("Add", first, blocks.offset_P)
    seen = builder.op("LessOrEqual", position, place(blocks.slots.position_BT))
    if blocks.window is None:
        return seen
    slot = builder.op("Mod", rows, blocks.slots.capacity)
    age = builder.op("Sub", place(blocks.slots.slot_BT), slot)
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


class Parts(NamedTuple):
    """What the pairs of some tiles give; j are these tiles."""

    best_jM: ir.Value
    """The largest score."""
    largest_jM: ir.Value
    """The largest weight, which is that score's: one over the sum of a pair's exponentials."""
    read_jMD: ir.Value


def prompt(
    builder: GraphBuilder,
    blocks: Blocks,
    query_BHTD: ir.Value,
    picks: Picks,
    caches: Caches,
    heads: Heads,
) -> ir.Value:
    """Return what the tokens of prompts read, `BTHD`."""
    last, begin, far = builder.integers(-1), builder.integers(0), builder.integers(FAR)
    tiles = _tiles(builder, blocks, picks, caches)
    chosen_1 = builder.op("Shape", picks.block_BHTK, start=3)
    query_JM = builder.op("Div", tiles.pair_JM, chosen_1)
    ranges = [(tiles.masked_1, far, True)]
    if blocks.window is None:
        ranges.insert(0, (begin, tiles.masked_1, False))
    parts = []
    for first_1, end_1, masked in ranges:
        query_jM, block_j = (builder.op("Slice", each, first_1, end_1) for each in (query_JM, tiles.block_J))
        seen_jMP = None
        if masked:
            seen_jMP = _seen_in_tiles(builder, blocks, query_BHTD, query_jM, block_j, caches, heads)
        parts.append(_read(builder, query_BHTD, query_jM, block_j, caches, heads, seen_jMP))
    best_JM, largest_JM, read_JMD = (
        each[0] if len(each) == 1 else builder.op("Concat", *each, axis=0)
        for each in zip(*parts, strict=True)
    )

    best_BHTK, largest_BHTK = (
        builder.op(
            "Reshape",
            builder.op("Gather", builder.op("Reshape", each, last), tiles.place_N),
            builder.op("Shape", picks.block_BHTK),
        )
        for each in (best_JM, largest_JM)
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


def _read(
    builder: GraphBuilder,
    query_BHTD: ir.Value,
    query_jM: ir.Value,
    block_j: ir.Value,
    caches: Caches,
    heads: Heads,
    seen_jMP: ir.Value | None,
) -> Parts:
    """Return what queries read of a block each; all of its keys without a mask."""
    rows_jP = builder.op("Gather", caches.rows, block_j)
    query_yD = builder.op("Reshape", query_BHTD, builder.integers(-1, heads.width))
    query_jMD = builder.op("Gather", query_yD, query_jM)
    keys_jDP = builder.op("Transpose", builder.op("Gather", caches.keys, rows_jP), perm=[0, 2, 1])
    scores_jMP = builder.op("MatMul", query_jMD, keys_jDP)
    if seen_jMP is not None:
        scores_jMP = builder.op("Where", seen_jMP, scores_jMP, lowest(builder))
    weights_jMP = builder.op("Softmax", scores_jMP, axis=-1)
    read_jMD = builder.op("MatMul", weights_jMP, builder.op("Gather", caches.values, rows_jP))
    best_jM, largest_jM = (
        builder.op("ReduceMax", each, builder.integers(2), keepdims=0) for each in (scores_jMP, weights_jMP)
    )
    return Parts(best_jM, largest_jM, read_jMD)


def _seen_in_tiles(
    builder: GraphBuilder,
    blocks: Blocks,
    query_BHTD: ir.Value,
    query_jM: ir.Value,
    block_j: ir.Value,
    caches: Caches,
    heads: Heads,
) -> ir.Value:
    """Return which keys the queries of tiles see, `jMP`."""
    tokens_1 = builder.op("Shape", query_BHTD, start=2, end=3)
    per_row_1 = builder.op("Mul", tokens_1, builder.integers(heads.query))
    token_jM = builder.op(
        "Add",
        builder.op("Mul", builder.op("Div", query_jM, per_row_1), tokens_1),
        builder.op("Mod", query_jM, tokens_1),
    )

    def place(each_BT: ir.Value) -> ir.Value:
        flat = builder.op("Reshape", each_BT, builder.integers(-1))
        return builder.op("Unsqueeze", builder.op("Gather", flat, token_jM), builder.integers(2))

    number_j11 = builder.op("Unsqueeze", builder.op("Mod", block_j, blocks.count), builder.integers(1, 2))
    rows_j1P = builder.op("Unsqueeze", builder.op("Gather", caches.rows, block_j), builder.integers(1))
    return seen_keys(builder, blocks, number_j11, rows_j1P, place)


def lowest(builder: GraphBuilder) -> ir.Value:
    """Return the score of a key that is not seen, the type's lowest number."""
    return builder.floats(float(np.finfo(builder.dtype.numpy()).min))
