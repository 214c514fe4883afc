"""An encoder-decoder as two graphs: the encoder, and the decoder with the caches of both its attentions.

Shape legend: B batch, T new tokens of the target, S tokens of the source, N tokens of all rows, W hidden
size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from roots_compress.export.builder import GraphBuilder
from roots_compress.export.encoder import add_states, seen_bias
from roots_compress.export.layers import next_token_logits, parts_of, walk
from roots_compress.export.norms import norm
from roots_compress.export.ops.fused_attention import KeyValue
from roots_compress.export.ops.source_attention import SourceInputs, cached_attention, cross_attention
from roots_compress.export.relative import Distances
from roots_compress.export.rotations import Angles
from roots_compress.export.tasks import Names
from roots_compress.export.weights import Matrices
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.ops.heads import Seq2SeqHead
from roots_compress.models.spec import EMBEDDING
from roots_compress.runtime.onnx.decoder_graph import PAST, PRESENT
from roots_compress.runtime.onnx.seq2seq_graph import (
    DECODER_GRAPH,
    ENCODER_GRAPH,
    STATES,
    cached_attentions,
    decoder_axes,
    encoder_axes,
)


def add_source_encoder(matrices: Matrices) -> None:
    """Add the encoder before a decoder: its inputs, and its output in the activations' type."""
    builder, names = matrices.builder, Names(*encoder_axes())
    inputs = {name: builder.input(name, ir.DataType.INT64, names.shape(name)) for name in names.inputs}
    states_BTW = add_states(matrices, parts_of(matrices.config.spec)[0], inputs)
    builder.output(STATES, states_BTW, builder.dtype, names.shape(STATES, matrices.config.spec.width))


def add_target_decoder(matrices: Matrices) -> None:
    """Add the decoder: tokens and the encoder's output in, logits of every token out, and both caches."""
    builder, spec = matrices.builder, matrices.config.spec
    names = Names(*decoder_axes(spec))
    input_ids, mask_BS = (
        builder.input(name, ir.DataType.INT64, names.shape(name))
        for name in ("input_ids", "encoder_attention_mask")
    )
    states_BSW = builder.input(
        "encoder_hidden_states", builder.dtype, names.shape("encoder_hidden_states", spec.width)
    )
    pasts = {name: _past(matrices, names, name, op) for name, op in cached_attentions(spec)}
    held = {
        op.source: builder.op("Shape", pasts[name].key, start=2, end=3)
        for name, op in cached_attentions(spec)
    }
    tokens_1 = builder.op("Shape", input_ids, start=1)
    past_1 = held.get("self", builder.integers(0))
    shape_BTx = builder.op("Concat", builder.op("Shape", input_ids), builder.integers(-1), axis=0)
    source = SourceInputs(
        builder.op("Reshape", states_BSW, builder.integers(-1, spec.width)),
        builder.op("Concat", builder.op("Shape", mask_BS), builder.integers(-1), axis=0),
        builder.cast(mask_BS, ir.DataType.INT32),
        seen_bias(builder, mask_BS, tokens_1),
        builder.op(
            "Greater", builder.op("Squeeze", held.get("cross", builder.integers(1))), builder.integer(0)
        ),
    )
    distances = Distances(matrices, tokens_1, builder.op("Add", past_1, tokens_1))
    angles = Angles(builder, spec, lambda: _places(builder, input_ids, past_1, tokens_1))
    remaining, presents = iter(pasts.items()), dict[str, KeyValue]()

    def attend(op: OpSpec, module: str, x_NW: ir.Value) -> ir.Value:
        assert isinstance(op, Attention), op.kind
        name, past = next(remaining)
        if op.source == "cross":
            given_NW, presents[name] = cross_attention(matrices, op, module, x_NW, shape_BTx, source, past)
        else:
            added_1HTS, turned_by = distances.added(op, module), angles.of(op)
            given_NW, presents[name] = cached_attention(
                matrices, op, module, x_NW, shape_BTx, added_1HTS, turned_by, past
            )
        return given_NW

    hidden_NW = _embedded(matrices, input_ids, past_1, tokens_1)
    normed_NW = walk(matrices, parts_of(spec)[-1], hidden_NW, attend)
    with builder.scope("head"):
        logits_BTV = builder.op("Reshape", _logits(matrices, normed_NW), shape_BTx)
    builder.output("logits", logits_BTV, ir.DataType.FLOAT, names.shape("logits", spec.embeddings.vocabulary))
    for name, op in cached_attentions(spec):
        for part, value in zip(("key", "value"), presents[name], strict=True):
            full = f"{PRESENT}{name}.{part}"
            builder.output(full, value, builder.dtype, names.shape(full, op.kv_heads, op.head_dim))


PARTS: dict[str, Callable[[Matrices], None]] = {
    DECODER_GRAPH: add_target_decoder,
    ENCODER_GRAPH: add_source_encoder,
}
"""The functions that make each graph; the main graph is first."""


def _past(matrices: Matrices, names: Names, name: str, op: Attention) -> KeyValue:
    builder, sizes = matrices.builder, (op.kv_heads, op.head_dim)
    # optimum makes the first, empty pasts for a head size of width over heads, whatever the real size.
    is_guessed = sizes == (op.heads, matrices.config.spec.width // op.heads)
    free = sizes if is_guessed else ("heads", "head_size")
    pasts = [
        builder.input(full, builder.dtype, names.shape(full, *free))
        for full in (f"{PAST}{name}.key", f"{PAST}{name}.value")
    ]
    if not is_guessed:
        pasts = [_of_sizes(builder, past, *sizes) for past in pasts]
    return KeyValue(*pasts)


def _of_sizes(builder: GraphBuilder, past_BxPy: ir.Value, heads: int, width: int) -> ir.Value:
    """Return a past, `BGPD`; an empty one may be given in another shape."""
    batch, tokens = (builder.op("Shape", past_BxPy, start=at, end=at + 1) for at in (0, 2))
    shape = builder.op("Concat", batch, builder.integers(heads), tokens, builder.integers(width), axis=0)
    return builder.op("Reshape", past_BxPy, shape, allowzero=1)


def _places(builder: GraphBuilder, input_ids: ir.Value, past_1: ir.Value, tokens_1: ir.Value) -> ir.Value:
    """Return the position of each new token, `BT`."""
    first = builder.op("Squeeze", past_1)
    end = builder.op("Squeeze", builder.op("Add", past_1, tokens_1))
    place_T = builder.op("Range", first, end, builder.integer(1))
    return builder.op("Expand", place_T, builder.op("Shape", input_ids))


def _embedded(matrices: Matrices, input_ids: ir.Value, past_1: ir.Value, tokens_1: ir.Value) -> ir.Value:
    """Return the residual stream before the first layer, `NW`."""
    builder, embeddings = matrices.builder, matrices.config.spec.embeddings
    flat = builder.integers(-1)
    with builder.scope("embedding"):
        hidden_NW = matrices.embedding(EMBEDDING, builder.op("Reshape", input_ids, flat))
        if embeddings.scale != 1:
            hidden_NW = builder.op("Mul", hidden_NW, builder.floats(embeddings.scale))
        if embeddings.positions is not None:
            place_N = builder.op("Reshape", _places(builder, input_ids, past_1, tokens_1), flat)
            hidden_NW = builder.op("Add", hidden_NW, matrices.embedding("model.embed_positions", place_N))
        if embeddings.norm is not None:
            hidden_NW = norm(matrices, embeddings.norm, "model.embed_norm", hidden_NW)
    return hidden_NW


def _logits(matrices: Matrices, normed_NW: ir.Value) -> ir.Value:
    """Return the logits of the token after each, `NV`, in float32."""
    builder, spec = matrices.builder, matrices.config.spec
    assert isinstance(spec.head, Seq2SeqHead)
    logits_NV = next_token_logits(matrices, spec.head, normed_NW)
    return logits_NV if builder.dtype == ir.DataType.FLOAT else builder.cast(logits_NV, ir.DataType.FLOAT)
