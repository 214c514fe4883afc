"""An encoder as a graph: it reads a whole text at once, without a cache, and ends with its head.

Shape legend: B batch, T tokens, N = B * T, W hidden size, V vocabulary, L labels.
"""

from __future__ import annotations

import onnx_ir as ir

from roots_compress.export.builder import GraphBuilder
from roots_compress.export.layers import Part, parts_of, walk
from roots_compress.export.norms import norm
from roots_compress.export.ops.encoder_attention import encoder_attention
from roots_compress.export.ops.mlp import activate
from roots_compress.export.relative import LOWEST, Distances
from roots_compress.export.rotations import Angles
from roots_compress.export.tasks import Names
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.ops.heads import (
    EmbeddingHead,
    LabelHead,
    MaskedLmHead,
    TextLabelHead,
    TokenClassificationHead,
)
from roots_compress.models.spec import EMBEDDING, HEAD, Norm
from roots_compress.runtime.encoder import TOKEN_TYPES


def add_encoder(matrices: Matrices, names: Names) -> None:
    """Add the inputs, the layers, the head and the outputs of an encoder."""
    builder, spec = matrices.builder, matrices.config.spec
    inputs = {name: builder.input(name, ir.DataType.INT64, names.shape(name)) for name in names.inputs}
    mask_BT = inputs["attention_mask"]
    shape_BTx = _shape(builder, inputs)
    hidden_NW = _states(matrices, parts_of(spec)[-1], inputs, shape_BTx)
    with builder.scope("head"):
        if isinstance(spec.head, MaskedLmHead):
            logits_BTV = builder.op("Reshape", _token_logits(matrices, spec.head, hidden_NW), shape_BTx)
            _output(matrices, names, "logits", logits_BTV, spec.embeddings.vocabulary)
            return
        if isinstance(spec.head, TokenClassificationHead):
            logits_BTL = builder.op("Reshape", _label_logits(matrices, spec.head, hidden_NW), shape_BTx)
            _output(matrices, names, "logits", logits_BTL, spec.head.labels)
            return
        hidden_BTW = builder.op("Reshape", hidden_NW, shape_BTx)
        if isinstance(spec.head, TextLabelHead):
            matrices.change_rows()
            pooled_BW = _pooled(builder, spec.head, hidden_BTW, mask_BT)
            logits_BL = _label_logits(matrices, spec.head, pooled_BW)
            _output(matrices, names, "logits", logits_BL, spec.head.labels)
            return
        assert isinstance(spec.head, EmbeddingHead)
        vector_BW = _pooled(builder, spec.head, hidden_BTW, mask_BT)
        if spec.head.outputs is not None:
            matrices.change_rows()
            vector_BW = matrices.linear("dense", vector_BW)
            vector_BW = vector_BW if spec.head.activation is None else builder.op("Tanh", vector_BW)
        if spec.head.normalised:
            vector_BW = builder.op("LpNormalization", vector_BW, axis=-1, p=2)
    _output(matrices, names, "last_hidden_state", hidden_BTW, spec.width)
    _output(matrices, names, "sentence_embedding", vector_BW, spec.head.channels(spec.width))


def add_states(matrices: Matrices, part: Part, inputs: dict[str, ir.Value]) -> ir.Value:
    """Add the layers of an encoder; return its normed stream after them, `BTW`."""
    shape_BTx = _shape(matrices.builder, inputs)
    return matrices.builder.op("Reshape", _states(matrices, part, inputs, shape_BTx), shape_BTx)


def _shape(builder: GraphBuilder, inputs: dict[str, ir.Value]) -> ir.Value:
    """Return batch, tokens, and -1 for the rest."""
    return builder.op("Concat", builder.op("Shape", inputs["input_ids"]), builder.integers(-1), axis=0)


def _states(matrices: Matrices, part: Part, inputs: dict[str, ir.Value], shape_BTx: ir.Value) -> ir.Value:
    builder, mask_BT = matrices.builder, inputs["attention_mask"]
    tokens_1 = builder.op("Shape", mask_BT, start=1)
    bias_B1TT = seen_bias(builder, mask_BT, tokens_1)
    distances = Distances(matrices, tokens_1, tokens_1)
    angles = Angles(builder, matrices.config.spec, lambda: _positions(builder, mask_BT))

    def attend(op: OpSpec, module: str, x_NW: ir.Value) -> ir.Value:
        assert isinstance(op, Attention), op.kind
        turned_by = angles.of(op)
        return encoder_attention(
            matrices, op, module, x_NW, shape_BTx, mask_BT, bias_B1TT, distances, turned_by
        )

    return walk(matrices, part, _embedded(matrices, part.module, inputs), attend)


def _positions(builder: GraphBuilder, mask_BT: ir.Value) -> ir.Value:
    """Return the position of each token, `BT`; padding has none."""
    count_BT = builder.op("CumSum", mask_BT, builder.integer(1))
    return builder.op("Max", builder.op("Sub", count_BT, builder.integer(1)), builder.integer(0))


def _output(matrices: Matrices, names: Names, name: str, value: ir.Value, width: int) -> None:
    builder = matrices.builder
    if builder.dtype != ir.DataType.FLOAT:
        value = builder.cast(value, ir.DataType.FLOAT)
    builder.output(name, value, ir.DataType.FLOAT, names.shape(name, width))


def seen_bias(builder: GraphBuilder, mask_BS: ir.Value, queries_1: ir.Value) -> ir.Value:
    """Return the bias on scores, `B1TS`: 0 at tokens, a large negative number at padding."""
    seen_BS = builder.cast(mask_BS, ir.DataType.BOOL)
    bias_BS = builder.op("Where", seen_BS, builder.floats(0.0), builder.floats(LOWEST))
    bias_B11S = builder.op("Unsqueeze", bias_BS, builder.integers(1, 2))
    # ONNX Runtime's operator does not accept a mask that all queries share.
    batch, keys = builder.op("Shape", mask_BS, end=1), builder.op("Shape", mask_BS, start=1)
    shape_B1TS = builder.op("Concat", batch, builder.integers(1), queries_1, keys, axis=0)
    return builder.op("Expand", bias_B11S, shape_B1TS)


def _embedded(matrices: Matrices, module: str, inputs: dict[str, ir.Value]) -> ir.Value:
    """Return the residual stream before the first layer, `NW`; padding has no position."""
    builder, embeddings = matrices.builder, matrices.config.spec.embeddings
    flat = builder.integers(-1)
    with builder.scope("embedding"):
        hidden_NW = matrices.embedding(EMBEDDING, builder.op("Reshape", inputs["input_ids"], flat))
        if embeddings.scale != 1:
            hidden_NW = builder.op("Mul", hidden_NW, builder.floats(embeddings.scale))
        if embeddings.token_types is not None:
            given = inputs.get(TOKEN_TYPES)
            types_N = builder.integers(0) if given is None else builder.op("Reshape", given, flat)
            hidden_NW = builder.op(
                "Add", hidden_NW, matrices.embedding(f"{module}.embed_token_types", types_N)
            )
        if embeddings.positions is not None:
            position_N = builder.op("Reshape", _positions(builder, inputs["attention_mask"]), flat)
            hidden_NW = builder.op(
                "Add", hidden_NW, matrices.embedding(f"{module}.embed_positions", position_N)
            )
        if embeddings.norm is not None:
            hidden_NW = norm(matrices, embeddings.norm, f"{module}.embed_norm", hidden_NW)
        if embeddings.tables is not None:
            hidden_NW = matrices.linear(f"{module}.embed_projection", hidden_NW)
    return hidden_NW


def _token_logits(matrices: Matrices, head: MaskedLmHead, hidden_NW: ir.Value) -> ir.Value:
    """Return the logits of the token at each position, `NV`."""
    builder = matrices.builder
    dense_NW = activate(builder, head.activation, matrices.linear("transform.dense", hidden_NW))
    spec = Norm(kind="layer_norm", eps=head.eps, bias=head.norm_bias)
    normed_NW = norm(matrices, spec, "transform.norm", dense_NW)
    table = EMBEDDING if matrices.config.spec.tied else HEAD
    return builder.op("Add", matrices.linear(table, normed_NW), matrices.vector("transform.bias"))


def _label_logits(matrices: Matrices, head: LabelHead, read_NW: ir.Value) -> ir.Value:
    """Return the logits of labels, `NL`, for states of texts or of tokens."""
    if head.activation is not None:
        read_NW = activate(matrices.builder, head.activation, matrices.linear("dense", read_NW))
    if head.eps is not None:
        spec = Norm(kind="layer_norm", eps=head.eps, bias=head.norm_bias)
        read_NW = norm(matrices, spec, "norm", read_NW)
    return matrices.linear("classifier", read_NW)


def _pooled(
    builder: GraphBuilder, head: TextLabelHead | EmbeddingHead, hidden_BTW: ir.Value, mask_BT: ir.Value
) -> ir.Value:
    """Return the states of each text as one, `BW`."""
    if head.pooling == "first":
        return builder.op("Gather", hidden_BTW, builder.integer(0), axis=1)
    if head.pooling == "last":
        tokens = builder.op("Squeeze", builder.op("Shape", mask_BT, start=1))
        place_T = builder.op("Range", builder.integer(0), tokens, builder.integer(1))
        taken_BT = builder.op("Mul", mask_BT, place_T)  # Padding may be on either side.
        last_B1 = builder.op("ReduceMax", taken_BT, builder.integers(1), keepdims=1)
        return builder.op("GatherND", hidden_BTW, last_B1, batch_dims=1)
    mask_BT1 = builder.op("Unsqueeze", builder.cast(mask_BT, builder.dtype), builder.integers(-1))
    second = builder.integers(1)
    total_BW = builder.op("ReduceSum", builder.op("Mul", hidden_BTW, mask_BT1), second, keepdims=0)
    return builder.op("Div", total_BW, builder.op("ReduceSum", mask_BT1, second, keepdims=0))
