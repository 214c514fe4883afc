"""Cosines and sines of rotary angles as ONNX operators, computed once for layers with equal positions.

Shape legend: B batch, T queries, N tokens of all rows, P positions, d half of a head's rotated channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import onnx_ir as ir

from roots_compress.export.builder import GraphBuilder
from roots_compress.models.ops.attention import Attention, Rope
from roots_compress.models.rotary import rotary_frequencies
from roots_compress.models.spec import ModelSpec

Turning = tuple[Rope, int]
"""Rotary positions, and the size of the heads."""


class CosSin(NamedTuple):
    """Cosines and sines of the rotary angles, `BTd`."""

    cos: ir.Value
    sin: ir.Value


class Rotations:
    """The rotary positions of a model's layers."""

    def __init__(self, builder: GraphBuilder, spec: ModelSpec) -> None:
        self.builder, self._spec = builder, spec

    def turnings(self) -> list[Turning]:
        """Return the rotary positions of all layers, each once."""
        attentions = self._spec.attentions()
        return list(dict.fromkeys((each.rope, each.head_dim) for each in attentions if each.rope is not None))

    def tables(self, position_N: ir.Value, slots_1: ir.Value, tokens_1: ir.Value) -> dict[Turning, CosSin]:
        """Return tables of cosines and sines by position, filled in at the new tokens.

        The operator needs a row for each slot, and for the positions of all new tokens; it reads only those
        of the new tokens. A complete table for the longest context would be larger than the model, and one
        for the slots would cost a step several per cent of its time.
        """
        builder, turnings = self.builder, self.turnings()
        if not turnings:
            return {}
        last_1 = builder.op("ReduceMax", position_N, keepdims=1)
        rows_1 = builder.op("Max", slots_1, builder.op("Add", last_1, tokens_1))
        place_N1 = builder.op("Unsqueeze", position_N, builder.integers(1))
        tables: dict[Turning, CosSin] = {}
        for turning in turnings:
            cos_sin = self.angles(turning, position_N)
            rope, head_dim = turning
            width = (rope.rotary_dim or head_dim) // 2
            shape = builder.op("Concat", rows_1, builder.integers(width), axis=0)
            empty_Pd = builder.op("ConstantOfShape", shape)
            tables[turning] = CosSin(
                *(builder.op("ScatterND", empty_Pd, place_N1, table_Nd) for table_Nd in cos_sin)
            )
        return tables

    def angles(self, turning: Turning, positions: ir.Value) -> CosSin:
        """Compute cosines and sines of positions of any shape, without a stored table."""
        builder = self.builder
        rope, head_dim = turning
        found = rotary_frequencies(rope, head_dim, self._spec.max_positions)
        name = f"rotary_frequencies_{head_dim}"
        if (others := [each for each in self.turnings() if each[1] == head_dim])[0] != turning:
            name += f"_{others.index(turning)}"
        frequency_d = builder.vector(name, found.short_d.numpy())
        if found.long_d is not None:
            assert found.length is not None
            last = builder.op("ReduceMax", positions, keepdims=0)
            is_long = builder.op("GreaterOrEqual", last, builder.integer(found.length))
            long_d = builder.vector(name + "_long", found.long_d.numpy())
            frequency_d = builder.op("Where", is_long, long_d, frequency_d)
        column = builder.op("Unsqueeze", positions, builder.integers(-1))
        angle = builder.op("Mul", builder.cast(column, ir.DataType.FLOAT), frequency_d)
        return CosSin(*(self._scaled(builder.op(op, angle), found.factor) for op in ("Cos", "Sin")))

    def _scaled(self, value: ir.Value, factor: float) -> ir.Value:
        if factor != 1:
            value = self.builder.op("Mul", value, self.builder.float32(factor))
        return (
            value if self.builder.dtype == ir.DataType.FLOAT else self.builder.cast(value, self.builder.dtype)
        )


class Angles:
    """The angles of tokens at given positions, computed when an attention first needs them.

    Args:
        position_BT: makes the tokens' positions.
    """

    def __init__(self, builder: GraphBuilder, spec: ModelSpec, position_BT: Callable[[], ir.Value]) -> None:
        self._rotations, self._position_BT = Rotations(builder, spec), position_BT
        self._made: dict[Turning, CosSin] = {}

    def of(self, op: Attention) -> CosSin | None:
        """Return the rotary angles of an attention's queries and keys; None if there are none."""
        if op.rope is None:
            return None
        turning = op.rope, op.head_dim
        if turning not in self._made:
            self._made[turning] = self._rotations.angles(turning, self._position_BT())
        return self._made[turning]
