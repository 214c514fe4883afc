"""Qwen 2 and 2.5: biases on queries, keys and values, windows by layer."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.switches import Switches

FAMILY = Family(
    "qwen2",
    "Qwen2ForCausalLM",
    partial(
        read_decoder, windows=Switches.windows, biases="qkv", kv_heads=32, null_kv_heads=True, context=32768
    ),
    partial(write_decoder, windows="by_layer"),
    decoder_rules,
    variants=(
        {},
        {"tie_word_embeddings": True, "num_key_value_heads": 4},
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
)
