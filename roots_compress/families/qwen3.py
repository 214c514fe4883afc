"""Qwen 3: norms of each head's queries and keys, windows by layer."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import QkNorm

FAMILY = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    partial(
        read_decoder,
        windows=Switches.windows,
        qk_norm=QkNorm(),
        head_dim=128,
        kv_heads=32,
        null_kv_heads=True,
        context=32768,
    ),
    partial(write_decoder, windows="by_layer", attention_bias=True),
    decoder_rules,
    variants=(
        {"tie_word_embeddings": True},
        {"attention_bias": True, "head_dim": 16, "num_key_value_heads": 1},
    ),
)
