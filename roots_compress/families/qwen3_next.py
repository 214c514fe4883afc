"""Qwen3-Next: a Qwen3.5 with experts, most of whose fused projections lie key head by key head."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import decoder_spec, pre_norm_layer
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import SHARED_NAMES, read_shared, with_shared, write_shared
from roots_compress.families.qwen2_moe import write_sparse
from roots_compress.families.qwen3_5 import LINEAR, NAMES, read_hybrid, write_hybrid
from roots_compress.families.qwen3_moe import read_sparse
from roots_compress.families.rope import FULL
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import AddOne
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec

QKVZ, BA = "linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"
FUSED = {f"linear_attn.{name}_proj": QKVZ for name in "qkvz"}
FUSED |= {f"linear_attn.{name}_proj": BA for name in "ba"}


def _read(switches: Switches) -> ModelSpec:
    shape, mixers = read_hybrid(switches)
    shared = read_shared(
        switches, shape.activation, experts=512, chosen=10, channels=(512, 512), renormalise=True
    )
    mlp = Mlp(channels=shape.channels, activation=shape.activation)
    plain = decoder_spec(shape, [pre_norm_layer(each, mlp, shape.norm) for each in mixers])
    sparse = read_sparse(switches, shape.layers)
    return plain.with_layers(with_shared(plain.layers, shared, sparse))


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_hybrid(spec), **write_shared(spec, True), **write_sparse(spec)}


HALVES = [LINEAR, FULL]
FAMILY = Family(
    "qwen3_next",
    "Qwen3NextForCausalLM",
    _read,
    _write,
    partial(
        decoder_rules,
        names={**NAMES, **SHARED_NAMES, **FUSED},
        gain=AddOne(),
        by_head=True,
        by_key_head=(QKVZ, BA),
    ),
    variants=(
        {"layer_types": HALVES},
        {"layer_types": [FULL, LINEAR], "linear_num_key_heads": 4, "tie_word_embeddings": True},
        {"layer_types": HALVES, "num_experts_per_tok": 1, "linear_value_head_dim": 4},
        {"layer_types": HALVES, "num_experts_per_tok": 4, "norm_topk_prob": False, "head_dim": 16},
        {"layer_types": HALVES, "attention_bias": True, "linear_num_value_heads": 6},
        {"layer_types": [FULL, FULL], "num_experts": 7, "moe_intermediate_size": 20},
        {"layer_types": HALVES, "shared_expert_intermediate_size": 20, "mlp_only_layers": [0]},
        {"num_hidden_layers": 4, "layer_types": None, "decoder_sparse_step": 2},
    ),
)
