"""Per-layer embeddings, and the block that reads them, as ONNX operators.

Shape legend: N tokens of all rows of the batch, W hidden size, L layers, P channels for each layer.
"""

from __future__ import annotations

import onnx_ir as ir

from roots_compress.export.norms import rms_norm
from roots_compress.export.ops.mlp import activate
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.layer_input import LayerInput
from roots_compress.models.spec import LAYER_PROJECTION, LAYER_TABLE


def layer_inputs(matrices: Matrices, tokens_N: ir.Value, hidden_NW: ir.Value) -> ir.Value:
    """Return the per-layer embeddings of tokens, `NLP`; see `models/layer_inputs.py`."""
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
