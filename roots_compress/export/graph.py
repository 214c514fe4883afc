"""A ROOTS model as an ONNX graph, built operator by operator from its config and weights.

Nothing is traced, so layers may differ in width, quantized weights are used as stored, and the same
checkpoint always gives the same bytes. A decoder with its cache is here, an encoder in `encoder.py`, the two
together in `seq2seq.py`; the walk over the layers is in `layers.py`, and `ops/`, `norms.py` and `weights.py`
have the operators of each step.

Shape legend: B batch, T new tokens, S all tokens, K newest tokens that get logits, N = B * T, M = B * K, W
hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import count

import numpy as np
import onnx_ir as ir
import torch

from roots_compress.errors import InputError, StageError
from roots_compress.export.builder import IR_VERSION, GraphBuilder
from roots_compress.export.encoder import add_encoder
from roots_compress.export.layers import next_token_logits, parts_of, walk
from roots_compress.export.ops.attention import self_attention
from roots_compress.export.ops.conv import short_conv
from roots_compress.export.ops.fused_attention import KeyValue
from roots_compress.export.ops.linear_attention import linear_attention
from roots_compress.export.ops.mlp import layer_input, layer_inputs
from roots_compress.export.ops.taking_attention import taking_attention
from roots_compress.export.seq2seq import PARTS
from roots_compress.export.shared import Shared
from roots_compress.export.tasks import Names, exporter_config
from roots_compress.export.weights import Matrices
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import OpSpec, State
from roots_compress.models.ops.conv import ShortConv
from roots_compress.models.ops.linear_attention import LinearAttention
from roots_compress.models.ops.mlp import LayerInput
from roots_compress.models.quantized import has_int8_cache, sums_fit
from roots_compress.models.spec import EMBEDDING
from roots_compress.runtime.onnx.graph_folder import GRAPH_NAME
from roots_compress.runtime.onnx.session import (
    BOUNDED_SUMS,
    LOGITS_TO_KEEP,
    PREFILL_PIECE,
    PRESENT_MEANS,
    SHARED_CACHE,
)
from roots_compress.version import VERSION

# Tokens of a prompt that are read at a time where all layers are block-sparse, and where some are: more of
# them share the copy of a block. Dense layers hold the scores of a piece with all that came before it.
SPARSE_PIECE, MIXED_PIECE = 512, 256
DTYPES = {torch.float32: ir.DataType.FLOAT, torch.float16: ir.DataType.FLOAT16}


def build_graphs(model: RootsWithHead, *, portable: bool = False) -> dict[str, ir.Model]:
    """Return the model as graphs by file name; their initializers share the model's memory.

    There is one graph, or a decoder's and then its encoder's. Portable ones have
    ONNX Runtime's own operators only where the standard has none.

    Raises:
        InputError: the model has an int8 cache, and the graph must use standard operators. StageError: the
            weights have an unsupported type.
    """
    dtype, config, state = next(model.parameters()).dtype, model.config, model.state_dict()
    if dtype not in DTYPES:
        raise StageError(
            f"the checkpoint's weights are {dtype}, and graphs are made of float32 and float16",
            remedy="Convert the checkpoint to float32 first.",
        )

    def begun() -> Matrices:
        return Matrices(GraphBuilder(DTYPES[dtype], portable=portable), config, state)

    graphs: dict[str, ir.Model] = {}
    metadata = {BOUNDED_SUMS: "1"} if sums_fit(model) else {}
    if config.spec.source is not None:
        for name, add in PARTS.items():
            matrices = begun()
            add(matrices)
            graphs[name] = _described(matrices.builder, metadata)
        return graphs
    matrices = begun()
    names = exporter_config(config, half=dtype == torch.float16).names
    if "decoder" in config.spec.stacks:
        metadata |= _decoder(matrices, names)
    else:
        add_encoder(matrices, names)
    return {GRAPH_NAME: _described(matrices.builder, metadata)}


def build_graph(model: RootsWithHead, *, portable: bool = False) -> ir.Model:
    """Return a model of one graph as that graph; see `build_graphs`."""
    (graph,) = build_graphs(model, portable=portable).values()
    return graph


def _described(builder: GraphBuilder, metadata: dict[str, str]) -> ir.Model:
    return ir.Model(
        builder.graph,
        ir_version=IR_VERSION,
        producer_name="roots-compress",
        producer_version=VERSION,
        metadata_props=metadata,
    )


def _decoder(matrices: Matrices, names: Names) -> dict[str, str]:
    """Add a decoder with a cache; return the metadata on how to run it."""
    builder, config = matrices.builder, matrices.config
    if has_int8_cache(config) and (builder.portable or not config.is_fusible):
        raise InputError(
            "keys and values cached in int8 need ONNX Runtime's fused attention",
            remedy="Leave out --portable, or quantize again with `cache: float`.",
        )
    input_ids, attention_mask, position_ids = (
        builder.input(name, ir.DataType.INT64, names.shape(name))
        for name in ("input_ids", "attention_mask", "position_ids")
    )
    cached = ir.DataType.INT8 if has_int8_cache(config) else builder.dtype
    states = config.spec.states()
    types = [
        ir.DataType.FLOAT if state.float32 else cached if state.grows else builder.dtype for state in states
    ]
    pasts = [
        builder.input(state.past, dtype, _shape(names, state.past, state))
        for state, dtype in zip(states, types, strict=True)
    ]
    logits_to_keep = builder.optional_input(LOGITS_TO_KEEP, np.array(0, dtype=np.int64))
    growing = next((past for past, state in zip(pasts, states, strict=True) if state.grows), None)
    shared = Shared(builder, config, input_ids, attention_mask, position_ids, growing)

    hidden_NW = _embed(matrices, shared, input_ids, position_ids)
    layer_inputs_NLP = None
    if config.spec.embeddings.layer_inputs is not None:
        layer_inputs_NLP = layer_inputs(matrices, shared.to_front(input_ids), hidden_NW)
    remaining, presents = iter(pasts), list[ir.Value]()
    given: dict[Hashable, KeyValue] = {}
    reading = count()

    def emit(op: OpSpec, module: str, x_NW: ir.Value) -> ir.Value:
        present: Sequence[ir.Value]
        if isinstance(op, LayerInput):
            assert layer_inputs_NLP is not None
            return layer_input(matrices, op, module, x_NW, layer_inputs_NLP, next(reading))
        if isinstance(op, Attention) and op.sharing == "takes":
            return taking_attention(matrices, shared, op, module, x_NW, given[op.keys])
        if isinstance(op, Attention):
            past = KeyValue(next(remaining), next(remaining))
            given_NW, present = self_attention(matrices, shared, op, module, x_NW, past)
            if op.sharing == "gives":
                given[op.keys] = present
        elif isinstance(op, LinearAttention):
            given_NW, *present = linear_attention(
                matrices, shared, op, module, x_NW, next(remaining), next(remaining)
            )
        else:
            assert isinstance(op, ShortConv), op.kind
            given_NW, *present = short_conv(matrices, shared, op, module, x_NW, next(remaining))
        presents.extend(present)
        return given_NW

    normed_NW = walk(matrices, parts_of(config.spec)[-1], hidden_NW, emit)
    with builder.scope("head"):
        logits_BKV = _logits(matrices, shared.back(normed_NW, config.spec.width), logits_to_keep)
    builder.output("logits", logits_BKV, ir.DataType.FLOAT, names.shape("logits", config.vocab_size))
    for state, dtype, present in zip(states, types, presents, strict=True):
        builder.output(state.present, present, dtype, _shape(names, state.present, state))
    for name, (means_BGCD, shape) in shared.block_means.items():
        builder.output(PRESENT_MEANS + name, means_BGCD, builder.dtype, shape)
    if shared.compact is None:
        return {}
    found = {SHARED_CACHE: "1"}
    if shared.block_means:
        piece = SPARSE_PIECE if len(shared.block_means) == len(config.spec.attentions()) else MIXED_PIECE
        found[PREFILL_PIECE] = str(piece)
    return found


def _shape(names: Names, name: str, state: State) -> list[int | str]:
    """Return the shape of an input or output for a state."""
    return names.shape(name, *(size for size in state.shape if size is not None))


def _embed(matrices: Matrices, shared: Shared, input_ids_BT: ir.Value, position_ids_BT: ir.Value) -> ir.Value:
    builder, embeddings = matrices.builder, matrices.config.spec.embeddings
    with builder.scope("embedding"):
        hidden_NW = matrices.embedding(EMBEDDING, shared.to_front(input_ids_BT))
        if embeddings.scale != 1:
            hidden_NW = builder.op("Mul", hidden_NW, builder.floats(embeddings.scale))
        if embeddings.positions is not None:
            position_NW = matrices.embedding("model.embed_positions", shared.to_front(position_ids_BT))
            hidden_NW = builder.op("Add", hidden_NW, position_NW)
        return shared.entering(hidden_NW)


def _logits(matrices: Matrices, normed_BTW: ir.Value, logits_to_keep: ir.Value) -> ir.Value:
    """Return the logits of each row's newest K positions, `BKV`."""
    builder, spec = matrices.builder, matrices.config.spec
    # Counted from the end; minus 0 is the beginning, so that 0 keeps all.
    first = builder.op("Reshape", builder.op("Neg", logits_to_keep), builder.integers(-1))
    kept_BKW = builder.op(
        "Slice", normed_BTW, first, builder.integers(np.iinfo(np.int64).max), builder.integers(1)
    )
    flat_MW = builder.op("Reshape", kept_BKW, builder.integers(-1, spec.width))
    matrices.change_rows()
    logits_MV = next_token_logits(matrices, spec.lm_head, flat_MW)
    if spec.lm_head.softcap is not None:
        cap = builder.floats(spec.lm_head.softcap)
        logits_MV = builder.op("Mul", builder.op("Tanh", builder.op("Div", logits_MV, cap)), cap)
    if builder.dtype != ir.DataType.FLOAT:
        logits_MV = builder.cast(logits_MV, ir.DataType.FLOAT)
    rows = builder.op("Shape", kept_BKW, end=2)
    return builder.op("Reshape", logits_MV, builder.op("Concat", rows, builder.integers(-1), axis=0))
