"""Hunyuan-A13B: a dense Hunyuan with routed experts and a shared expert in place of its MLPs."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import TRAINING, Shared
from roots_compress.families.hunyuan_v1_dense import NAMES, read_hunyuan
from roots_compress.families.routed import routed_blocks
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec

EXPERTS, CHOSEN = "num_experts", "moe_topk"
UNREAD = """
    moe_drop_tokens moe_intermediate_size moe_layer_num_skipped moe_random_routing_dropped_token n_group
    norm_topk_prob use_mixed_mlp_moe use_qk_norm
    """.split()  # noqa: SIM905
"""Keys of published configurations that transformers' class does not read."""


def _read(switches: Switches) -> ModelSpec:
    for key in (*TRAINING, *UNREAD):
        switches.take(key)
    switches.renamed("num_local_experts", EXPERTS)
    switches.renamed("num_experts_per_tok", CHOSEN)
    count, each = switches.number(EXPERTS, 1), switches.take(CHOSEN, 1)
    spec = read_hunyuan(switches)
    chosen = each if isinstance(each, list) else [each] * len(spec.layers)
    if len(chosen) < len(spec.layers) or any(type(number) is not int or number < 1 for number in chosen):
        switches.refuse(f"{CHOSEN} is {shown(each)}; it must be a whole number, or one for each layer")
    layers = []
    for (attention, mlp), number in zip(spec.layers, chosen, strict=False):
        assert isinstance(mlp.op, Mlp)
        assert mlp.pre_norm is not None
        width, activation = mlp.op.channels, mlp.op.activation
        moe = Moe(experts=count, chosen=number, channels=width, activation=activation)
        layers.append(Shared(moe, changed(mlp.op, shared=True)).layer(attention.op, mlp.pre_norm))
    return spec.with_layers(tuple(layers))


def _write(spec: ModelSpec) -> dict[str, Any]:
    moe, _ = routed_blocks(spec)
    chosen = [each.op.chosen for layer in spec.layers for each in layer if isinstance(each.op, Moe)]
    return {
        **write_decoder(spec, attention_bias=True),
        EXPERTS: moe.experts,
        CHOSEN: chosen if len(set(chosen)) > 1 else moe.chosen,
    }


FAMILY = Family(
    "hunyuan_v1_moe",
    "HunYuanMoEV1ForCausalLM",
    _read,
    _write,
    partial(
        decoder_rules,
        names={
            **NAMES,
            "shared_mlp_pre_norm": "post_attention_layernorm",
            **{f"shared_mlp.{name}_proj": f"mlp.shared_mlp.{name}_proj" for name in ("gate", "up", "down")},
            "mlp.router": "mlp.gate.wg",
        },
    ),
    variants=(
        {},
        {"moe_topk": 1, "attention_bias": True, "tie_word_embeddings": True},
        {"moe_topk": [3, 2], "num_key_value_heads": 1, "head_dim": 16},
        {"rope_parameters": {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 100.0}},
        {"num_experts": 7, "hidden_act": "gelu"},
    ),
)
