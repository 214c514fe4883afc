"""RoBERTa, XLM-RoBERTa, CamemBERT: BERT whose positions begin after the padding token, and other heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.encoder import classes, encoder_rules, head_rules, read_encoder, write_encoder
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import last_rows
from roots_compress.models.spec import ModelSpec

PADDING = 1
"""The id of the padding token in every published model: the first position is the row after it."""
UNREAD_POSITIONS = PADDING + 1


HEADED = ("lm_head.", "classifier.")
"""What names of RoBERTa's heads begin with."""
COPIES = {"lm_head.decoder.bias": "lm_head.bias"}
UNREAD = (
    "embeddings.position_ids",
    "lm_head.bias",
    "pooler.dense.weight",
    "pooler.dense.bias",
)
"""A buffer, biases that are stored twice, and a layer that no task here has."""


def roberta_head_rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor of the head."""
    yield from head_rules(
        spec,
        transform="lm_head.dense",
        norm="lm_head.layer_norm",
        decoder="lm_head.decoder",
        bias="lm_head.bias",
        dense="classifier.dense",
        classifier="classifier.out_proj",
    )


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from encoder_rules(spec, positions=last_rows(UNREAD_POSITIONS))
    yield from roberta_head_rules(spec)


def roberta_family(model_type: str, stem: str, variants: tuple[Mapping[str, Any], ...]) -> Family:
    """Return a family of RoBERTa's shape, whose classes begin with `stem`."""
    kinds = classes(stem)

    def read(switches: Switches) -> ModelSpec:
        if switches.said("pad_token_id", PADDING) != PADDING:
            switches.refuse(f"pad_token_id must be {PADDING}, after which positions begin")
        return read_encoder(switches, kinds, unread_positions=UNREAD_POSITIONS, masked="gelu")

    def write(spec: ModelSpec) -> dict[str, Any]:
        written = write_encoder(spec, kinds, unread_positions=UNREAD_POSITIONS)
        return {**written, "pad_token_id": PADDING}

    return Family(
        model_type,
        f"{stem}Model",
        read,
        write,
        _rules,
        prefix="roberta.",
        headed=HEADED,
        copies=COPIES,
        ignored=UNREAD,
        variants=tuple({"pad_token_id": PADDING, **changes} for changes in variants),
    )


ROBERTA = roberta_family(
    "roberta",
    "Roberta",
    (
        {"architectures": ["RobertaForMaskedLM"], "type_vocab_size": 1},
        {"architectures": ["RobertaForMaskedLM"], "hidden_act": "relu", "num_attention_heads": 2},
        {"architectures": ["RobertaForMaskedLM"], "tie_word_embeddings": False, "type_vocab_size": 1},
        {"architectures": ["RobertaForMaskedLM"], "layer_norm_eps": 0.01, "num_hidden_layers": 1},
        {"architectures": ["RobertaForSequenceClassification"], "num_labels": 3, "type_vocab_size": 1},
        {"architectures": ["RobertaForSequenceClassification"], "hidden_act": "gelu_new"},
        {"architectures": ["RobertaForTokenClassification"], "num_labels": 5, "type_vocab_size": 1},
        {"architectures": ["RobertaModel"], "type_vocab_size": 1, "max_position_embeddings": 34},
        {"architectures": ["RobertaModel"], "intermediate_size": 20, "num_attention_heads": 1},
    ),
)
"""RoBERTa: BERT with one token type, whose positions begin after the padding token's id, and other heads."""


XLM_ROBERTA = roberta_family(
    "xlm-roberta",
    "XLMRoberta",
    (
        {"architectures": ["XLMRobertaForMaskedLM"], "type_vocab_size": 1},
        {"architectures": ["XLMRobertaForSequenceClassification"], "type_vocab_size": 1, "num_labels": 4},
        {"architectures": ["XLMRobertaForTokenClassification"], "type_vocab_size": 1, "num_labels": 5},
        {"architectures": ["XLMRobertaModel"], "type_vocab_size": 1},
    ),
)
"""XLM-RoBERTa: RoBERTa under other names, with a multilingual vocabulary."""


CAMEMBERT = roberta_family(
    "camembert",
    "Camembert",
    (
        {"architectures": ["CamembertForMaskedLM"], "type_vocab_size": 1},
        {"architectures": ["CamembertForSequenceClassification"], "num_labels": 3, "type_vocab_size": 1},
        {"architectures": ["CamembertModel"], "intermediate_size": 20, "num_attention_heads": 2},
    ),
)
"""CamemBERT: RoBERTa under another name."""
