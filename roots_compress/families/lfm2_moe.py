"""LFM2 with a mixture of experts and a sigmoid router in all layers but the first few."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import decoder_spec, pre_norm_layer
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import without_experts
from roots_compress.families.lfm2 import NAMES, lfm2_mixers, lfm2_shape, write_lfm2
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec

DENSE = 2
"""Layers without experts, where a configuration does not say how many."""
CHANNELS = 7168
"""Of their feed-forward blocks, where there is none."""
EXPERT_NAMES = {
    **NAMES,
    "mlp.experts.{}.gate_proj": "feed_forward.experts.{}.w1",
    "mlp.experts.{}.up_proj": "feed_forward.experts.{}.w3",
    "mlp.experts.{}.down_proj": "feed_forward.experts.{}.w2",
    "mlp.router": "feed_forward.gate",
    "mlp.selection_bias": "feed_forward.expert_bias",
}


def _read(switches: Switches) -> ModelSpec:
    shape = lfm2_shape(switches)
    switches.take("output_router_logits")
    dense = switches.take("num_dense_layers", DENSE)
    if type(dense) is not int or not 0 <= dense < shape.layers:
        switches.refuse(f"num_dense_layers is {shown(dense)}; it must be 0 or more, and below {shape.layers}")
    moe = Moe(
        experts=switches.number("num_experts", 32),
        chosen=switches.number("num_experts_per_tok", 4),
        channels=switches.number("moe_intermediate_size", 1792),
        renormalise=switches.flag("norm_topk_prob", True),
        scores="sigmoid",
        selection_bias=switches.flag("use_expert_bias", True),
        scale=switches.positive("routed_scaling_factor", 1.0),
    )
    mlp, mixers = Mlp(channels=shape.channels), lfm2_mixers(switches, shape)
    return decoder_spec(
        shape,
        [
            pre_norm_layer(each, mlp if index < dense else moe, shape.norm)
            for index, each in enumerate(mixers)
        ],
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    plain, moe, experts = without_experts(spec, "num_experts", CHANNELS)
    return {
        **write_lfm2(plain),
        **experts,
        "num_dense_layers": sum(isinstance(op, Mlp) for _, op in spec.blocks()),
        "moe_intermediate_size": moe.channels,
        "norm_topk_prob": moe.renormalise,
        "use_expert_bias": moe.selection_bias,
        "routed_scaling_factor": moe.scale,
    }


FAMILY = Family(
    "lfm2_moe",
    "Lfm2MoeForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=EXPERT_NAMES, outer={"norm": "embedding_norm"}),
    variants=(
        {"num_dense_layers": 1},
        {"use_expert_bias": False, "norm_topk_prob": False, "routed_scaling_factor": 2.5},
        {"num_experts_per_tok": 1, "tie_word_embeddings": False},
    ),
)
