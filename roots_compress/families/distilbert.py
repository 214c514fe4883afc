"""DistilBERT: BERT without token types and pooler. Positions are a table, learned or made of sines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.encoder import (
    EPS,
    classes,
    encoder_rules,
    head_rules,
    read_encoder,
    write_encoder,
)
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec, Norm

ARCHITECTURES = classes("DistilBert")
NAMES = {
    "hidden_size": "dim",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
}
LAYER = {
    "attention.q_lin": "self_attn.q_proj",
    "attention.k_lin": "self_attn.k_proj",
    "attention.v_lin": "self_attn.v_proj",
    "attention.out_lin": "self_attn.o_proj",
    "sa_layer_norm": "self_attn_stream_norm",
    "ffn.lin1": "mlp.up_proj",
    "ffn.lin2": "mlp.down_proj",
    "output_layer_norm": "mlp_stream_norm",
}


def _read(switches: Switches) -> ModelSpec:
    for spelling in ("hidden_size", "num_attention_heads", "num_hidden_layers"):
        switches.renamed(spelling, NAMES[spelling])
    switches.leave("dropout", "qa_dropout", "seq_classif_dropout")
    switches.flag("sinusoidal_pos_embds", False)  # The table is stored either way.
    switches.same("tie_weights_", True)
    norm = Norm(kind="layer_norm", eps=EPS)
    return read_encoder(switches, ARCHITECTURES, names=NAMES, norm=norm, token_types=False, labels="relu")


def _write(spec: ModelSpec) -> dict[str, Any]:
    written = write_encoder(spec, ARCHITECTURES, names=NAMES)
    # No class of this family has these: reading back tells whether the model does.
    return {key: value for key, value in written.items() if key not in ("type_vocab_size", "layer_norm_eps")}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from encoder_rules(spec, layers="transformer.layer", layer=LAYER)
    yield from head_rules(
        spec,
        transform="vocab_transform",
        norm="vocab_layer_norm",
        decoder="vocab_projector",
        bias="vocab_projector.bias",
        dense="pre_classifier",
        classifier="classifier",
    )


DISTILBERT = Family(
    "distilbert",
    "DistilBertModel",
    _read,
    _write,
    _rules,
    prefix="distilbert.",
    headed=("vocab_", "pre_classifier.", "classifier."),
    ignored=("embeddings.position_ids",),
    variants=(
        {"architectures": ["DistilBertForMaskedLM"]},
        {"architectures": ["DistilBertForMaskedLM"], "activation": "relu", "n_heads": 2},
        {"architectures": ["DistilBertForMaskedLM"], "tie_word_embeddings": False},
        {"architectures": ["DistilBertForMaskedLM"], "sinusoidal_pos_embds": True, "n_layers": 1},
        {"architectures": ["DistilBertForSequenceClassification"], "num_labels": 3},
        {"architectures": ["DistilBertForSequenceClassification"], "sinusoidal_pos_embds": True},
        {"architectures": ["DistilBertForTokenClassification"], "num_labels": 5},
        {"architectures": ["DistilBertModel"]},
        {"architectures": ["DistilBertModel"], "hidden_dim": 20, "n_heads": 1},
    ),
)
