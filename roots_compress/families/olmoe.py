"""OLMoE: experts in all layers; norms of all queries and all keys of a token at once."""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import with_experts, without_experts
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import QkNorm
from roots_compress.models.spec import ModelSpec

EXPERTS, RENORMALISE = "num_experts", "norm_topk_prob"


def _read(switches: Switches) -> ModelSpec:
    switches.renamed("num_local_experts", EXPERTS)
    if (bound := switches.take("clip_qkv")) is not None:
        switches.refuse(f"clip_qkv is {shown(bound)}: bounds of queries, keys and values are not supported")
    spec = read_decoder(
        switches,
        qk_norm=QkNorm(over="projection"),
        filled=True,
        null_kv_heads=True,
        context=4096,
        eps=1e-5,
    )
    renormalise = switches.flag(RENORMALISE, False)
    return with_experts(switches, spec, key=EXPERTS, experts=64, chosen=8, renormalise=renormalise)


def _write(spec: ModelSpec) -> dict[str, Any]:
    plain, moe, experts = without_experts(spec, EXPERTS)
    return {**write_decoder(plain, attention_bias=True), **experts, RENORMALISE: moe.renormalise}


FAMILY = Family(
    "olmoe",
    "OlmoeForCausalLM",
    _read,
    _write,
    decoder_rules,
    variants=(
        {},
        {"norm_topk_prob": True, "num_key_value_heads": 1, "attention_bias": True},
        {"num_experts_per_tok": 1, "tie_word_embeddings": True, "hidden_act": "gelu"},
    ),
)
