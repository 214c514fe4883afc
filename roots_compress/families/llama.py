"""Llama, and what is stored as one: SmolLM2, TinyLlama, distilled R1."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}


FAMILY = Family(
    "llama",
    "LlamaForCausalLM",
    partial(
        read_decoder, mlp_bias=None, null_head_dim=True, null_kv_heads=True, whole_heads=True, context=2048
    ),
    partial(write_decoder, attention_bias=True, mlp_bias="mlp_bias"),
    decoder_rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
        {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
        {"head_dim": 16, "hidden_act": "gelu"},
        {"rope_parameters": LLAMA3_ROPE},
        {"rope_parameters": YARN},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}},
    ),
)
