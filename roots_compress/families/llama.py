"""Llama, and what differs from it in a few switches: Arcee, Helium."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.ernie4_5 import paired_rules
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec

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


LLAMA = Family(
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
"""Llama, and what is stored as one: SmolLM2, TinyLlama, distilled R1."""


ARCEE = Family(
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
"""Arcee (AFM): a Llama whose feed-forward blocks have no gate, and the square of ReLU."""


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


HELIUM = Family(
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
"""Helium: a Llama whose adjacent channels are turned, with biases on queries, keys and values if any."""
