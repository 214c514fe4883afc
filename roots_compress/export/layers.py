"""The walk over the layers of a graph: blocks, the norms around them, and the residual stream.

Shape legend: N tokens of all rows of the batch, W hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import onnx_ir as ir

from roots_compress.export.norms import norm
from roots_compress.export.ops.mlp import mlp
from roots_compress.export.ops.moe import moe
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.ops.heads import NextTokenHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import EMBEDDING, ENCODER, HEAD, ModelSpec, Norm, Stack

Emit = Callable[[OpSpec, str, ir.Value], ir.Value]


class Part(NamedTuple):
    """A stack, and the module that holds it."""

    stack: Stack
    module: str


def parts_of(spec: ModelSpec) -> tuple[Part, ...]:
    """Return the stacks of a model in the order in which they run."""
    own = Part(spec.stack, "model")
    return (own,) if spec.source is None else (Part(spec.source, ENCODER), own)


class Reading(NamedTuple):
    """The next norm of the residual stream."""

    scope: str
    spec: Norm | None
    module: str
    shared: bool = False
    """Whether the block before has computed it already."""


def _readings(part: Part) -> Iterator[Reading]:
    """Yield the norm before each block, then the final norm."""
    for index, layer in enumerate(part.stack.layers):
        for sublayer in layer:
            scope = f"layers.{index}"
            module = f"{part.module}.{scope}.{sublayer.name}_pre_norm"
            yield Reading(scope, sublayer.pre_norm, module, shared=sublayer.shares_norm)
    yield Reading("", part.stack.final_norm, f"{part.module}.norm")


def walk(matrices: Matrices, part: Part, hidden_NW: ir.Value, emit: Emit) -> ir.Value:
    """Add all layers of a stack; return the normed residual stream after them, `NW`.

    `emit` adds a block that reads other tokens, by its specification and its module's name.
    """
    builder, readings = matrices.builder, _readings(part)
    first = next(readings)
    waiting_NW: ir.Value | None = None
    with builder.scope(first.scope):
        read_NW = _read(matrices, first, hidden_NW)
    for index, layer in enumerate(part.stack.layers):
        for sublayer in layer:
            module = f"{part.module}.layers.{index}.{sublayer.name}"
            following = next(readings)
            with builder.scope(f"layers.{index}"):
                with builder.scope(sublayer.op.kind):
                    if isinstance(sublayer.op, Mlp):
                        change_NW = mlp(matrices, sublayer.op, module, read_NW)
                    elif isinstance(sublayer.op, Moe):
                        change_NW = moe(matrices, sublayer.op, module, read_NW)
                    else:
                        change_NW = emit(sublayer.op, module, read_NW)
                if sublayer.post_norm is not None:
                    change_NW = norm(matrices, sublayer.post_norm, f"{module}_post_norm", change_NW)
                if waiting_NW is not None:
                    change_NW = builder.op("Add", waiting_NW, change_NW)
                if sublayer.joint_norm is not None:
                    change_NW = norm(matrices, sublayer.joint_norm, f"{module}_joint_norm", change_NW)
                waiting_NW = change_NW if sublayer.parallel else None
                if waiting_NW is None:
                    hidden_NW = builder.op("Add", hidden_NW, change_NW)
                if sublayer.stream_scale:
                    scale = matrices.vector(f"{module}_stream_scale")
                    hidden_NW = builder.op("Mul", hidden_NW, scale)
                if sublayer.stream_norm is not None:
                    hidden_NW = norm(matrices, sublayer.stream_norm, f"{module}_stream_norm", hidden_NW)
                if not following.shared:
                    read_NW = _read(matrices, following, hidden_NW)
    return read_NW


def _read(matrices: Matrices, reading: Reading, hidden_NW: ir.Value) -> ir.Value:
    """Return the normed residual stream, `NW`."""
    return hidden_NW if reading.spec is None else norm(matrices, reading.spec, reading.module, hidden_NW)


def next_token_logits(matrices: Matrices, head: NextTokenHead, normed_NW: ir.Value) -> ir.Value:
    """Return the logits of the next token: scaled, and with their bias."""
    builder = matrices.builder
    # Tied weights are one initializer: the embedding's.
    logits_NV = matrices.linear(EMBEDDING if matrices.config.spec.tied else HEAD, normed_NW)
    if head.scale != 1:
        logits_NV = builder.op("Mul", logits_NV, builder.floats(head.scale))
    if head.bias:
        logits_NV = builder.op("Add", logits_NV, builder.weight("logits_bias", matrices.state["logits_bias"]))
    return logits_NV
