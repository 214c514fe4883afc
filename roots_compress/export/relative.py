"""What distances add to the scores of attention, and windows take from it, as ONNX operators.

`models/relative.py` says what distances add.

Shape legend: T queries, S keys, H heads, P distances that differ in their buckets.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from roots_compress.export.weights import Matrices
from roots_compress.models.ops.attention import Attention, Relative
from roots_compress.models.relative import bucket_of

LOWEST = -1e4
"""Added to scores of keys that are not seen, as in ONNX Runtime's own masks; float16 holds it."""


class Distances:
    """Additions to the scores of a graph's attentions; one serves for all whose tables are equal.

    Args:
        matrices: of the model.
        queries: how many there are, `(1,)`.
        keys: how many there are, `(1,)`; the queries are the last of them.
    """

    def __init__(self, matrices: Matrices, queries: ir.Value, keys: ir.Value) -> None:
        self._matrices, self._queries, self._keys = matrices, queries, keys
        self._distance_TS: ir.Value | None = None
        self._added: dict[tuple[Relative, bool, bytes], ir.Value] = {}
        self._windows: dict[int, ir.Value] = {}

    def added(self, op: Attention, module: str) -> ir.Value | None:
        """Return what is added to the scores of an attention, `1HTS` or `11TS`; None where nothing is."""
        windowed = None if op.window is None else self._outside(op.window)
        if op.relative is None:
            return windowed
        name = f"{module}.relative.weight"
        key = op.relative, op.causal, self._matrices.state[name].numpy().tobytes()
        if key not in self._added:
            self._added[key] = self._by_head(op.relative, name, causal=op.causal)
        learned = self._added[key]
        return learned if windowed is None else self._matrices.builder.op("Add", learned, windowed)

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
        distance_P = torch.arange(lowest, highest + 1)
        bucket_P = bucket_of(distance_P, relative, causal=causal).numpy().astype(np.int64)
        kind = f"{relative.buckets}_{far}{'_causal' if causal else ''}"
        with builder.scope("distances"):
            # Of weights alone, so computed once, as the graph is opened.
            table_PH = builder.op(
                "Gather", self._matrices.vector(name), builder.vector(f"distance_buckets_{kind}", bucket_P)
            )
            table_HP = builder.op("Transpose", table_PH, perm=[1, 0])
            kept_TS = builder.op(
                "Min", builder.op("Max", self._distances(), builder.integer(lowest)), builder.integer(highest)
            )
            place_TS = builder.op("Sub", kept_TS, builder.integer(lowest))
            added_HTS = builder.op("Gather", table_HP, place_TS, axis=1)
            return builder.op("Unsqueeze", added_HTS, builder.integers(0))

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
