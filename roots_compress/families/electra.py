"""ELECTRA: BERT whose embeddings may be narrower than its layers, without a pooler.

Of a discriminator the encoder is read: no task here tells replaced tokens.
"""

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
from roots_compress.models.spec import ModelSpec

ARCHITECTURES = {**classes("Electra"), "ElectraForPreTraining": "embedding"}
OF_OTHER_HEADS = ("summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj")


def _read(switches: Switches) -> ModelSpec:
    switches.leave(*OF_OTHER_HEADS)
    tables = switches.number("embedding_size", 128)
    spec = read_encoder(switches, ARCHITECTURES, tables=tables, masked="gelu", labels="gelu")
    # Of equal widths there is no projection.
    return spec.with_embeddings(tables=None) if tables == spec.width else spec


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_encoder(spec, ARCHITECTURES), "embedding_size": spec.embeddings.table_width}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from encoder_rules(spec)
    yield from linear_rules("embeddings_project", "model.embed_projection")
    yield from head_rules(
        spec,
        transform="generator_predictions.dense",
        norm="generator_predictions.LayerNorm",
        decoder="generator_lm_head",
        bias="generator_lm_head.bias",
        dense="classifier.dense",
        classifier="classifier.out_proj",
    )


DISCRIMINATOR = tuple(
    f"discriminator_predictions.{layer}.{part}"
    for layer in ("dense", "dense_prediction")
    for part in ("weight", "bias")
)
MASKED, LABELS, TAGS, VECTORS, _ = ({"architectures": [name]} for name in ARCHITECTURES)
ELECTRA = Family(
    "electra",
    "ElectraModel",
    _read,
    _write,
    _rules,
    prefix="electra.",
    headed=("generator_", "classifier."),
    ignored=("embeddings.position_ids", *DISCRIMINATOR),
    variants=(
        {**MASKED, "embedding_size": 16},
        {**MASKED, "embedding_size": 32, "hidden_act": "relu"},
        {**MASKED, "embedding_size": 20, "tie_word_embeddings": False, "type_vocab_size": 1},
        {**MASKED, "embedding_size": 40, "layer_norm_eps": 0.01, "num_hidden_layers": 1},
        {**LABELS, "embedding_size": 16, "num_labels": 3},
        {**LABELS, "embedding_size": 32, "hidden_act": "gelu_new", "num_attention_heads": 2},
        {**TAGS, "embedding_size": 16, "num_labels": 5},
        {**VECTORS, "embedding_size": 16, "intermediate_size": 20},
        {**VECTORS, "embedding_size": 8, "num_attention_heads": 1},
    ),
)
