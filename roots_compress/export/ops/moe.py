"""A mixture of experts as ONNX operators.

ONNX Runtime's `MoE` and `QMoE` run a token's own experts only. On a CPU (1.31) they take experts whose gate
has SiLU, with the rows of gate and up interleaved; `QMoE` takes the grouped formats, if the group size
divides both widths. Otherwise, and in a portable graph, every expert runs on every token, and the router
weighs them.

Shape legend: N tokens of all rows of the batch, W hidden size, F channels, E experts, K experts chosen for a
token.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from roots_compress.export.builder import MICROSOFT, Attribute, GraphBuilder
from roots_compress.export.ops.mlp import activate
from roots_compress.export.weights import ACCURACY_LEVEL, Matrices
from roots_compress.models.blocks.moe import LEAST_SUM
from roots_compress.models.ops.moe import Clamp, Groups, Moe

LEAST_GROUP = 16
"""Values that share a scale in `QMoE`, which takes powers of two from here on."""
ROUTER_WEIGHTS = 14
"""The index of the experts' weights among the inputs of `QMoE`, the last."""


def moe(matrices: Matrices, op: Moe, module: str, x_NW: ir.Value) -> ir.Value:
    """Return the weighted sum of the chosen experts' outputs, `NW`."""
    if _is_fusible(matrices, op, module):
        return _fused(matrices, op, module, x_NW)
    builder = matrices.builder
    weights_NE = _routed(matrices, op, module, x_NW)
    total_NW: ir.Value | None = None
    for number, expert in enumerate(op.names()):
        gate_NF, up_NF = (
            matrices.linear(f"{module}.{expert}.{name}", x_NW) for name in ("gate_proj", "up_proj")
        )
        if op.clamp is None:
            inner_NF = builder.op("Mul", activate(builder, op.activation, gate_NF), up_NF)
        else:
            inner_NF = _clamped(builder, op.clamp, gate_NF, up_NF)
        given_NW = matrices.linear(f"{module}.{expert}.down_proj", inner_NF)
        weight_N1 = builder.op("Gather", weights_NE, builder.integers(number), axis=1)
        weighted_NW = builder.op("Mul", given_NW, weight_N1)
        total_NW = weighted_NW if total_NW is None else builder.op("Add", total_NW, weighted_NW)
    assert total_NW is not None
    return total_NW


def _clamped(builder: GraphBuilder, clamp: Clamp, gate_NF: ir.Value, up_NF: ir.Value) -> ir.Value:
    """Return the gated outputs of a layer, with both factors bounded; see `Clamp`."""
    least, most = builder.floats(-clamp.limit), builder.floats(clamp.limit)
    gate_NF, up_NF = builder.op("Clip", gate_NF, None, most), builder.op("Clip", up_NF, least, most)
    slope_NF = builder.op("Sigmoid", builder.op("Mul", gate_NF, builder.floats(clamp.alpha)))
    gated_NF = builder.op("Mul", gate_NF, slope_NF)
    return builder.op("Mul", gated_NF, builder.op("Add", up_NF, builder.floats(1.0)))


def _is_fusible(matrices: Matrices, op: Moe, module: str) -> bool:
    """Return whether ONNX Runtime's operators express a block in its stored format."""
    shapes = op.matrices(matrices.config.hidden_size)
    (weight_format, size), *others = {matrices.storage(f"{module}.{name}") for name in shapes}
    if matrices.builder.portable or op.activation != "silu" or others or weight_format == "w8a8":
        return False
    if size is None:
        return True
    whole = all(each.width % size == 0 for each in shapes.values())
    return whole and size >= LEAST_GROUP and size & (size - 1) == 0


def _fused(matrices: Matrices, op: Moe, module: str, x_NW: ir.Value) -> ir.Value:
    """Return the block as one operator, `NW`."""
    builder = matrices.builder
    weight_format, size = matrices.storage(f"{module}.experts.0.gate_proj")
    plain = op.scores == "softmax" and not op.selection_bias and op.groups is None and op.scale == 1
    renormalise, total_N1 = op.renormalise, None
    if plain:
        logits_NE = matrices.linear(f"{module}.router", x_NW)
    else:
        # The operators weigh the chosen experts by a softmax, which restores the weights from these
        # logarithms.
        weights_NE = _routed(matrices, op, module, x_NW)
        least = builder.floats(1e-30 if builder.dtype == ir.DataType.FLOAT else 1e-7)
        logits_NE = builder.op("Log", builder.op("Max", weights_NE, least))
        total_N1 = builder.op("ReduceSum", weights_NE, builder.integers(-1))
        renormalise = True
    attributes: dict[str, Attribute] = {
        "k": op.chosen,
        "activation_type": "swiglu",
        "swiglu_fusion": 1,
        "activation_alpha": 1.0,
        "activation_beta": 0.0,
    }
    if op.clamp is not None:
        attributes |= {"activation_alpha": op.clamp.alpha, "activation_beta": 1.0}
        attributes["swiglu_limit"] = op.clamp.limit
    biases: list[ir.Value | None] = [None, None]
    if op.bias:
        biases = [_first(matrices, op, module, "bias"), _second(matrices, op, module, "bias")]
    if weight_format is None:
        inputs = [x_NW, logits_NE, _first(matrices, op, module, "weight"), biases[0]]
        inputs += [_second(matrices, op, module, "weight"), biases[1]]
        attributes["normalize_routing_weights"] = int(renormalise)
        given_NW = builder.op("MoE", *inputs, domain=MICROSOFT, **attributes)
        return given_NW if total_N1 is None else builder.op("Mul", given_NW, total_N1)
    assert size is not None
    attributes |= {
        "expert_weight_bits": 8 if weight_format == "w8" else 4,
        "block_size": size,
        "accuracy_level": ACCURACY_LEVEL,
        "weights_prepacked": 0,
    }
    parts = ("weight", "weight_scale")
    inputs = [x_NW, logits_NE, *(_first(matrices, op, module, part) for part in parts), biases[0]]
    inputs += [*(_second(matrices, op, module, part) for part in parts), biases[1], None, None, None]
    if weight_format == "w4":
        zero = "weight_zero_point"
        inputs += [_first(matrices, op, module, zero), _second(matrices, op, module, zero), None]
    if not renormalise:
        # By itself the operator weighs the chosen experts by the softmax over them alone.
        inputs += [None] * (ROUTER_WEIGHTS - len(inputs))
        inputs.append(builder.op("Softmax", logits_NE, axis=-1))
    given_NW = builder.op("QMoE", *inputs, domain=MICROSOFT, **attributes)
    return given_NW if total_N1 is None else builder.op("Mul", given_NW, total_N1)


def _first(matrices: Matrices, op: Moe, module: str, part: str) -> ir.Value:
    """Return a tensor of gates and ups, `(E, 2F, ...)`: a row of the gate, then the same of the other."""
    names = [[f"{module}.{expert}.{name}" for name in ("gate_proj", "up_proj")] for expert in op.names()]
    return matrices.stacked(f"{module}.experts.gate_up_proj.{part}", names, part)


def _second(matrices: Matrices, op: Moe, module: str, part: str) -> ir.Value:
    """Return a tensor of the last projections, `(E, W, ...)`."""
    names = [[f"{module}.{expert}.down_proj"] for expert in op.names()]
    return matrices.stacked(f"{module}.experts.down_proj.{part}", names, part)


def _routed(matrices: Matrices, op: Moe, module: str, x_NW: ir.Value) -> ir.Value:
    """Return each expert's weight for each token, 0 if not chosen, `NE`."""
    builder = matrices.builder
    logits_NE = builder.cast(matrices.linear(f"{module}.router", x_NW), ir.DataType.FLOAT)
    sigmoid = op.scores == "sigmoid"
    chances_NE = builder.op("Sigmoid", logits_NE) if sigmoid else builder.op("Softmax", logits_NE, axis=-1)
    ranked_NE = chances_NE
    if op.selection_bias:
        bias_E = matrices.state[f"{module}.selection_bias"].float()
        ranked_NE = builder.op("Add", chances_NE, builder.weight(f"{module}.selection_bias_float32", bias_E))
    if op.groups is not None:
        ranked_NE = _in_best_groups(builder, op.groups, op.experts, ranked_NE)
    best_NK, number_NK = builder.op_outputs("TopK", (ranked_NE, builder.integers(op.chosen)), 2, axis=-1)
    if op.selection_bias:
        best_NK = builder.op("GatherElements", chances_NE, number_NK, axis=-1)
    if op.renormalise:
        sum_N1 = builder.op("ReduceSum", best_NK, builder.integers(-1))
        if op.least_sum is not None:
            sum_N1 = builder.op("Max", sum_N1, builder.float32(op.least_sum))
        elif sigmoid:
            sum_N1 = builder.op("Add", sum_N1, builder.float32(LEAST_SUM))
        best_NK = builder.op("Div", best_NK, sum_N1)
    if op.scale != 1:
        best_NK = builder.op("Mul", best_NK, builder.float32(op.scale))
    nothing_NE = _filled(builder, chances_NE, 0.0)
    weights_NE = builder.op("ScatterElements", nothing_NE, number_NK, best_NK, axis=-1)
    return weights_NE if builder.dtype == ir.DataType.FLOAT else builder.cast(weights_NE, builder.dtype)


def _in_best_groups(builder: GraphBuilder, groups: Groups, experts: int, ranked_NE: ir.Value) -> ir.Value:
    """Return the experts' selection scores, minus infinity outside each token's best groups, `NE`."""
    shape = builder.integers(-1, groups.count, experts // groups.count)
    ranked_NGX = builder.op("Reshape", ranked_NE, shape)
    best_NGx, _ = builder.op_outputs("TopK", (ranked_NGX, builder.integers(groups.best)), 2, axis=-1)
    ranked_NG = builder.op("ReduceSum", best_NGx, builder.integers(-1), keepdims=0)
    _, number_Nx = builder.op_outputs("TopK", (ranked_NG, builder.integers(groups.chosen)), 2, axis=-1)
    outside_NG = _filled(builder, ranked_NG, float("-inf"))
    inside_Nx = _filled(builder, number_Nx, 0.0)
    added_NG = builder.op("ScatterElements", outside_NG, number_Nx, inside_Nx, axis=-1)
    added_NG1 = builder.op("Unsqueeze", added_NG, builder.integers(-1))
    return builder.op("Reshape", builder.op("Add", ranked_NGX, added_NG1), builder.op("Shape", ranked_NE))


def _filled(builder: GraphBuilder, like: ir.Value, value: float) -> ir.Value:
    """Return a float32 tensor of one value, in the shape of another."""
    return builder.op(
        "ConstantOfShape", builder.op("Shape", like), value=ir.tensor(np.full(1, value, np.float32))
    )
