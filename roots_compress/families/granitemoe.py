"""Granite 3 MoE: Granite 3 with experts in all layers."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_shape
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.experts import with_experts, without_experts
from roots_compress.families.granite import granite_spec, write_granite
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec

EXPERTS = "num_local_experts"
GATE_UP, DOWN = "block_sparse_moe.input_linear", "block_sparse_moe.output_linear"
NAMES = {
    **NORM_NAMES,
    "mlp.router": "block_sparse_moe.router.layer",
    "mlp.experts.{}.gate_proj": GATE_UP,
    "mlp.experts.{}.up_proj": GATE_UP,
    "mlp.experts.{}.down_proj": DOWN,
}


def _read(switches: Switches) -> ModelSpec:
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048)
    spec = granite_spec(switches, shape)
    return with_experts(switches, spec, key=EXPERTS, experts=8, chosen=2, renormalise=True)


def _write(spec: ModelSpec) -> dict[str, Any]:
    plain, _, experts = without_experts(spec, EXPERTS)
    return {**write_granite(plain), **experts}


FAMILY = Family(
    "granitemoe",
    "GraniteMoeForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=NAMES),
    variants=(
        {"attention_multiplier": 0.3},
        {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "num_key_value_heads": 1},
        {"logits_scaling": 6.0, "tie_word_embeddings": True, "num_experts_per_tok": 1},
    ),
)
