"""Ministral: a Mistral whose layers' windows are told apart."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec

WINDOW = 4096
"""transformers wants a window also where no layer slides."""


def _windows(switches: Switches, layers: int) -> list[int | None]:
    return switches.typed_windows(switches.number("sliding_window", WINDOW), layers, [True] * layers)


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_decoder(spec), **typed_windows(spec, WINDOW)}


FAMILY = Family(
    "ministral",
    "MinistralForCausalLM",
    partial(read_decoder, windows=_windows, biases="none", kv_heads=8, stated_head_dim=True, context=131072),
    _write,
    decoder_rules,
    variants=(
        {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
        {"layer_types": ["full_attention"] * 2, "num_key_value_heads": 1, "head_dim": 16},
        {"sliding_window": 7, "tie_word_embeddings": True},
    ),
)
