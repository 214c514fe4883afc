"""CamemBERT: RoBERTa under another name."""

from __future__ import annotations

from roots_compress.families.roberta import roberta_family

FAMILY = roberta_family(
    "camembert",
    "Camembert",
    (
        {"architectures": ["CamembertForMaskedLM"], "type_vocab_size": 1},
        {"architectures": ["CamembertForSequenceClassification"], "num_labels": 3, "type_vocab_size": 1},
        {"architectures": ["CamembertModel"], "intermediate_size": 20, "num_attention_heads": 2},
    ),
)
