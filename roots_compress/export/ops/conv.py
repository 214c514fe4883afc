"""A gated short convolution as ONNX operators: a sum over its taps of cached and new inputs.

Shape legend: B batch, T new tokens, N = B * T, S those and the cached ones before them, C channels, K cached
inputs of a channel, L taps.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from torch import Tensor

from roots_compress.export.builder import GraphBuilder
from roots_compress.export.shared import Shared
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.conv import READERS, ShortConv

END = int(np.iinfo(np.int64).max)


def short_conv(
    matrices: Matrices, shared: Shared, op: ShortConv, module: str, x_NW: ir.Value, past_BCK: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Return the output of a module's block for its input, `NW`, and the inputs to cache, `BCK`."""
    builder = matrices.builder
    projections = [f"{module}.{name}" for name in READERS]
    if matrices.joinable(projections):
        both = matrices.linear(projections, x_NW)
        b_NC, c_NC, x_NC = builder.op_outputs("Split", (both,), 3, axis=-1, num_outputs=3)
    else:
        b_NC, c_NC, x_NC = (matrices.linear(name, x_NW) for name in projections)
    gated_BTC = shared.without_padding(shared.rows(builder.op("Mul", b_NC, x_NC)))
    past_BKC = builder.op("Transpose", past_BCK, perm=[0, 2, 1])
    seen_BSC = builder.op("Concat", past_BKC, gated_BTC, axis=1)
    name = f"{module}.conv.weight"
    out_BTC = causal_conv(builder, seen_BSC, name, matrices.state[name])
    if op.bias:
        out_BTC = builder.op("Add", out_BTC, matrices.vector(f"{module}.conv.bias"))
    out_NC = builder.op("Reshape", out_BTC, builder.integers(-1, op.channels))
    given_NW = matrices.linear(f"{module}.out_proj", builder.op("Mul", c_NC, out_NC))
    return given_NW, last_inputs(builder, shared, seen_BSC, op.kernel)


def causal_conv(builder: GraphBuilder, seen_BSC: ir.Value, name: str, weight_C1L: Tensor) -> ir.Value:
    """Return a causal depthwise convolution, `BTC`, of cached and new inputs."""
    taps = weight_C1L.shape[-1]
    out_BTC: ir.Value | None = None
    for tap in range(taps):
        end = END if tap == taps - 1 else tap - taps + 1
        read_BTC = builder.op(
            "Slice", seen_BSC, builder.integers(tap), builder.integers(end), builder.integers(1)
        )
        weight_C = builder.weight(f"{name}_{tap}", weight_C1L[:, 0, tap].contiguous())
        product_BTC = builder.op("Mul", read_BTC, weight_C)
        out_BTC = product_BTC if out_BTC is None else builder.op("Add", out_BTC, product_BTC)
    assert out_BTC is not None
    return out_BTC


def last_inputs(builder: GraphBuilder, shared: Shared, seen_BSC: ir.Value, taps: int) -> ir.Value:
    """Return the inputs to cache, `BCK`: the K that end with the last real token."""
    present_BKC = builder.op("GatherND", seen_BSC, shared.following(taps - 1), batch_dims=1)
    return builder.op("Transpose", present_BKC, perm=[0, 2, 1])
