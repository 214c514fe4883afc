"""Gated DeltaNet as ONNX operators: ONNX Runtime's own, or a scan over the tokens in a portable graph.

Shape legend: B batch, T new tokens, N = B * T, S those and the cached ones before them, C channels of
queries, keys and values together, J cached inputs of the convolution, H value heads, K channels of a key, V
channels of a value, x heads * channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import torch

from roots_compress.export.builder import MICROSOFT, GraphBuilder
from roots_compress.export.norms import rms_norm
from roots_compress.export.ops.conv import causal_conv, last_inputs
from roots_compress.export.shared import Shared
from roots_compress.export.weights import Matrices
from roots_compress.models.blocks.delta_net import EPS
from roots_compress.models.ops.delta_net import CONVOLVED, READERS, GatedDeltaNet

FLOAT = ir.DataType.FLOAT


class Heads(NamedTuple):
    """What the heads make of tokens, in float32: queries and keys of key heads, others of value heads."""

    query_BTx: ir.Value
    key_BTx: ir.Value
    value_BTx: ir.Value
    decay_BTH: ir.Value
    rate_BTH: ir.Value


def gated_delta_net(
    matrices: Matrices,
    shared: Shared,
    op: GatedDeltaNet,
    module: str,
    x_NW: ir.Value,
    past_BCJ: ir.Value,
    past_BHKV: ir.Value,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return what the block of a module gives, `NW`, and what to cache: inputs `BCJ`, and matrices `BHKV`."""
    builder = matrices.builder
    read_NC, z_Nx, rate_NH, step_NH = _projected(matrices, op, module, x_NW)
    read_BTC = shared.without_padding(shared.rows(read_NC))
    past_BJC = builder.op("Transpose", past_BCJ, perm=[0, 2, 1])
    seen_BSC = builder.op("Concat", past_BJC, read_BTC, axis=1)
    weight_C1K = torch.cat([matrices.state[f"{module}.{part}_conv.weight"] for part in CONVOLVED])
    out_BTC = causal_conv(builder, seen_BSC, f"{module}.conv.weight", weight_C1K)
    mixed_BTC = builder.op("Mul", out_BTC, builder.op("Sigmoid", out_BTC))
    half = builder.dtype != FLOAT
    if half:
        mixed_BTC, rate_NH, step_NH, past_BHKV = (
            builder.cast(each, FLOAT) for each in (mixed_BTC, rate_NH, step_NH, past_BHKV)
        )
    query, key, value_BTx = builder.op_outputs(
        "Split", (mixed_BTC, builder.integers(*op.convolved)), 3, axis=-1
    )
    real_BT1 = shared.real()
    step_NH = builder.op("Add", step_NH, _float32(matrices, f"{module}.dt_bias"))
    decay_NH = builder.op(
        "Mul", builder.op("Softplus", step_NH), _float32(matrices, f"{module}.A_log", decay=True)
    )
    heads = Heads(
        _unit(builder, op, query, op.key_dim**-0.5),
        _unit(builder, op, key, 1.0),
        value_BTx,
        # A token of padding neither decays a matrix nor is written into it.
        builder.op("Mul", shared.rows(decay_NH), real_BT1),
        builder.op("Mul", shared.rows(builder.op("Sigmoid", rate_NH)), real_BT1),
    )
    given_BTx, present_BHKV = (_scanned if builder.portable else _fused)(builder, op, heads, past_BHKV)
    if half:
        given_BTx, present_BHKV = (builder.cast(each, builder.dtype) for each in (given_BTx, present_BHKV))
    given_NHV = builder.op("Reshape", given_BTx, builder.integers(-1, op.value_heads, op.value_dim))
    normed_NHV = rms_norm(builder, given_NHV, matrices.vector(f"{module}.norm.weight"), op.eps)
    normed_Nx = builder.op("Reshape", normed_NHV, builder.integers(-1, op.values))
    gate_Nx = builder.op("Mul", z_Nx, builder.op("Sigmoid", z_Nx))
    given_NW = matrices.linear(f"{module}.out_proj", builder.op("Mul", normed_Nx, gate_Nx))
    return given_NW, last_inputs(builder, shared, seen_BSC, op.kernel), present_BHKV


def _projected(matrices: Matrices, op: GatedDeltaNet, module: str, x_NW: ir.Value) -> tuple[ir.Value, ...]:
    """Return what the convolution reads, `NC`, the gate, and what rates and decays are made of."""
    builder, names = matrices.builder, [f"{module}.{name}" for name in READERS]
    if matrices.joinable(names):
        sizes = builder.integers(sum(op.convolved), op.values, op.value_heads, op.value_heads)
        return tuple(builder.op_outputs("Split", (matrices.linear(names, x_NW), sizes), 4, axis=-1))
    each = [matrices.linear(name, x_NW) for name in names]
    return (builder.op("Concat", *each[:3], axis=-1), *each[3:])


def _float32(matrices: Matrices, name: str, *, decay: bool = False) -> ir.Value:
    """Return a vector of the checkpoint in float32; of logarithms of decays minus what they are of."""
    vector = matrices.state[name].float()
    return matrices.builder.weight(f"{name}_float32", -vector.exp() if decay else vector)


def _unit(builder: GraphBuilder, op: GatedDeltaNet, x_BTx: ir.Value, factor: float) -> ir.Value:
    """Return each head's channels divided by their length, times a factor.

    An RMS norm divides by the length over the root of their number.
    """
    split = builder.op("Reshape", x_BTx, builder.integers(0, 0, op.key_heads, op.key_dim))
    gain = np.full(op.key_dim, factor * op.key_dim**-0.5, dtype=np.float32)
    weight = builder.vector(f"gain_{op.key_dim}_{factor}", gain)
    normed = rms_norm(builder, split, weight, EPS / op.key_dim)
    return builder.op("Reshape", normed, builder.integers(0, 0, op.keys))


def _fused(
    builder: GraphBuilder, op: GatedDeltaNet, heads: Heads, past_BHKV: ir.Value
) -> tuple[ir.Value, ir.Value]:
    query_BTx, key_BTx, value_BTx, decay_BTH, rate_BTH = heads
    given_BTx, present_BHKV = builder.op_outputs(
        "LinearAttention",
        (query_BTx, key_BTx, value_BTx, past_BHKV, decay_BTH, rate_BTH),
        2,
        domain=MICROSOFT,
        update_rule="gated_delta",
        q_num_heads=op.key_heads,
        kv_num_heads=op.value_heads,
        scale=1.0,
    )
    return given_BTx, present_BHKV


def _scanned(
    builder: GraphBuilder, op: GatedDeltaNet, heads: Heads, past_BHKV: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Return the same by a scan; see `models/delta_rule.py` for the rule."""
    count = op.value_heads

    def repeated(x_BTx: ir.Value) -> ir.Value:
        split = builder.op("Reshape", x_BTx, builder.integers(0, 0, op.key_heads, 1, op.key_dim))
        wide = builder.op("Expand", split, builder.integers(1, 1, 1, op.shared, 1))
        return builder.op("Reshape", wide, builder.integers(0, 0, count, 1, op.key_dim))

    read = [
        repeated(heads.query_BTx),
        repeated(heads.key_BTx),
        builder.op("Reshape", heads.value_BTx, builder.integers(0, 0, count, 1, op.value_dim)),
        *(
            builder.op("Reshape", x, builder.integers(0, 0, count, 1, 1))
            for x in (heads.decay_BTH, heads.rate_BTH)
        ),
    ]
    with builder.body("token") as body:
        names = ("state", "query", "key", "value", "decay", "rate")
        state, query, key, value, decay, rate = (ir.Value(name=f"{body.name}/{name}") for name in names)
        body.inputs.extend((state, query, key, value, decay, rate))
        for each in body.inputs:
            each.type = ir.TensorType(FLOAT)
        state = builder.op("Mul", state, builder.op("Exp", decay))
        error = builder.op("Sub", value, builder.op("MatMul", key, state))
        key_BHK1 = builder.op("Transpose", key, perm=[0, 1, 3, 2])
        state = builder.op("Add", state, builder.op("Mul", key_BHK1, builder.op("Mul", rate, error)))
        builder.give(body, state, builder.op("MatMul", query, state), dtype=FLOAT)
    present_BHKV, given_BTH1V = builder.op_outputs(
        "Scan",
        (past_BHKV, *read),
        2,
        body=body,
        num_scan_inputs=len(read),
        scan_input_axes=[1] * len(read),
        scan_output_axes=[1],
    )
    return builder.op("Reshape", given_BTH1V, builder.integers(0, 0, op.values)), present_BHKV
