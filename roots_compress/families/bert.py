"""BERT, and what is stored as one: MiniLM. Learned positions, and token types."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from roots_compress.families.base import Family, Rule
from roots_compress.families.encoder import encoder_rules, head_rules, read_encoder, write_encoder
from roots_compress.models.spec import ModelSpec

ARCHITECTURES = {
    "BertForMaskedLM": "masked_lm",
    "BertForPreTraining": "masked_lm",
    "BertForSequenceClassification": "classification",
    "BertForTokenClassification": "token_classification",
    "BertModel": "embedding",
}


def bert_head_rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor of the head."""
    return head_rules(
        spec,
        transform="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        decoder="cls.predictions.decoder",
        bias="cls.predictions.bias",
        dense="pooler.dense",
        classifier="classifier",
    )


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from encoder_rules(spec)
    yield from bert_head_rules(spec)


UNREAD = (
    "embeddings.position_ids",
    "cls.predictions.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
)
"""Buffers, a bias that an untied matrix does not read, and the head of pairs, which no task here has."""


BERT = Family(
    "bert",
    "BertModel",
    partial(read_encoder, kinds=ARCHITECTURES),
    partial(write_encoder, kinds=ARCHITECTURES),
    _rules,
    prefix="bert.",
    headed=("cls.", "classifier."),
    copies={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=(*UNREAD, "pooler.dense.weight", "pooler.dense.bias"),
    variants=(
        {"architectures": ["BertForMaskedLM"]},
        {"architectures": ["BertForMaskedLM"], "hidden_act": "relu", "num_attention_heads": 2},
        {"architectures": ["BertForMaskedLM"], "tie_word_embeddings": False, "type_vocab_size": 1},
        {"architectures": ["BertForMaskedLM"], "layer_norm_eps": 0.01, "num_hidden_layers": 1},
        {"architectures": ["BertForSequenceClassification"], "num_labels": 3},
        {"architectures": ["BertForSequenceClassification"], "hidden_act": "gelu_new"},
        {"architectures": ["BertForTokenClassification"], "num_labels": 5},
        {"architectures": ["BertModel"]},
        {"architectures": ["BertModel"], "intermediate_size": 20, "num_attention_heads": 1},
    ),
)
