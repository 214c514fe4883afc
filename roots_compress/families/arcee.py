"""Arcee (AFM): a Llama whose feed-forward blocks have no gate, and the square of ReLU."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules

FAMILY = Family(
    "arcee",
    "ArceeForCausalLM",
    partial(
        read_decoder,
        mlp_bias=None,
        gated=False,
        activation="relu2",
        null_head_dim=True,
        null_kv_heads=True,
        whole_heads=True,
        context=4096,
        eps=1e-5,
    ),
    partial(write_decoder, attention_bias=True, mlp_bias="mlp_bias"),
    decoder_rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {"head_dim": 16, "hidden_act": "gelu"},
    ),
)
