"""Helium: a Llama whose adjacent channels are turned, with biases on queries, keys and values if any."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.ernie4_5 import paired_rules
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec


def _read(switches: Switches) -> ModelSpec:
    return read_decoder(
        switches,
        biases=(switches.flag("attention_bias", False), False),
        mlp_bias=None,
        theta=100_000.0,
        head_dim=128,
        filled=True,
        kv_heads=20,
        context=4096,
        eps=1e-8,
    )


FAMILY = Family(
    "helium",
    "HeliumForCausalLM",
    _read,
    partial(write_decoder, attention_bias=True, mlp_bias="mlp_bias"),
    paired_rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "gelu"},
    ),
)
