"""Granite 3 MoE: Granite 3 with experts in all layers, and what it shares with Granite 4."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_shape
from roots_compress.families.decoder_config import first_blocks
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.experts import Shared, with_experts, with_shared, without_experts
from roots_compress.families.granite import granite_spec, write_granite
from roots_compress.families.routed import routed_blocks
from roots_compress.families.switches import Switches
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
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
CHANNELS = "shared_intermediate_size"
BESIDE_NAMES = {
    **NAMES,
    "shared_mlp_pre_norm": "post_attention_layernorm",
    **{f"shared_mlp.{name}_proj": "shared_mlp.input_linear" for name in ("gate", "up")},
    "shared_mlp.down_proj": "shared_mlp.output_linear",
}
"""Names of experts in layers that have a shared expert too."""


def _read(switches: Switches) -> ModelSpec:
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048)
    spec = granite_spec(switches, shape)
    return with_experts(switches, spec, key=EXPERTS, experts=8, chosen=2, renormalise=True)


def beside_experts(switches: Switches, spec: ModelSpec, width: int) -> ModelSpec:
    """Take experts of a width, and return a model with them beside its feed-forward blocks."""
    _, mlp = spec.layers[0]
    assert isinstance(mlp.op, Mlp)
    moe = Moe(
        experts=switches.number(EXPERTS, 8),
        chosen=switches.number("num_experts_per_tok", 2),
        channels=width,
        activation=mlp.op.activation,
    )
    shared = Shared(moe, changed(mlp.op, shared=True))
    return spec.with_layers(with_shared(spec.layers, shared, [True] * len(spec.layers)))


def write_beside(spec: ModelSpec) -> dict[str, Any]:
    """Return the keys of experts and of the blocks beside them, which a model may have alone."""
    mlp = first_blocks(spec)[1]
    if not mlp.shared:
        return {CHANNELS: mlp.channels, EXPERTS: 0, "num_experts_per_tok": 0}
    moe, _ = routed_blocks(spec)
    return {
        CHANNELS: mlp.channels,
        "intermediate_size": moe.channels,
        EXPERTS: moe.experts,
        "num_experts_per_tok": moe.chosen,
    }


def _write(spec: ModelSpec) -> dict[str, Any]:
    plain, _, experts = without_experts(spec, EXPERTS)
    return {**write_granite(plain), **experts}


VARIANTS: tuple[dict[str, Any], ...] = (
    {"attention_multiplier": 0.3},
    {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "num_key_value_heads": 1},
    {"logits_scaling": 6.0, "tie_word_embeddings": True, "num_experts_per_tok": 1},
)
FAMILY = Family(
    "granitemoe",
    "GraniteMoeForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=NAMES),
    variants=VARIANTS,
)
