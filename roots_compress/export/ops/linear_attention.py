"""Linear attention as ONNX operators: ONNX Runtime's own, or a scan over the tokens in a portable graph.

Shape legend: B batch, T new tokens, N = B * T, S those and the cached ones before them, C channels of
queries, keys and values together, J cached inputs of the convolution, H value heads, K channels of a key, V
channels of a value, x heads * channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
import torch

from roots_compress.export.builder import MICROSOFT, GraphBuilder
from roots_compress.export.norms import by_head, rms_norm
from roots_compress.export.ops.conv import causal_conv, last_inputs
from roots_compress.export.shared import Shared
from roots_compress.export.weights import Matrices
from roots_compress.models.blocks.linear_attention import EPS
from roots_compress.models.ops.linear_attention import GatedDeltaNet, LinearAttention, Mamba2

FLOAT = ir.DataType.FLOAT
Values = dict[str, ir.Value]


class Heads(NamedTuple):
    """The heads' inputs for tokens, in float32: queries and keys of key heads, the others of value heads."""

    query_BTx: ir.Value
    key_BTx: ir.Value
    value_BTx: ir.Value
    decay_BTH: ir.Value
    rate_BTH: ir.Value | None
    """None if values are added to a matrix."""


def linear_attention(
    matrices: Matrices,
    shared: Shared,
    op: LinearAttention,
    module: str,
    x_NW: ir.Value,
    past_BCJ: ir.Value,
    past_BHKV: ir.Value,
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Return the output of a module's block, `NW`, and its states: inputs `BCJ`, and matrices `BHKV`."""
    builder = matrices.builder
    read = _projected(matrices, op, module, x_NW)
    past_BJC = builder.op("Transpose", past_BCJ, perm=[0, 2, 1])
    new_BTC = shared.without_padding(shared.rows(read[op.streams[0]]))
    seen_BSC = builder.op("Concat", past_BJC, new_BTC, axis=1)
    parts = _convolved(matrices, op, module, seen_BSC)
    step_NH = builder.op("Add", _float(builder, read["a"]), _float32(matrices, f"{module}.dt_bias"))
    # Padding does not change a matrix.
    step_BTH = builder.op("Mul", shared.rows(builder.op("Softplus", step_NH)), shared.real())
    decay_BTH = builder.op("Mul", step_BTH, _float32(matrices, f"{module}.A_log", decay=True))
    kind = KINDS[type(op)](matrices, shared, op, module)
    heads = kind.heads(read, parts, step_BTH, decay_BTH)
    given_BTx, present_BHKV = (_scanned if builder.portable else _fused)(builder, op, heads, past_BHKV)
    given_BTx = kind.read(given_BTx, parts["v"])
    if builder.dtype != FLOAT:
        given_BTx = builder.cast(given_BTx, builder.dtype)
    given_Nx = builder.op("Reshape", given_BTx, builder.integers(-1, op.values))
    gate_Nx = builder.op("Mul", read["z"], builder.op("Sigmoid", read["z"]))
    inner_Nx = kind.gated(given_Nx, gate_Nx)
    given_NW = matrices.linear(f"{module}.out_proj", inner_Nx)
    return given_NW, last_inputs(builder, shared, seen_BSC, op.kernel), present_BHKV


def _projected(matrices: Matrices, op: LinearAttention, module: str, x_NW: ir.Value) -> Values:
    """Return the outputs of each segment's projections, `Nx`, by the segment's first letter."""
    builder = matrices.builder
    names = {letter: f"{module}.{letter}_proj" for segment in op.segments for letter in segment}
    firsts = [segment[0] for segment in op.segments]
    if matrices.joinable([*names.values()]):
        sizes = builder.integers(*(sum(map(op.rows, segment)) for segment in op.segments))
        inputs = matrices.linear([*names.values()], x_NW), sizes
        return dict(zip(firsts, builder.op_outputs("Split", inputs, len(firsts), axis=-1), strict=True))
    found = {}
    for segment in op.segments:
        each = [matrices.linear(names[letter], x_NW) for letter in segment]
        found[segment[0]] = each[0] if len(each) == 1 else builder.op("Concat", *each, axis=-1)
    return found


def _convolved(matrices: Matrices, op: LinearAttention, module: str, seen_BSC: ir.Value) -> Values:
    """Return queries, keys and values, `BTx` in float32, by their letters."""
    builder = matrices.builder

    def joined(part: str) -> torch.Tensor:
        return torch.cat([matrices.state[f"{module}.{letter}_conv.{part}"] for letter in op.streams])

    out_BTC = causal_conv(builder, seen_BSC, f"{module}.conv.weight", joined("weight"))
    if op.bias:
        out_BTC = builder.op("Add", out_BTC, builder.weight(f"{module}.conv.bias", joined("bias")))
    mixed_BTC = _float(builder, builder.op("Mul", out_BTC, builder.op("Sigmoid", out_BTC)))
    parts = builder.op_outputs("Split", (mixed_BTC, builder.integers(*op.convolved)), 3, axis=-1)
    return dict(zip(op.streams, parts, strict=True))


def _float(builder: GraphBuilder, value: ir.Value) -> ir.Value:
    return value if builder.dtype == FLOAT else builder.cast(value, FLOAT)


def _float32(matrices: Matrices, name: str, *, decay: bool = False) -> ir.Value:
    """Return a vector of the checkpoint in float32; for logarithms of decays, minus their exponentials."""
    vector = matrices.state[name].float()
    return matrices.builder.weight(f"{name}_float32", -vector.exp() if decay else vector)


@dataclass(frozen=True)
class Kind:
    """The own part of a kind of linear attention; see its block in `models/blocks/`."""

    matrices: Matrices
    shared: Shared
    op: LinearAttention
    module: str

    @property
    def builder(self) -> GraphBuilder:
        """The graph's."""
        return self.matrices.builder

    def heads(self, read: Values, parts: Values, step_BTH: ir.Value, decay_BTH: ir.Value) -> Heads:
        """Return the heads' inputs from projections, queries, keys and values, by their letters."""
        raise NotImplementedError

    def read(self, given_BTx: ir.Value, value_BTx: ir.Value) -> ir.Value:
        """Return the output, from the heads' outputs and their values."""
        return given_BTx

    def gated(self, given_Nx: ir.Value, gate_Nx: ir.Value) -> ir.Value:
        """Return the output, normalised and multiplied by the gate."""
        raise NotImplementedError

    def gain(self) -> ir.Value:
        """Return the norm's gain."""
        return self.matrices.vector(f"{self.module}.norm.weight")

    def by_head(self, x_BTx: ir.Value, factor_H: ir.Value) -> ir.Value:
        """Return each head's channels times its factor, which may differ by token."""
        builder, op = self.builder, self.op
        split = builder.op("Reshape", x_BTx, builder.integers(0, 0, op.value_heads, op.value_dim))
        product = builder.op("Mul", split, builder.op("Unsqueeze", factor_H, builder.integers(-1)))
        return builder.op("Reshape", product, builder.integers(0, 0, op.values))

    def normed(self, x_Nx: ir.Value, groups: int, weight: ir.Value) -> ir.Value:
        """Return equal groups of channels, each normalised."""
        width = self.op.values // groups
        return by_head(self.builder, x_Nx, weight, self.op.eps, groups, width)


class GatedDelta(Kind):
    """See `GatedDeltaNet`."""

    def heads(self, read: Values, parts: Values, step_BTH: ir.Value, decay_BTH: ir.Value) -> Heads:
        """Return them with the rates at which matrices are corrected."""
        rate_BTH = self.shared.rows(self.builder.op("Sigmoid", _float(self.builder, read["b"])))
        query_BTx = self._unit(parts["q"], self.op.key_dim**-0.5)
        key_BTx = self._unit(parts["k"], 1.0)
        rate_BTH = self.builder.op("Mul", rate_BTH, self.shared.real())
        return Heads(query_BTx, key_BTx, parts["v"], decay_BTH, rate_BTH)

    def gated(self, given_Nx: ir.Value, gate_Nx: ir.Value) -> ir.Value:
        """Normalise each head's output, then multiply it by the gate."""
        return self.builder.op("Mul", self.normed(given_Nx, self.op.value_heads, self.gain()), gate_Nx)

    def _unit(self, x_BTx: ir.Value, factor: float) -> ir.Value:
        """Return each head's channels divided by their length, times a factor.

        An RMS norm divides by the length over the root of their number.
        """
        builder, op = self.builder, self.op
        split = builder.op("Reshape", x_BTx, builder.integers(0, 0, op.key_heads, op.key_dim))
        gain = np.full(op.key_dim, factor * op.key_dim**-0.5, dtype=np.float32)
        weight = builder.vector(f"gain_{op.key_dim}_{factor}", gain)
        normed = rms_norm(builder, split, weight, EPS / op.key_dim)
        return builder.op("Reshape", normed, builder.integers(0, 0, op.keys))


class SelectiveStates(Kind):
    """See `Mamba2`."""

    def heads(self, read: Values, parts: Values, step_BTH: ir.Value, decay_BTH: ir.Value) -> Heads:
        """Return them with values times their steps."""
        return Heads(parts["q"], parts["k"], self.by_head(parts["v"], step_BTH), decay_BTH, None)

    def read(self, given_BTx: ir.Value, value_BTx: ir.Value) -> ir.Value:
        """Add the values themselves."""
        skipped_BTx = self.by_head(value_BTx, _float32(self.matrices, f"{self.module}.D"))
        return self.builder.op("Add", given_BTx, skipped_BTx)

    def gated(self, given_Nx: ir.Value, gate_Nx: ir.Value) -> ir.Value:
        """Multiply by the gate, then normalise the heads of each key head if there is a norm."""
        gated_Nx = self.builder.op("Mul", given_Nx, gate_Nx)
        if not self.op.normed:
            return gated_Nx
        ones = np.ones(self.op.values // self.op.key_heads, dtype=self.builder.dtype.numpy())
        plain = self.builder.vector(f"ones_{len(ones)}", ones)
        return self.builder.op("Mul", self.normed(gated_Nx, self.op.key_heads, plain), self.gain())


KINDS: dict[type[LinearAttention], type[Kind]] = {GatedDeltaNet: GatedDelta, Mamba2: SelectiveStates}


def _fused(
    builder: GraphBuilder, op: LinearAttention, heads: Heads, past_BHKV: ir.Value
) -> tuple[ir.Value, ir.Value]:
    given_BTx, present_BHKV = builder.op_outputs(
        "LinearAttention",
        (*heads[:3], past_BHKV, heads.decay_BTH, *(() if heads.rate_BTH is None else (heads.rate_BTH,))),
        2,
        domain=MICROSOFT,
        update_rule="gated" if heads.rate_BTH is None else "gated_delta",
        q_num_heads=op.key_heads,
        kv_num_heads=op.value_heads,
        scale=1.0,
    )
    return given_BTx, present_BHKV


def _scanned(
    builder: GraphBuilder, op: LinearAttention, heads: Heads, past_BHKV: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Return the same by a scan; see `models/linear_attention.py` for the rules."""
    count = op.value_heads

    def repeated(x_BTx: ir.Value) -> ir.Value:
        split = builder.op("Reshape", x_BTx, builder.integers(0, 0, op.key_heads, 1, op.key_dim))
        wide = builder.op("Expand", split, builder.integers(1, 1, 1, op.shared, 1))
        return builder.op("Reshape", wide, builder.integers(0, 0, count, 1, op.key_dim))

    numbers = [each for each in (heads.decay_BTH, heads.rate_BTH) if each is not None]
    read = [
        repeated(heads.query_BTx),
        repeated(heads.key_BTx),
        builder.op("Reshape", heads.value_BTx, builder.integers(0, 0, count, 1, op.value_dim)),
        *(builder.op("Reshape", each, builder.integers(0, 0, count, 1, 1)) for each in numbers),
    ]
    with builder.body("token") as body:
        names = ("state", "query", "key", "value", "decay", "rate")[: 1 + len(read)]
        body.inputs.extend(ir.Value(name=f"{body.name}/{name}", type=ir.TensorType(FLOAT)) for name in names)
        state, query, key, value, decay, *rate = body.inputs
        state = builder.op("Mul", state, builder.op("Exp", decay))
        if rate:
            value = builder.op("Mul", *rate, builder.op("Sub", value, builder.op("MatMul", key, state)))
        key_BHK1 = builder.op("Transpose", key, perm=[0, 1, 3, 2])
        state = builder.op("Add", state, builder.op("Mul", key_BHK1, value))
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
