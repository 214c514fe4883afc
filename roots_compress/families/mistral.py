"""Mistral: a Llama whose layers may all have a sliding window."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.switches import Switches

FAMILY = Family(
    "mistral",
    "MistralForCausalLM",
    partial(
        read_decoder,
        windows=partial(Switches.windows, by_default=True),
        biases="none",
        kv_heads=8,
        null_head_dim=True,
        context=131072,
    ),
    partial(write_decoder, windows="all"),
    decoder_rules,
    variants=({"sliding_window": None}, {"sliding_window": 5, "num_key_value_heads": 1}),
)
