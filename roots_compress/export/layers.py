"""Norms, activations and the feed-forward block as ONNX operators.

Shape legend: N tokens of all rows of the batch, W hidden size, F MLP width. Activations are flat matrices.
"""

from __future__ import annotations

import onnx_ir as ir

from roots_compress.export.builder import MICROSOFT, GraphBuilder
from roots_compress.export.weights import Matrices
from roots_compress.models.config import RootsConfig


def rms_norm(builder: GraphBuilder, x: ir.Value, weight: ir.Value, epsilon: float) -> ir.Value:
    """Return the RMS norm over the last axis, its statistics in float32 whatever the type of `x`."""
    return builder.op("RMSNormalization", x, weight, axis=-1, epsilon=epsilon, stash_type=1)


def norm(matrices: Matrices, module: str, x_NW: ir.Value) -> ir.Value:
    """Return the normalisation that the config names, `NW`."""
    builder, config = matrices.builder, matrices.config
    weight = matrices.vector(module + ".weight")
    if config.norm == "rms_norm":
        return rms_norm(builder, x_NW, weight, config.norm_eps)
    bias = matrices.vector(module + ".bias")
    return builder.op(
        "LayerNormalization", x_NW, weight, bias, axis=-1, epsilon=config.norm_eps, stash_type=1
    )


def add_norm(
    matrices: Matrices, hidden_NW: ir.Value, change_NW: ir.Value, module: str
) -> tuple[ir.Value, ir.Value]:
    """Add a block's contribution to the residual stream; return the stream and its norm, both `NW`."""
    builder, config = matrices.builder, matrices.config
    if builder.portable or builder.dtype != ir.DataType.FLOAT:
        hidden_NW = builder.op("Add", hidden_NW, change_NW)
        return hidden_NW, norm(matrices, module, hidden_NW)
    inputs = [hidden_NW, change_NW, matrices.vector(module + ".weight")]
    if config.norm == "rms_norm":
        operator = "SkipSimplifiedLayerNormalization"
    else:
        operator = "SkipLayerNormalization"
        inputs.append(matrices.vector(module + ".bias"))
    normed_NW, _mean, _deviation, hidden_NW = builder.op_outputs(
        operator, inputs, 4, domain=MICROSOFT, epsilon=config.norm_eps
    )
    return hidden_NW, normed_NW


def activate(builder: GraphBuilder, config: RootsConfig, x: ir.Value) -> ir.Value:
    """Return the config's activation function of `x`."""
    match config.activation:
        case "silu":
            # ONNX Runtime fuses this pair; ONNX's own Swish came with opset 24 only.
            return builder.op("Mul", x, builder.op("Sigmoid", x))
        case "gelu":
            return builder.op("Gelu", x)
        case "gelu_tanh":
            return builder.op("Gelu", x, approximate="tanh")
        case "relu":
            return builder.op("Relu", x)
        case other:
            raise AssertionError(f"no activation {other!r}: the config has checked this")


def mlp(matrices: Matrices, index: int, normed_NW: ir.Value) -> ir.Value:
    """Return the feed-forward block's contribution to the residual stream, `NW`."""
    builder, config = matrices.builder, matrices.config
    module = f"model.layers.{index}.mlp."
    projections = [module + "gate_proj", module + "up_proj"]
    if not config.gated_mlp:
        inner_NF = activate(builder, config, matrices.linear(module + "up_proj", normed_NW))
    elif matrices.joinable(projections):
        both = matrices.linear(projections, normed_NW)
        gate_NF, up_NF = builder.op_outputs("Split", (both,), 2, axis=-1, num_outputs=2)
        inner_NF = builder.op("Mul", activate(builder, config, gate_NF), up_NF)
    else:
        gate_NF, up_NF = (matrices.linear(name, normed_NW) for name in projections)
        inner_NF = builder.op("Mul", activate(builder, config, gate_NF), up_NF)
    return matrices.linear(module + "down_proj", inner_NF)
