"""ERNIE 4.5 (dense): a Llama whose adjacent channels are turned."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec


def _read(switches: Switches) -> ModelSpec:
    bias = switches.flag("use_bias", False)
    return read_decoder(
        switches,
        biases=(bias, bias),
        mlp_bias=bias,
        theta=500_000.0,
        head_dim=128,
        null_head_dim=True,
        kv_heads=2,
        null_kv_heads=True,
        context=131072,
        tied=True,
        eps=1e-5,
    )


def paired_rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor of a Llama whose adjacent channels are turned."""
    return decoder_rules(spec, paired=True)


FAMILY = Family(
    "ernie4_5",
    "Ernie4_5ForCausalLM",
    _read,
    partial(write_decoder, mlp_bias="use_bias"),
    paired_rules,
    variants=(
        {},
        {"use_bias": True, "num_key_value_heads": 1, "tie_word_embeddings": False},
        {"head_dim": 16, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}},
    ),
)
