"""A mixture of experts as ONNX operators, in a plain form: every expert runs, and the router weighs them.

Shape legend: N tokens of all rows of the batch, W hidden size, E experts, K experts chosen for a token.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from roots_compress.export.ops.mlp import activate
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.moe import Moe


def moe(matrices: Matrices, op: Moe, module: str, x_NW: ir.Value) -> ir.Value:
    """Return the weighted sum of what the chosen experts give, `NW`."""
    builder = matrices.builder
    weights_NE = _routed(matrices, op, module, x_NW)
    total_NW: ir.Value | None = None
    for number, expert in enumerate(op.names()):
        gate_NF, up_NF = (
            matrices.linear(f"{module}.{expert}.{name}", x_NW) for name in ("gate_proj", "up_proj")
        )
        inner_NF = builder.op("Mul", activate(builder, op.activation, gate_NF), up_NF)
        given_NW = matrices.linear(f"{module}.{expert}.down_proj", inner_NF)
        weight_N1 = builder.op("Gather", weights_NE, builder.integers(number), axis=1)
        weighted_NW = builder.op("Mul", given_NW, weight_N1)
        total_NW = weighted_NW if total_NW is None else builder.op("Add", total_NW, weighted_NW)
    assert total_NW is not None
    return total_NW


def _routed(matrices: Matrices, op: Moe, module: str, x_NW: ir.Value) -> ir.Value:
    """Return each expert's weight for each token, 0 where it is not chosen, `NE`."""
    builder = matrices.builder
    logits_NE = matrices.linear(f"{module}.router", x_NW)
    chances_NE = builder.op("Softmax", builder.cast(logits_NE, ir.DataType.FLOAT), axis=-1)
    best_NK, number_NK = builder.op_outputs("TopK", (chances_NE, builder.integers(op.chosen)), 2, axis=-1)
    if op.renormalise:
        best_NK = builder.op("Div", best_NK, builder.op("ReduceSum", best_NK, builder.integers(-1)))
    nothing = ir.tensor(np.zeros(1, np.float32))
    nothing_NE = builder.op("ConstantOfShape", builder.op("Shape", chances_NE), value=nothing)
    weights_NE = builder.op("ScatterElements", nothing_NE, number_NK, best_NK, axis=-1)
    return weights_NE if builder.dtype == ir.DataType.FLOAT else builder.cast(weights_NE, builder.dtype)
