"""Mixtral: a Mistral with experts in all layers."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import one_window, read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.experts import with_experts, without_experts
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec

EXPERTS = "num_local_experts"
NAMES = {
    **NORM_NAMES,
    "mlp.router": "block_sparse_moe.gate",
    "mlp.experts.{}.gate_proj": "block_sparse_moe.experts.{}.w1",
    "mlp.experts.{}.up_proj": "block_sparse_moe.experts.{}.w3",
    "mlp.experts.{}.down_proj": "block_sparse_moe.experts.{}.w2",
}


def _read(switches: Switches) -> ModelSpec:
    switches.renamed("num_experts", EXPERTS)
    spec = read_decoder(
        switches,
        windows=one_window,
        biases="none",
        theta=1_000_000.0,
        null_head_dim=True,
        kv_heads=8,
        context=131072,
        eps=1e-5,
    )
    return with_experts(switches, spec, key=EXPERTS, experts=8, chosen=2, renormalise=True)


def _write(spec: ModelSpec) -> dict[str, Any]:
    plain, _, experts = without_experts(spec, EXPERTS)
    return {**write_decoder(plain, windows="all"), **experts}


FAMILY = Family(
    "mixtral",
    "MixtralForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=NAMES),
    variants=(
        {},
        {"sliding_window": 5, "num_key_value_heads": 1, "head_dim": 16},
        {"num_experts_per_tok": 1, "tie_word_embeddings": True, "hidden_act": "gelu"},
    ),
)
