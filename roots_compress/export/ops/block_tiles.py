"""Block-sparse attention of a prompt: pairs of a query and a chosen block in tiles that share a block.

`models/block_attention.py` explains them, and does the same in torch.

Shape legend: B batch, H query heads, G key/value heads, T queries, D head dimension, C blocks, P keys in a
block, K blocks chosen, k some of them, N = B * H * T pairs for each of these, J tiles, j those processed at a
time, b batches of these, M pairs in a tile, y rows of all tiles.
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
# Keys or scores that are processed at a time, in elements: 1 MiB of each stays in a core's cache. All tiles
# of a long prompt's piece at once take twice as long (docs/log/performance.md).
BATCH_ELEMENTS = 1 << 18


class Picks(NamedTuple):
    """The blocks that queries chose, the own one first."""

    number_BHTK: ir.Value
    """The own block again if too few blocks are allowed."""
    lost_BHTK: ir.Value
    """True where too few blocks are allowed."""
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
    """Return which keys of a block a query sees: those up to its own position, inside its window.

    Args:
        number: of each block in its row; the last axis is for its keys.
        rows: where the keys lie in the caches.
        place: picks each query's value from data of the tokens, `BT`, in the layout of the keys.
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
    """Pairs cut into tiles of one block each; see `_Tiles` of `models/block_attention.py`."""

    block_J: ir.Value
    pair_JM: ir.Value
    place_N: ir.Value


def _tiles(builder: GraphBuilder, block_BHTk: ir.Value, caches: Caches) -> Tiles:
    zero, one, one_1, last = builder.integer(0), builder.integer(1), builder.integers(1), builder.integers(-1)
    count_1 = builder.op("Shape", caches.rows, end=1)
    block_N = builder.op("Reshape", block_BHTk, last)
    pairs_1 = builder.op("Shape", block_N)
    sorted_N, order_N = builder.op_outputs("TopK", (block_N, pairs_1), 2, largest=0)

    zero_of = ir.tensor(np.zeros(1, dtype=np.int64))
    ones_N = builder.op("ConstantOfShape", pairs_1, value=ir.tensor(np.ones(1, dtype=np.int64)))
    zeros_C = builder.op("ConstantOfShape", count_1, value=zero_of)
    pairs_C = builder.op("ScatterElements", zeros_C, sorted_N, ones_N, axis=0, reduction="add")
    chosen_C = builder.op("Min", pairs_C, one)
    chosen_1 = builder.op("Max", builder.op("ReduceSum", chosen_C, keepdims=1), one)
    wanted_1 = builder.op("Div", pairs_1, builder.op("Mul", chosen_1, builder.integer(2)))
    size_1 = builder.op("Max", builder.op("Min", wanted_1, builder.integer(LARGEST_TILE)), one)
    tiles_C = builder.op("Div", builder.op("Add", pairs_C, builder.op("Sub", size_1, one)), size_1)
    first_pair_C = builder.op("CumSum", pairs_C, zero, exclusive=1)
    first_tile_C = builder.op("CumSum", tiles_C, zero, exclusive=1)
    tiles_1 = builder.op("ReduceSum", tiles_C, keepdims=1)
    # A pair has the same offset in its block's tiles as in its block's pairs.
    shift_C = builder.op("Sub", builder.op("Mul", first_tile_C, size_1), first_pair_C)
    rank_N = builder.op("Range", zero, builder.op("Squeeze", pairs_1), one)
    place_N = builder.op("Add", rank_N, builder.op("Gather", shift_C, sorted_N))
    places_1 = builder.op("Mul", tiles_1, size_1)
    # An unused place repeats the first pair.
    pair_y = builder.op(
        "ScatterElements", builder.op("ConstantOfShape", places_1, value=zero_of), place_N, order_N, axis=0
    )
    pair_JM = builder.op("Reshape", pair_y, builder.op("Concat", tiles_1, size_1, axis=0))
    first_J = builder.op("Squeeze", builder.op("Slice", pair_JM, builder.integers(0), one_1, one_1), one_1)
    of_pair_N = builder.op("ScatterElements", ones_N, order_N, place_N, axis=0)
    return Tiles(builder.op("Gather", block_N, first_J), pair_JM, of_pair_N)


class Parts(NamedTuple):
    """The attention of queries to some of their chosen blocks; k are these."""

    best_BHTk: ir.Value
    """The largest score."""
    largest_BHTk: ir.Value
    """The largest weight, which is that score's: one over the sum of a pair's exponentials."""
    read_BHTkD: ir.Value


def prompt(
    builder: GraphBuilder,
    blocks: Blocks,
    query_BHTD: ir.Value,
    picks: Picks,
    caches: Caches,
    heads: Heads,
) -> ir.Value:
    """Return what the tokens of prompts read, `BHTD`."""
    last = builder.integers(-1)
    # A query sees its own block up to itself, and all of an earlier one, unless there is a window.
    parts = [
        _read(builder, blocks, query_BHTD, part, caches, heads, masked=masked)
        for part, masked in (
            (_choices(builder, picks.block_BHTK, 0, 1), True),
            (_choices(builder, picks.block_BHTK, 1, FAR), blocks.window is not None),
        )
    ]
    best_BHTK = builder.op("Concat", *(part.best_BHTk for part in parts), axis=3)
    largest_BHTK = builder.op("Concat", *(part.largest_BHTk for part in parts), axis=3)
    best_BHTK = builder.op("Where", picks.lost_BHTK, lowest(builder), best_BHTK)
    most_BHT1 = builder.op("ReduceMax", best_BHTK, last, keepdims=1)
    sums_BHTK = builder.op("Div", builder.op("Exp", builder.op("Sub", best_BHTK, most_BHT1)), largest_BHTK)
    share_BHTK = builder.op("Div", sums_BHTK, builder.op("ReduceSum", sums_BHTK, last, keepdims=1))
    own, others = parts
    own_BHTD = builder.op("Mul", _choices(builder, share_BHTK, 0, 1), _squeezed(builder, own.read_BHTkD))
    share_BHT1k = builder.op("Unsqueeze", _choices(builder, share_BHTK, 1, FAR), builder.integers(3))
    others_BHTD = _squeezed(builder, builder.op("MatMul", share_BHT1k, others.read_BHTkD))
    context_BHTD = builder.op("Add", own_BHTD, others_BHTD)
    return builder.op("Transpose", context_BHTD, perm=[0, 2, 1, 3])


def _squeezed(builder: GraphBuilder, x_BHT1D: ir.Value) -> ir.Value:
    return builder.op("Squeeze", x_BHT1D, builder.integers(3))


def _choices(builder: GraphBuilder, x_BHTK: ir.Value, first: int, end: int) -> ir.Value:
    return builder.op("Slice", x_BHTK, builder.integers(first), builder.integers(end), builder.integers(3))


def _read(
    builder: GraphBuilder,
    blocks: Blocks,
    query_BHTD: ir.Value,
    block_BHTk: ir.Value,
    caches: Caches,
    heads: Heads,
    *,
    masked: bool,
) -> Parts:
    """Return the attention of queries to blocks, `BATCH_ELEMENTS` at a time; unmasked if all are seen."""
    last, one_1 = builder.integers(-1), builder.integers(1)
    tiles = _tiles(builder, block_BHTk, caches)
    chosen_1 = builder.op("Max", builder.op("Shape", block_BHTk, start=3), one_1)
    # Padding tiles of the last batch repeat the first query and block; there is at least one tile.
    tiles_1, pairs_1 = (builder.op("Shape", tiles.pair_JM, start=axis, end=axis + 1) for axis in (0, 1))
    width_1 = builder.op("Max", pairs_1, builder.integer(heads.width))
    keys = max(1, BATCH_ELEMENTS // blocks.size)
    batch_1 = builder.op("Max", builder.op("Div", builder.integer(keys), width_1), one_1)
    batches_1 = builder.op("Add", builder.op("Div", tiles_1, batch_1), one_1)
    in_batch_1 = builder.op("Add", builder.op("Div", tiles_1, batches_1), one_1)
    lacking_1 = builder.op("Sub", builder.op("Mul", batches_1, in_batch_1), tiles_1)
    none_1 = builder.integers(0)
    block_J = builder.op("Pad", tiles.block_J, builder.op("Concat", none_1, lacking_1, axis=0))
    query_JM = builder.op(
        "Pad",
        builder.op("Div", tiles.pair_JM, chosen_1),
        builder.op("Concat", none_1, none_1, lacking_1, none_1, axis=0),
    )
    split_2 = builder.op("Concat", batches_1, in_batch_1, axis=0)
    batched = (
        builder.op("Reshape", block_J, split_2),
        builder.op("Reshape", query_JM, builder.op("Concat", split_2, pairs_1, axis=0)),
    )
    query_yD = builder.op("Reshape", query_BHTD, builder.integers(-1, heads.width))
    with builder.body("tiles") as body:
        body.inputs.extend(
            ir.Value(name=f"{body.name}/{name}", type=ir.TensorType(ir.DataType.INT64))
            for name in ("block", "query")
        )
        block_j, query_jM = body.inputs
        seen_jMP = None
        if masked:
            seen_jMP = _seen_in_tiles(builder, blocks, query_BHTD, query_jM, block_j, caches, heads)
        builder.give(body, *_read_tiles(builder, query_yD, query_jM, block_j, caches, seen_jMP))
    read = builder.op_outputs("Scan", batched, 3, body=body, num_scan_inputs=2)

    shape_BHTk = builder.op("Shape", block_BHTk)
    shape_BHTkD = builder.op("Concat", shape_BHTk, builder.integers(heads.width), axis=0)
    flat = last, last, builder.integers(-1, heads.width)
    shapes = shape_BHTk, shape_BHTk, shape_BHTkD

    def by_query(tiled: ir.Value, rows: ir.Value, shape: ir.Value) -> ir.Value:
        found = builder.op("Gather", builder.op("Reshape", tiled, rows), tiles.place_N)
        return builder.op("Reshape", found, shape, allowzero=1)

    return Parts(*(by_query(*each) for each in zip(read, flat, shapes, strict=True)))


def _read_tiles(
    builder: GraphBuilder,
    query_yD: ir.Value,
    query_jM: ir.Value,
    block_j: ir.Value,
    caches: Caches,
    seen_jMP: ir.Value | None,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return the largest score and weight of each pair, `jM`, and its attention output, `jMD`."""
    rows_jP = builder.op("Gather", caches.rows, block_j)
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
    return best_jM, largest_jM, read_jMD


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
    """Return the score of an invisible key, the type's lowest number."""
    return builder.floats(float(np.finfo(builder.dtype.numpy()).min))
