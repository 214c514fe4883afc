"""Blocks of keys in a graph: the cache slots of each block's keys, and the blocks that a query may choose.

Shared by all layers whose blocks are alike. `models/attention.py` has the rules.

Shape legend: B batch, G key/value heads, T queries, S keys, C blocks, P keys in a block, N = C * P.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from roots_compress.export.builder import GraphBuilder

FAR = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class Slots:
    """The cache slots of each row's tokens; caches may have more slots than tokens."""

    capacity: ir.Value
    """Scalar: slots of a cache."""
    position_BT: ir.Value
    """Position of each query in its row, padding not counted."""
    slot_BT: ir.Value
    """Slot of each query."""
    last_B1: ir.Value | None
    """The last written slot, if each token is in the slot of its position; otherwise None."""
    valid_BS: ir.Value | None = None
    """True where there is no padding; None with `last_B1`."""
    key_position_BS: ir.Value | None = None
    """Position of each key in its row, any value at padding; None with `last_B1`."""
    past_B: ir.Value | None = None
    """Number of cached tokens; None without `last_B1`."""


class Blocks:
    """Blocks of one size, for attentions with one window."""

    def __init__(self, builder: GraphBuilder, slots: Slots, window: int | None, size: int) -> None:
        self.builder, self.slots, self.size, self.window = builder, slots, size, window
        own_BT = builder.op("Div", slots.position_BT, builder.integer(size))
        last = builder.op("ReduceMax", own_BT, keepdims=0)
        self.count = builder.op("Add", last, builder.integer(1))
        """Scalar C."""
        self.own_B1T1 = builder.op("Unsqueeze", own_BT, builder.integers(1, 3))
        """Each query's own block."""
        number_C = builder.op("Range", builder.integer(0), self.count, builder.integer(1))
        # Missing keys of a block get valid slots, at positions that no query sees.
        length = builder.op("Mul", self.count, builder.integer(size))
        position_N = builder.op("Range", builder.integer(0), length, builder.integer(1))
        self.slot_BN = self._slot_of(position_N, length)
        open_B1TC = builder.op("Less", number_C, self.own_B1T1)
        if window is not None:
            end_C = builder.op("Mul", builder.op("Add", number_C, builder.integer(1)), builder.integer(size))
            end_C = builder.op("Sub", end_C, builder.integer(1))
            last_BC = builder.op("Gather", self.slot_BN, end_C, axis=1)
            age_BTC = builder.op(
                "Sub",
                builder.op("Unsqueeze", slots.slot_BT, builder.integers(2)),
                builder.op("Unsqueeze", last_BC, builder.integers(1)),
            )
            near_BTC = builder.op("Less", age_BTC, builder.integer(window))
            open_B1TC = builder.op("And", open_B1TC, builder.op("Unsqueeze", near_BTC, builder.integers(1)))
        self.offset_P = builder.op("Range", builder.integer(0), builder.integer(size), builder.integer(1))
        """Position of each key in its block."""
        self.open_B1TC = open_B1TC
        """Blocks that a query may choose besides its own: earlier ones, completely inside its window."""
        lowest = builder.floats(float("-inf"))
        self.rank_B1TC = builder.op(
            "Where", builder.op("Equal", number_C, self.own_B1T1), builder.floats(float("inf")), lowest
        )
        """The score of blocks that may not be chosen: the own block's is the highest, all others' the
        lowest."""
        self._rows: dict[int, ir.Value] = {}
        self._complete: ir.Value | None = None

    def rows(self, kv_heads: int) -> ir.Value:
        """Return the row of each block's keys in a cache `(B * G * slots, D)`: `BGCP`."""
        if kv_heads not in self._rows:
            builder = self.builder
            batch = builder.op("Squeeze", builder.op("Shape", self.slots.position_BT, end=1))
            caches = builder.op("Mul", batch, builder.integer(kv_heads))
            cache_X = builder.op("Range", builder.integer(0), caches, builder.integer(1))
            first_X = builder.op("Mul", cache_X, self.slots.capacity)
            first_BG1 = builder.op("Reshape", first_X, builder.integers(-1, kv_heads, 1))
            row_BGN = builder.op("Add", first_BG1, builder.op("Unsqueeze", self.slot_BN, builder.integers(1)))
            shape = builder.integers(0, 0, -1, self.size)
            self._rows[kv_heads] = builder.op("Reshape", row_BGN, shape)
        return self._rows[kv_heads]

    def complete_before(self) -> ir.Value:
        """Return how many blocks were complete before the new tokens, in every row: a vector of one."""
        assert self.slots.past_B is not None
        if self._complete is None:
            builder = self.builder
            least_1 = builder.op("ReduceMin", self.slots.past_B, keepdims=1)
            self._complete = builder.op("Div", least_1, builder.integer(self.size))
        return self._complete

    def _slot_of(self, position_N: ir.Value, length: ir.Value) -> ir.Value:
        """Return the slot of each position in each row, `BN`."""
        builder, known = self.builder, self.slots
        if known.last_B1 is not None:
            return builder.op("Min", position_N, known.last_B1)
        assert known.valid_BS is not None
        assert known.key_position_BS is not None
        # Padding is written to an extra slot at the end, which is cut off again.
        length_1 = builder.op("Reshape", length, builder.integers(1))
        place_BS = builder.op("Where", known.valid_BS, known.key_position_BS, length)
        shape_BS = builder.op("Shape", place_BS)
        slots = builder.op("Squeeze", builder.op("Shape", place_BS, start=1))
        slot_S = builder.op("Range", builder.integer(0), slots, builder.integer(1))
        slot_BS = builder.op("Expand", slot_S, shape_BS)
        batch_1 = builder.op("Shape", place_BS, end=1)
        wide_2 = builder.op("Concat", batch_1, builder.op("Add", length_1, builder.integers(1)), axis=0)
        empty = builder.op("ConstantOfShape", wide_2, value=ir.tensor(np.zeros(1, dtype=np.int64)))
        table = builder.op("ScatterElements", empty, place_BS, slot_BS, axis=1)
        return builder.op("Slice", table, builder.integers(0), length_1, builder.integers(1))
