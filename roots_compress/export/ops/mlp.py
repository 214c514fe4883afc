"""Feed-forward blocks as ONNX operators.

Shape legend: N tokens of all rows of the batch, W hidden size, F channels, L layers, P channels
for each layer. Activations are flat matrices.
"""

from __future__ import annotations

from typing import Literal

import onnx_ir as ir

from roots_compress.export.builder import GraphBuilder
from roots_compress.export.norms import rms_norm
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.mlp import Activation, LayerInput, Mlp
from roots_compress.models.spec import LAYER_PROJECTION, LAYER_TABLE


def mlp(matrices: Matrices, op: Mlp, module: str, x_NW: ir.Value) -> ir.Value:
    """Return the output of a module's block for its input, `NW`."""
    builder = matrices.builder
    projections = [f"{module}.{name}" for name in op.producers]
    if not op.gated:
        inner_NF = activate(builder, op.activation, matrices.linear(projections, x_NW))
    elif matrices.joinable(projections):
        both = matrices.linear(projections, x_NW)
        gate_NF, up_NF = builder.op_outputs("Split", (both,), 2, axis=-1, num_outputs=2)
        inner_NF = builder.op("Mul", activate(builder, op.activation, gate_NF), up_NF)
    else:
        gate_NF, up_NF = (matrices.linear(name, x_NW) for name in projections)
        inner_NF = builder.op("Mul", activate(builder, op.activation, gate_NF), up_NF)
    given_NW = matrices.linear(f"{module}.down_proj", inner_NF)
    if not op.weighed:
        return given_NW
    return builder.op("Mul", given_NW, builder.op("Sigmoid", matrices.linear(f"{module}.router", x_NW)))


def activate(builder: GraphBuilder, activation: Activation | Literal["tanh"], x: ir.Value) -> ir.Value:
    """Return an activation function of `x`."""
    match activation:
        case "silu":
            # ONNX Runtime fuses this pair; ONNX's own Swish came with opset 24 only.
            return builder.op("Mul", x, builder.op("Sigmoid", x))
        case "gelu":
            return builder.op("Gelu", x)
        case "gelu_tanh":
            return builder.op("Gelu", x, approximate="tanh")
        case "relu":
            return builder.op("Relu", x)
        case "tanh":
            return builder.op("Tanh", x)
        case "relu2":
            positive = builder.op("Relu", x)
            return builder.op("Mul", positive, positive)


def layer_inputs(matrices: Matrices, tokens_N: ir.Value, hidden_NW: ir.Value) -> ir.Value:
    """Return what the layers read of tokens, `NLP`; see `models/layer_inputs.py`."""
    builder, spec = matrices.builder, matrices.config.spec
    wanted = spec.embeddings.layer_inputs
    assert wanted is not None
    by_layer = builder.integers(-1, len(spec.layers), wanted.channels)
    with builder.scope("embedding"):
        own_NLP = builder.op("Reshape", matrices.embedding(LAYER_TABLE, tokens_N), by_layer)
        own_NLP = builder.op("Mul", own_NLP, builder.floats((wanted.channels / 2) ** 0.5))
        made_Nx = builder.op(
            "Mul", matrices.linear(LAYER_PROJECTION, hidden_NW), builder.floats(spec.width**-0.5)
        )
        gain = matrices.vector("model.embed_layers.norm.weight")
        made_NLP = rms_norm(builder, builder.op("Reshape", made_Nx, by_layer), gain, wanted.eps)
        return builder.op("Add", own_NLP, builder.op("Mul", made_NLP, builder.floats(0.5**0.5)))


def layer_input(
    matrices: Matrices, op: LayerInput, module: str, x_NW: ir.Value, own_NLP: ir.Value, layer: int
) -> ir.Value:
    """Return the output of a layer's block, `NW`."""
    builder = matrices.builder
    gate_NP = activate(builder, op.activation, matrices.linear(f"{module}.gate_proj", x_NW))
    own_NP = builder.op("Gather", own_NLP, builder.integer(layer), axis=1)
    return matrices.linear(f"{module}.out_proj", builder.op("Mul", gate_NP, own_NP))
