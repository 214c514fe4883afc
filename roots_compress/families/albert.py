"""ALBERT: BERT with narrower embeddings and one layer for all, of which each of ours is a copy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.encoder import (
    classes,
    encoder_rules,
    head_rules,
    linear_rules,
    read_encoder,
    write_encoder,
)
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import Shared
from roots_compress.models.spec import ModelSpec

ARCHITECTURES = classes("Albert", pretraining=True)
LAYER = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.dense": "self_attn.o_proj",
    "attention.LayerNorm": "self_attn_stream_norm",
    "ffn": "mlp.up_proj",
    "ffn_output": "mlp.down_proj",
    "full_layer_layer_norm": "mlp_stream_norm",
}
UNREAD = (
    "classifier_dropout_prob",
    "down_scale_factor",
    "gap_size",
    "net_structure_type",
    "num_memory_blocks",
)
"""Keys of dropout, and of published files that no layer of transformers' class reads."""


def _read(switches: Switches) -> ModelSpec:
    switches.leave(*UNREAD)
    # With several, layers of one configuration would be copies of different ones.
    switches.same("num_hidden_groups", 1)
    switches.same("inner_group_num", 1)
    tables = switches.number("embedding_size", 128)
    return read_encoder(switches, ARCHITECTURES, tables=tables, usual="gelu_new")


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_encoder(spec, ARCHITECTURES), "embedding_size": spec.embeddings.table_width}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from encoder_rules(spec, layer={})
    yield from linear_rules("encoder.embedding_hidden_mapping_in", "model.embed_projection")
    layers = range(len(spec.layers))
    for theirs, ours in LAYER.items():
        for part in ("weight", "bias"):
            yield Rule(
                f"encoder.albert_layer_groups.0.albert_layers.0.{theirs}.{part}",
                tuple(f"model.layers.{index}.{ours}.{part}" for index in layers),
                Shared(len(layers)),
            )
    yield from head_rules(
        spec,
        transform="predictions.dense",
        norm="predictions.LayerNorm",
        decoder="predictions.decoder",
        bias="predictions.bias",
        dense="pooler",
        classifier="classifier",
    )


MASKED, _, LABELS, TAGS, VECTORS = ({"architectures": [name]} for name in ARCHITECTURES)
ALBERT = Family(
    "albert",
    "AlbertModel",
    _read,
    _write,
    _rules,
    prefix="albert.",
    headed=("predictions.", "classifier."),
    copies={"predictions.decoder.bias": "predictions.bias"},
    ignored=(
        "embeddings.position_ids",
        "pooler.bias",
        "pooler.weight",
        "predictions.bias",
        "sop_classifier.classifier.bias",
        "sop_classifier.classifier.weight",
    ),
    variants=(
        {**MASKED, "embedding_size": 16},
        {**MASKED, "embedding_size": 32, "hidden_act": "relu"},
        {**MASKED, "embedding_size": 20, "tie_word_embeddings": False, "type_vocab_size": 1},
        {**MASKED, "embedding_size": 40, "layer_norm_eps": 0.01, "num_hidden_layers": 3},
        {**LABELS, "embedding_size": 16, "num_labels": 3},
        {**LABELS, "embedding_size": 24, "hidden_act": "gelu", "num_attention_heads": 2},
        {**TAGS, "embedding_size": 16, "num_labels": 5},
        {**VECTORS, "embedding_size": 16, "intermediate_size": 20},
        {**VECTORS, "embedding_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1},
    ),
)
