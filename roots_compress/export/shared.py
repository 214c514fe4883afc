"""Shared values of a graph's layers: shapes, masks, rotary angles and blocks, computed once from the inputs.

Shape legend as in `models/attention.py`: B batch, T queries, S keys, C blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from roots_compress.export.blocks import Blocks, Slots
from roots_compress.export.builder import GraphBuilder
from roots_compress.export.compact import Compact, Place, takes_axes
from roots_compress.export.rotations import CosSin, Rotations, Turning
from roots_compress.models.config import RootsConfig
from roots_compress.models.limits import is_compact
from roots_compress.models.ops.attention import Attention, BlockSparse
from roots_compress.models.quantized import has_int8_cache

Window = int | None


class Shared:
    """Values that every layer reads, emitted once at the start of the graph."""

    def __init__(
        self,
        builder: GraphBuilder,
        config: RootsConfig,
        input_ids_BT: ir.Value,
        attention_mask_BS: ir.Value,
        position_ids_BT: ir.Value,
        past_BGPD: ir.Value | None,
    ) -> None:
        self.builder = builder
        self._cache_index: dict[int, ir.Value] = {}
        self._following: dict[int, ir.Value] = {}
        self._no_keys: dict[int, ir.Value] = {}
        self._new_mask_BT: ir.Value | None = None
        self._real_BT1: ir.Value | None = None
        self.keeps_axes = False
        """Whether layers use `BTx`, as fused attention does, instead of `Nx`."""
        self.block_means: dict[str, tuple[ir.Value, list[int | str]]] = {}
        """Mean keys that block-sparse layers output with their caches, and their shapes, by layer."""
        with builder.scope("frame"):
            self.shape_BT = builder.op("Shape", input_ids_BT)
            self._shape_BTx = builder.op("Concat", self.shape_BT, builder.integers(-1), axis=0)
            self._rotations = Rotations(builder, config.spec)
            self.cos_sin: dict[Turning, CosSin] = {}
            self.compact: Compact | None = None
            attentions = config.spec.attentions()
            if not builder.portable and builder.dtype == ir.DataType.FLOAT and is_compact(config.spec):
                compact = self.compact = self._compact(config, attention_mask_BS, position_ids_BT)
                self.keeps_axes = takes_axes(config)
                self._add_blocks(
                    attentions,
                    lambda: self._compact_slots(compact, past_BGPD),
                )
                return
            self._place_slots(attention_mask_BS)
            whole = [each for each in attentions if not isinstance(each.sparse, BlockSparse)]
            sees = dict.fromkeys((each.window, each.causal) for each in whole)
            self.bias_B1TS = {each: self.bias(self._visible(*each)) for each in sees}
            self.cos_sin = {
                turning: self._rotations.angles(turning, position_ids_BT)
                for turning in self._rotations.turnings()
            }
            self._add_blocks(attentions, self._standard_slots)

    def rows(self, x: ir.Value) -> ir.Value:
        """Return an activation of the layers with its batch and token axes, `BTx`."""
        return x if self.keeps_axes else self._with_axes(x)

    def flat(self, x_BTx: ir.Value, width: int) -> ir.Value:
        """Return `BTx` in the layers' form: `Nx`, unless they keep its axes."""
        if self.keeps_axes:
            return x_BTx
        return self.builder.op("Reshape", x_BTx, self.builder.integers(-1, width))

    @property
    def leading(self) -> tuple[int, ...]:
        """The axes before the channels of the layers' activations, as `Reshape` takes them."""
        return (0, 0) if self.keeps_axes else (-1,)

    def entering(self, embedded_NW: ir.Value) -> ir.Value:
        """Return the first layer's input in the layers' form."""
        return self._with_axes(embedded_NW) if self.keeps_axes else embedded_NW

    def _with_axes(self, flat: ir.Value) -> ir.Value:
        return self.builder.op("Reshape", flat, self._shape_BTx)

    def bias(self, visible: ir.Value) -> ir.Value:
        """Return the bias on the scores: 0 at visible keys, the type's lowest number elsewhere."""
        lowest = float(np.finfo(self.builder.dtype.numpy()).min)
        return self.builder.op("Where", visible, self.builder.floats(0.0), self.builder.floats(lowest))

    def to_front(self, tokens: ir.Value) -> ir.Value:
        """Flatten the callers' values of each new token, `BT`, in the layers' order, `N`."""
        flat_N = self.builder.op("Reshape", tokens, self.builder.integers(-1))
        return flat_N if self.compact is None else self.builder.op("Gather", flat_N, self.compact.to_front_N)

    def back(self, x: ir.Value, width: int) -> ir.Value:
        """Return an activation of the layers in the callers' order, `BTW`."""
        if self.keeps_axes:
            x = self.builder.op("Reshape", x, self.builder.integers(-1, width))
        if self.compact is not None:
            x = self.builder.op("Gather", x, self.compact.back_N)
        return self._with_axes(x)

    def _compact(
        self, config: RootsConfig, attention_mask_BS: ir.Value, position_ids_BT: ir.Value
    ) -> Compact:
        builder = self.builder
        zero, one, second = builder.integer(0), builder.integer(1), builder.integers(1)
        batch_1 = builder.op("Slice", self.shape_BT, builder.integers(0), second)
        tokens_1 = builder.op("Slice", self.shape_BT, second, builder.integers(2))
        tokens, slots_1 = builder.op("Squeeze", tokens_1), builder.op("Shape", attention_mask_BS, start=1)
        new_from_1 = builder.op("Sub", slots_1, tokens_1)

        new_BT = builder.op("Slice", attention_mask_BS, new_from_1, slots_1, second)
        self._new_mask_BT = new_BT
        # Index of the first real token: 0 also if padding follows, as from some callers.
        padding_B1 = builder.op("ArgMax", new_BT, axis=1)
        rest_B1 = builder.op("Sub", tokens, padding_B1)
        place_T = builder.op("Range", zero, tokens, one)
        row_B = builder.op("Range", zero, builder.op("Squeeze", batch_1), one)
        first_B1 = builder.op("Mul", builder.op("Unsqueeze", row_B, second), tokens)
        to_front_N, back_N = (
            builder.op(
                "Reshape",
                builder.op("Add", first_B1, builder.op("Mod", builder.op("Add", place_T, by_B1), tokens)),
                builder.integers(-1),
            )
            for by_B1 in (padding_B1, rest_B1)
        )
        past_BP = builder.op("Slice", attention_mask_BS, builder.integers(0), new_from_1, second)
        past_B = builder.op("ReduceSum", past_BP, second, keepdims=0)
        last_B = builder.op("Add", past_B, builder.op("Sub", tokens, one))
        position_N = builder.op("Reshape", position_ids_BT, builder.integers(-1))
        position_BT = builder.op("Reshape", builder.op("Gather", position_N, to_front_N), self.shape_BT)
        tables = self._rotations.tables(position_N, slots_1, tokens_1)
        place = None
        if has_int8_cache(config):
            first_1 = builder.op("ReduceMax", past_B, builder.integers(0), keepdims=1)
            place = Place(first_1, builder.op("Add", first_1, tokens_1), builder.op("Equal", tokens, one))
        return Compact(
            to_front_N,
            back_N,
            past_B,
            builder.cast(last_B, ir.DataType.INT32),
            builder.cast(builder.op("Squeeze", slots_1), ir.DataType.INT32),
            position_BT,
            tables,
            place,
        )

    def _place_slots(self, attention_mask_BS: ir.Value) -> None:
        builder = self.builder
        zero, one = builder.integer(0), builder.integer(1)
        slots = builder.op("Squeeze", builder.op("Shape", attention_mask_BS, start=1))
        queries = builder.op(
            "Squeeze", builder.op("Slice", self.shape_BT, builder.integers(1), builder.integers(2))
        )
        self._slot_S = builder.op("Range", zero, slots, one)
        query_slot_T = builder.op("Range", builder.op("Sub", slots, queries), slots, one)
        self._query_slot_T1 = builder.op("Unsqueeze", query_slot_T, builder.integers(1))
        self._distance_TS = builder.op("Sub", self._query_slot_T1, self._slot_S)
        self._valid_BS = builder.cast(attention_mask_BS, ir.DataType.BOOL)

    def _visible(self, window: Window, causal: bool) -> ir.Value:
        """Return which keys a query sees; a padding query sees itself, so that no softmax is empty."""
        builder = self.builder
        assert causal, "a graph with a cache attends causally"
        allowed_TS = builder.op("GreaterOrEqual", self._distance_TS, builder.integer(0))
        if window is not None:
            near_TS = builder.op("Less", self._distance_TS, builder.integer(window))
            allowed_TS = builder.op("And", allowed_TS, near_TS)
        valid_B11S = builder.op("Unsqueeze", self._valid_BS, builder.integers(1, 2))
        itself_TS = builder.op("Equal", self._distance_TS, builder.integer(0))
        return builder.op("Or", builder.op("And", valid_B11S, allowed_TS), itself_TS)

    def _standard_slots(self) -> Slots:
        """Return the tokens' slots in caches that grow by concatenation."""
        builder = self.builder
        ones_BS = builder.cast(self._valid_BS, ir.DataType.INT64)
        count_BS = builder.op("CumSum", ones_BS, builder.integer(1))
        position_BS = builder.op("Max", builder.op("Sub", count_BS, builder.integer(1)), builder.integer(0))
        query_slot_T = builder.op("Squeeze", self._query_slot_T1, builder.integers(1))
        position_BT = builder.op("Gather", position_BS, query_slot_T, axis=1)
        slot_BT = builder.op("Expand", query_slot_T, builder.op("Shape", position_BT))
        slots = builder.op("Squeeze", builder.op("Shape", self._valid_BS, start=1))
        return Slots(slots, position_BT, slot_BT, None, self._valid_BS, position_BS)

    def _compact_slots(self, compact: Compact, past_BGPD: ir.Value | None) -> Slots:
        """Return the tokens' slots in caches that are written in place: those of their positions."""
        builder = self.builder
        assert past_BGPD is not None
        past_slots_1 = builder.op("Shape", past_BGPD, start=2, end=3)
        tokens = builder.op("Squeeze", builder.op("Shape", compact.position_ids_BT, start=1))
        place_T = builder.op("Range", builder.integer(0), tokens, builder.integer(1))
        past_B1 = builder.op("Unsqueeze", compact.past_B, builder.integers(1))
        position_BT = builder.op("Add", past_B1, place_T)
        slots = builder.cast(compact.slots, ir.DataType.INT64)
        capacity = builder.op("Max", builder.op("Squeeze", past_slots_1), slots)
        last_B1 = builder.op(
            "Unsqueeze", builder.cast(compact.last_B, ir.DataType.INT64), builder.integers(1)
        )
        return Slots(capacity, position_BT, position_BT, last_B1, past_B=compact.past_B)

    def no_keys(self, width: int) -> ir.Value:
        """Return the keys or values of no tokens, `B0x`."""
        if width not in self._no_keys:
            builder = self.builder
            batch_1 = builder.op("Slice", self.shape_BT, builder.integers(0), builder.integers(1))
            shape = builder.op("Concat", batch_1, builder.integers(0, width), axis=0)
            self._no_keys[width] = builder.op("ConstantOfShape", shape)
        return self._no_keys[width]

    def cache_index(self, kv_heads: int) -> ir.Value:
        """Return the index of each new token in a compact cache of this many heads, `(B, G, T, 3)`."""
        if kv_heads not in self._cache_index:
            builder = self.builder
            slot_B1T1 = builder.op("Unsqueeze", self.slots.slot_BT, builder.integers(1, 3))
            batch = builder.op("Squeeze", builder.op("Shape", slot_B1T1, end=1))
            row_B = builder.op("Range", builder.integer(0), batch, builder.integer(1))
            row_B111 = builder.op("Reshape", row_B, builder.integers(-1, 1, 1, 1))
            head_G11 = builder.vector(
                f"heads_{kv_heads}", np.arange(kv_heads, dtype=np.int64).reshape(-1, 1, 1)
            )
            shape = builder.op("Add", builder.op("Shape", slot_B1T1), builder.integers(0, kv_heads - 1, 0, 0))
            parts = (builder.op("Expand", each, shape) for each in (row_B111, head_G11, slot_B1T1))
            self._cache_index[kv_heads] = builder.op("Concat", *parts, axis=3)
        return self._cache_index[kv_heads]

    def without_padding(self, x_BTC: ir.Value) -> ir.Value:
        """Return an activation with zeros at the padding before tokens."""
        if self.compact is not None:
            return x_BTC
        mask_BT = self.builder.cast(self._new_mask(), self.builder.dtype)
        return self.builder.op("Mul", x_BTC, self.builder.op("Unsqueeze", mask_BT, self.builder.integers(2)))

    def real(self) -> ir.Value:
        """Return 1 for new tokens and 0 for padding, float32 `BT1`, in the layers' order."""
        if self._real_BT1 is None:
            real_N = self.builder.cast(self.to_front(self._new_mask()), ir.DataType.FLOAT)
            self._real_BT1 = self.rows(real_N)
        return self._real_BT1

    def following(self, count: int) -> ir.Value:
        """Return `count` indices from the end of each row's new tokens on, `BK1`, for `GatherND`.

        They select the last of `count` cached tokens and the new ones after them.
        """
        if count not in self._following:
            builder = self.builder
            mask_BT = builder.cast(self._new_mask(), ir.DataType.INT64)
            if self.compact is not None:
                end_B1 = builder.op("ReduceSum", mask_BT, builder.integers(1))
            else:
                last_B1 = builder.op("ArgMax", mask_BT, axis=1, select_last_index=1)
                end_B1 = builder.op("Add", last_B1, builder.integer(1))
            place_K = builder.vector(f"places_{count}", np.arange(count, dtype=np.int64))
            place_BK = builder.op("Add", end_B1, place_K)
            self._following[count] = builder.op("Unsqueeze", place_BK, builder.integers(2))
        return self._following[count]

    def _new_mask(self) -> ir.Value:
        """Return which new tokens are not padding, `BT`, in the callers' order."""
        if self._new_mask_BT is None:
            builder = self.builder
            slot_T = builder.op("Squeeze", self._query_slot_T1, builder.integers(1))
            self._new_mask_BT = builder.op("Gather", self._valid_BS, slot_T, axis=1)
        return self._new_mask_BT

    def _add_blocks(self, attentions: Sequence[Attention], slots: Callable[[], Slots]) -> None:
        kinds = dict.fromkeys(
            (each.window, each.sparse.size) for each in attentions if isinstance(each.sparse, BlockSparse)
        )
        if kinds:
            self.slots = slots()
            self.blocks = {each: Blocks(self.builder, self.slots, *each) for each in kinds}
