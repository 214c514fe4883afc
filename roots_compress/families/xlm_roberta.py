"""XLM-RoBERTa: RoBERTa under other names, with a multilingual vocabulary."""

from __future__ import annotations

from roots_compress.families.roberta import roberta_family

FAMILY = roberta_family(
    "xlm-roberta",
    "XLMRoberta",
    (
        {"architectures": ["XLMRobertaForMaskedLM"], "type_vocab_size": 1},
        {"architectures": ["XLMRobertaForSequenceClassification"], "type_vocab_size": 1, "num_labels": 4},
        {"architectures": ["XLMRobertaForTokenClassification"], "type_vocab_size": 1, "num_labels": 5},
        {"architectures": ["XLMRobertaModel"], "type_vocab_size": 1},
    ),
)
