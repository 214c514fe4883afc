"""Score biases by distances and windows, as ONNX operators.

`models/relative.py` defines the distances.

Shape legend: B batch, T queries, S keys, H heads, D head dimension, P distances, R rows of distances.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from roots_compress.export.weights import Matrices
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.positions import Disentangled, Relative
from roots_compress.models.relative import bucket_of, row_of

LOWEST = -1e4
"""Bias at invisible keys, as in ONNX Runtime's own masks; float16 can represent it."""


class Distances:
    """Biases on the scores of a graph's attentions; those with equal tables share one.

    Args:
        keys: their number, `(1,)`; the queries are in the last slots.
    """

    def __init__(self, matrices: Matrices, queries: ir.Value, keys: ir.Value) -> None:
        self._matrices, self._queries, self._keys = matrices, queries, keys
        self._distance_TS: ir.Value | None = None
        self._added: dict[tuple[Relative, bool, bytes], ir.Value] = {}
        self._windows: dict[int, ir.Value] = {}
        self._rows: dict[tuple[Disentangled, bool], ir.Value] = {}

    def added(self, op: Attention, module: str) -> ir.Value | None:
        """Return the bias on an attention's scores, `1HTS` or `11TS`; None if there is none."""
        windowed = None if op.window is None else self._outside(op.window)
        if op.relative is None:
            return windowed
        name = f"{module}.relative.weight"
        key = op.relative, op.causal, self._matrices.state[name].numpy().tobytes()
        if key not in self._added:
            self._added[key] = self._by_head(op.relative, name, causal=op.causal)
        learned = self._added[key]
        return learned if windowed is None else self._matrices.builder.op("Add", learned, windowed)

    def met(self, op: Attention, module: str, query_BTX: ir.Value, key_BTX: ir.Value) -> ir.Value | None:
        """Return the scores' bias from products of content and distance, `BHTT`; None if there are none.

        Each query is multiplied with all `2T` possible distances; those of its keys are T consecutive ones
        (`_of_keys`). The products with keys are transposed.
        """
        if op.disentangled is None:
            return None
        builder, found = self._matrices.builder, list[ir.Value]()
        with builder.scope("distances"):
            for name in op.disentangled.tables:
                of_queries = name == "query_distances"
                content_BTHD = builder.op(
                    "Reshape",
                    query_BTX if of_queries else key_BTX,
                    builder.integers(0, 0, op.heads, op.head_dim),
                )
                content_BHTD = builder.op("Transpose", content_BTHD, perm=[0, 2, 1, 3])
                tensor = self._matrices.state[f"{module}.{name}.weight"]
                table_RX = builder.weight(f"{module}.{name}.weight", tensor, factors=[op.factor])
                row_P = self._row_of_place(op.disentangled, of_queries=of_queries)
                table_PHD = builder.op(
                    "Reshape",
                    builder.op("Gather", table_RX, row_P),
                    builder.integers(0, op.heads, op.head_dim),
                )
                table_HDP = builder.op("Transpose", table_PHD, perm=[1, 2, 0])
                products_BHTP = builder.op("MatMul", content_BHTD, table_HDP)
                met_BHTT = self._of_keys(products_BHTP)
                found.append(met_BHTT if of_queries else builder.op("Transpose", met_BHTT, perm=[0, 1, 3, 2]))
            return found[0] if len(found) == 1 else builder.op("Add", *found)

    def _row_of_place(self, disentangled: Disentangled, *, of_queries: bool) -> ir.Value:
        """Return the rows of the distances from `1 - T` to `T`, `P`; of keys from `T - 1` to `-T`."""
        if (disentangled, of_queries) not in self._rows:
            builder = self._matrices.builder
            far = disentangled.rows + (disentangled.max_distance or 0)
            row_P = row_of(torch.arange(-far, far + 1), disentangled).numpy().astype(np.int64)
            place_P = self._places(-far, far)
            if not of_queries:  # Distances the other way round.
                place_P = builder.op("Sub", builder.integer(2 * far), place_P)
            table = builder.vector(f"distance_rows_{disentangled.rows}_{disentangled.max_distance}", row_P)
            self._rows[disentangled, of_queries] = builder.op("Gather", table, place_P)
        return self._rows[disentangled, of_queries]

    def _outside(self, window: int) -> ir.Value:
        """Return 0 at keys in a window to both sides and a large negative number at others, `11TS`."""
        if window not in self._windows:
            builder = self._matrices.builder
            with builder.scope("windows"):
                inside_TS = builder.op("Less", builder.op("Abs", self._distances()), builder.integer(window))
                bias_TS = builder.op("Where", inside_TS, builder.floats(0.0), builder.floats(LOWEST))
                self._windows[window] = builder.op("Unsqueeze", bias_TS, builder.integers(0, 1))
        return self._windows[window]

    def _by_head(self, relative: Relative, name: str, *, causal: bool) -> ir.Value:
        builder, far = self._matrices.builder, relative.max_distance
        lowest, highest = -far, 0 if causal else far
        known = torch.arange(lowest, highest + 1)
        bucket_P = bucket_of(known, relative, causal=causal).numpy().astype(np.int64)
        kind = f"{relative.buckets}_{far}{'_causal' if causal else ''}"
        with builder.scope("distances"):
            # Depends only on weights, so it is computed once, when the graph is opened.
            table_PH = builder.op(
                "Gather", self._matrices.vector(name), builder.vector(f"distance_buckets_{kind}", bucket_P)
            )
            table_HP = builder.op("Transpose", table_PH, perm=[1, 0])
            # One number for each distance, then copies of rows of these. A lookup for each pair of
            # tokens took a fifth of an int8 encoder's time for 512 tokens (docs/log/export.md).
            added_HP = builder.op("Gather", table_HP, self._places(lowest, highest), axis=1)
            added_1H1P = builder.op("Unsqueeze", added_HP, builder.integers(0, 2))
            shape = builder.op("Concat", self._queries, builder.integers(1), axis=0)
            return self._of_keys(builder.op("Expand", added_1H1P, shape))

    def _of_keys(self, distances_BHTP: ir.Value) -> ir.Value:
        """Return `BHTS`, the queries' values for their keys, from their values for distances `1 - S` to `T`.

        These are S consecutive values, which begin one further left for the next query: two reshapes and two
            slices extract them.
        """
        builder = self._matrices.builder
        last_1 = builder.op("Sub", self._queries, builder.integers(1))
        width_1 = builder.op("Add", self._keys, last_1)
        end_1 = builder.op("Add", last_1, builder.op("Mul", self._queries, width_1))
        flat_BHx = builder.op("Reshape", distances_BHTP, builder.integers(0, 0, -1))
        shifted_BHx = builder.op("Slice", flat_BHx, last_1, end_1, builder.integers(2))
        shape = builder.op("Concat", builder.integers(0, 0), self._queries, width_1, axis=0)
        rows_BHTP = builder.op("Reshape", shifted_BHx, shape)
        return builder.op("Slice", rows_BHTP, builder.integers(0), self._keys, builder.integers(3))

    def _places(self, lowest: int, highest: int) -> ir.Value:
        """Return the indices of distances `1 - S` to `T`, `P`, in a table from `lowest` to `highest`.

        Distances beyond its ends have the indices of the ends.
        """
        builder, one = self._matrices.builder, self._matrices.builder.integer(1)
        keys, queries = (builder.op("Squeeze", size) for size in (self._keys, self._queries))
        distance_P = builder.op("Range", builder.op("Sub", one, keys), builder.op("Add", queries, one), one)
        least, most = builder.integer(lowest), builder.integer(highest)
        kept_P = builder.op("Min", builder.op("Max", distance_P, least), most)
        return builder.op("Sub", kept_P, least)

    def _distances(self) -> ir.Value:
        """Return the distance of each key from each query, `TS`."""
        if self._distance_TS is None:
            builder = self._matrices.builder
            zero, one = builder.integer(0), builder.integer(1)
            keys, queries = (builder.op("Squeeze", size) for size in (self._keys, self._queries))
            key_S = builder.op("Range", zero, keys, one)
            query_T = builder.op("Range", builder.op("Sub", keys, queries), keys, one)
            self._distance_TS = builder.op(
                "Sub", key_S, builder.op("Unsqueeze", query_T, builder.integers(1))
            )
        return self._distance_TS
