"""Norms as ONNX operators.

Shape legend: N tokens of all rows of the batch, W hidden size. Activations are flat matrices.
"""

from __future__ import annotations

import onnx_ir as ir

from roots_compress.export.builder import GraphBuilder
from roots_compress.export.weights import Matrices
from roots_compress.models.spec import Norm


def rms_norm(builder: GraphBuilder, x: ir.Value, weight: ir.Value, epsilon: float) -> ir.Value:
    """Return the RMS norm over the last axis, with statistics in float32 for any type of `x`."""
    return builder.op("RMSNormalization", x, weight, axis=-1, epsilon=epsilon, stash_type=1)


def norm(matrices: Matrices, spec: Norm, module: str, x_NW: ir.Value) -> ir.Value:
    """Return the normalisation of a specification, its weights those of a module, `NW`."""
    builder, weight = matrices.builder, matrices.vector(module + ".weight")
    if spec.kind == "rms_norm":
        return rms_norm(builder, x_NW, weight, spec.eps)
    # ONNX Runtime 1.31 crashes when it fuses an addition with a norm that has no bias.
    bias = matrices.vector(module + ".bias") if spec.bias else builder.filled(matrices.config.hidden_size, 0)
    return builder.op("LayerNormalization", x_NW, weight, bias, axis=-1, epsilon=spec.eps, stash_type=1)


def by_head(
    builder: GraphBuilder,
    x: ir.Value,
    gain: ir.Value,
    epsilon: float,
    heads: int,
    width: int,
    leading: tuple[int, ...] = (-1,),
) -> ir.Value:
    """Return an activation normed head by head, each over its own channels.

    `leading` are the axes before the channels, as `Reshape` takes them: one of `Nx`, two of `BTx`.
    """
    split = builder.op("Reshape", x, builder.integers(*leading, heads, width))
    normed = rms_norm(builder, split, gain, epsilon)
    return builder.op("Reshape", normed, builder.integers(*leading, heads * width))
