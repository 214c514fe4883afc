"""A ROOTS model as an ONNX graph, built operator by operator from its config and weights.

Nothing is traced, so layers may differ in width, quantized weights enter as they are stored, and the same
checkpoint always gives the same bytes. The walk over the layers stands here; `layers.py`, `attention.py` and
`weights.py` say which operators each step becomes.

Shape legend: B batch, T new tokens, S all tokens, K newest tokens that get logits, N = B * T, M = B * K, W
hidden size, V vocabulary.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import torch

from roots_compress import __version__
from roots_compress.errors import InputError, StageError
from roots_compress.export.attention import self_attention
from roots_compress.export.builder import IR_VERSION, GraphBuilder
from roots_compress.export.frame import Frame
from roots_compress.export.fused import KeyValue
from roots_compress.export.layers import add_norm, mlp, norm
from roots_compress.export.tasks import RootsExporterConfig, exporter_config
from roots_compress.export.weights import Matrices
from roots_compress.models.config import RootsConfig
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.quantized import has_int8_cache
from roots_compress.runtime.session import LOGITS_TO_KEEP, SHARED_CACHE

DTYPES = {torch.float32: ir.DataType.FLOAT, torch.float16: ir.DataType.FLOAT16}
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"


def build_graph(model: RootsForCausalLM, *, portable: bool = False) -> ir.Model:
    """Return the model as a graph whose initializers share the model's memory.

    Args:
        model: the checkpoint.
        portable: use ONNX Runtime's own operators only where the standard has none.

    Raises:
        InputError: the model caches in int8, and the graph is to have standard operators.
        StageError: the weights are of a type that graphs are not made of.
    """
    dtype = next(model.parameters()).dtype
    if dtype not in DTYPES:
        raise StageError(
            f"the checkpoint's weights are {dtype}, and graphs are made of float32 and float16",
            remedy="Convert the checkpoint to float32 first.",
        )
    config = model.config
    if has_int8_cache(config) and (portable or not config.is_fusible):
        raise InputError(
            "keys and values cached in int8 need ONNX Runtime's fused attention",
            remedy="Leave out --portable, or quantize again with `cache: float`.",
        )
    builder = GraphBuilder(DTYPES[dtype], portable=portable)
    matrices = Matrices(builder, config, model.state_dict())
    names = exporter_config(config, half=dtype == torch.float16)
    input_ids, attention_mask, position_ids = (
        builder.input(name, ir.DataType.INT64, names.shape(name))
        for name in ("input_ids", "attention_mask", "position_ids")
    )
    cached = ir.DataType.INT8 if has_int8_cache(config) else builder.dtype
    pasts = [_past(builder, names, index, layer, cached) for index, layer in enumerate(config.layers)]
    logits_to_keep = builder.optional_input(LOGITS_TO_KEEP, 0)
    frame = Frame(builder, config, input_ids, attention_mask, position_ids)

    hidden_NW = _embed(matrices, frame, input_ids, position_ids)
    normed_NW, presents = _layers(matrices, frame, hidden_NW, pasts)
    with builder.scope("head"):
        logits_BKV = _logits(matrices, frame.back(normed_NW), logits_to_keep)
    builder.output("logits", logits_BKV, ir.DataType.FLOAT, names.shape("logits", config.vocab_size))
    _name_presents(builder, names, config, presents, cached)
    return ir.Model(
        builder.graph,
        ir_version=IR_VERSION,
        producer_name="roots-compress",
        producer_version=__version__,
        metadata_props={SHARED_CACHE: "1"} if frame.compact is not None else {},
    )


def _norm_before(config: RootsConfig, index: int) -> str:
    """Return the norm that layer `index` reads through, or the final norm after the last layer."""
    last = index == config.num_hidden_layers
    return "model.norm" if last else f"model.layers.{index}.input_layernorm"


def _past(
    builder: GraphBuilder, names: RootsExporterConfig, index: int, layer: dict[str, int], cached: ir.DataType
) -> KeyValue:
    widths = layer["num_key_value_heads"], layer["head_dim"]
    key, value = (
        builder.input(name, cached, names.shape(name, *widths))
        for name in (f"past_key_values.{index}.key", f"past_key_values.{index}.value")
    )
    return KeyValue(key, value)


def _embed(matrices: Matrices, frame: Frame, input_ids_BT: ir.Value, position_ids_BT: ir.Value) -> ir.Value:
    builder, config = matrices.builder, matrices.config
    with builder.scope("embedding"):
        hidden_NW = matrices.embedding(EMBEDDING, frame.to_front(input_ids_BT))
        if config.embedding_scale != 1:
            hidden_NW = builder.op("Mul", hidden_NW, builder.floats(config.embedding_scale))
        if config.position == "learned":
            position_NW = matrices.embedding("model.embed_positions", frame.to_front(position_ids_BT))
            hidden_NW = builder.op("Add", hidden_NW, position_NW)
    return hidden_NW


def _layers(
    matrices: Matrices, frame: Frame, hidden_NW: ir.Value, pasts: list[KeyValue]
) -> tuple[ir.Value, list[KeyValue]]:
    """Return the final norm's output, `NW`, and what each layer caches."""
    builder, config = matrices.builder, matrices.config
    with builder.scope("layers.0"):
        normed_NW = norm(matrices, _norm_before(config, 0), hidden_NW)
    presents = []
    for index, past in enumerate(pasts):
        mlp_norm = f"model.layers.{index}.post_attention_layernorm"
        with builder.scope(f"layers.{index}"):
            with builder.scope("attention"):
                change_NW, present = self_attention(matrices, frame, index, normed_NW, past)
            hidden_NW, normed_NW = add_norm(matrices, hidden_NW, change_NW, mlp_norm)
            with builder.scope("mlp"):
                change_NW = mlp(matrices, index, normed_NW)
            hidden_NW, normed_NW = add_norm(matrices, hidden_NW, change_NW, _norm_before(config, index + 1))
        presents.append(present)
    return normed_NW, presents


def _logits(matrices: Matrices, normed_BTW: ir.Value, logits_to_keep: ir.Value) -> ir.Value:
    """Return the logits of each row's newest K positions, `BKV`."""
    builder, config = matrices.builder, matrices.config
    # Counted from the end; minus 0 is the beginning, so that 0 keeps all.
    first = builder.op("Reshape", builder.op("Neg", logits_to_keep), builder.integers(-1))
    kept_BKW = builder.op(
        "Slice", normed_BTW, first, builder.integers(np.iinfo(np.int64).max), builder.integers(1)
    )
    flat_MW = builder.op("Reshape", kept_BKW, builder.integers(-1, config.hidden_size))
    matrices.change_rows()
    # Tied weights are one initializer: the embedding's.
    logits_MV = matrices.linear(EMBEDDING if config.tie_word_embeddings else HEAD, flat_MW)
    if config.logit_scale != 1:
        logits_MV = builder.op("Mul", logits_MV, builder.floats(config.logit_scale))
    if builder.dtype != ir.DataType.FLOAT:
        logits_MV = builder.cast(logits_MV, ir.DataType.FLOAT)
    rows = builder.op("Shape", kept_BKW, end=2)
    return builder.op("Reshape", logits_MV, builder.op("Concat", rows, builder.integers(-1), axis=0))


def _name_presents(
    builder: GraphBuilder,
    names: RootsExporterConfig,
    config: RootsConfig,
    presents: list[KeyValue],
    cached: ir.DataType,
) -> None:
    for index, (present, layer) in enumerate(zip(presents, config.layers, strict=True)):
        widths = layer["num_key_value_heads"], layer["head_dim"]
        for part, value in zip(("key", "value"), present, strict=True):
            name = f"present.{index}.{part}"
            builder.output(name, value, cached, names.shape(name, *widths))
