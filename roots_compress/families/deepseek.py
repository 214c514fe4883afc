"""DeepSeek-V2 and V3: latent attention, and routed experts beside shared ones."""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import decoder_spec
from roots_compress.families.experts import TRAINING, Shared
from roots_compress.families.latent import latent_layers, latent_rules, read_latent, write_latent
from roots_compress.families.routed import (
    CHANNELS,
    CHOSEN,
    EXPERTS,
    SHARED,
    read_groups,
    read_leading,
    read_routed,
    routed_blocks,
    shared_mlp,
    write_routed,
)
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.moe import Groups, Moe
from roots_compress.models.spec import ModelSpec

UNREAD = ("aux_loss_alpha", "ep_size", "seq_aux")
"""Keys of published configurations, of training and of how it is computed."""
DEEPSEEK_V3_DOES = {"moe_layer_freq": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}
"""Others, and what its models do."""
INTERLEAVED = "rope_interleave"


def read_interleaved(switches: Switches) -> None:
    """Take whether positions turn adjacent channels, which they must."""
    if not switches.flag(INTERLEAVED, True):
        switches.refuse(f"{INTERLEAVED} is false: only positions that turn adjacent channels are read")


def _read_deepseek_v3(switches: Switches) -> ModelSpec:
    switches.leave(*UNREAD)
    switches.all_same(DEEPSEEK_V3_DOES)
    read_interleaved(switches)
    shape, attention = read_latent(switches, kv_heads=128, null_kv_heads=True, context=4096)
    shared = read_routed(
        switches,
        shape.activation,
        experts=256,
        chosen=8,
        channels=2048,
        shared=1,
        renormalise=True,
        groups=(8, 4),
        scale=2.5,
    )
    sparse = read_leading(switches, shape.layers, 3)
    return decoder_spec(shape, latent_layers(shape, attention, shared, sparse))


def _write_deepseek_v3(spec: ModelSpec) -> dict[str, Any]:
    return {**write_latent(spec), **write_routed(spec)}


YARN = {
    "rope_type": "yarn",
    "rope_theta": 1000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
}
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"q_lora_rank": None, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 4},
    {"rope_parameters": YARN, "attention_bias": True},
    {"v_head_dim": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "head_dim": 4},
    {"rope_parameters": {**YARN, "mscale_all_dim": 1.0}, "num_attention_heads": 2, "num_key_value_heads": 2},
    {"n_shared_experts": 2, "norm_topk_prob": False, "tie_word_embeddings": True},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}, "kv_lora_rank": 10},
    {"n_routed_experts": 7, "moe_intermediate_size": 20, "hidden_act": "gelu", "num_experts_per_tok": 1},
)
DEEPSEEK_V3 = Family(
    "deepseek_v3",
    "DeepseekV3ForCausalLM",
    _read_deepseek_v3,
    _write_deepseek_v3,
    latent_rules,
    variants=(
        *VARIANTS,
        {"num_hidden_layers": 3, "first_k_dense_replace": 2, "rms_norm_eps": 1e-2},
    ),
)
"""DeepSeek-V3 and R1, Kimi K2, Moonlight: latent attention, and experts in groups, weighed by sigmoids."""


METHOD, GREEDY, IN_GROUPS = "topk_method", "greedy", "group_limited_greedy"
DEEPSEEK_V2_DOES = {"moe_layer_freq": 1, "scoring_func": "softmax", "norm_topk_prob": False}
"""What its models do, by keys that transformers' class does not read."""


def _read_deepseek_v2(switches: Switches) -> ModelSpec:
    switches.leave(*UNREAD, *TRAINING)
    switches.all_same(DEEPSEEK_V2_DOES)
    switches.renamed("num_experts", EXPERTS)
    shape, attention = read_latent(switches, null_kv_heads=True, context=2048)
    bias = switches.flag("mlp_bias", False)
    width, count = switches.number(CHANNELS, 1407), switches.number(EXPERTS, 64)
    moe = Moe(
        experts=count,
        chosen=switches.number(CHOSEN),
        channels=width,
        activation=shape.activation,
        renormalise=False,
        groups=_groups(switches, count),
        scale=switches.positive("routed_scaling_factor", 1.0),
    )
    shared = Shared(moe, shared_mlp(switches, width, shape.activation, SHARED, 2, bias=bias))
    sparse = read_leading(switches, shape.layers, 0)
    return decoder_spec(shape, latent_layers(shape, attention, shared, sparse, mlp_bias=bias))


def _groups(switches: Switches, experts: int) -> Groups | None:
    """Take how experts are chosen: from all, or from groups that each count by their best expert."""
    method = switches.take(METHOD, GREEDY)
    if method == IN_GROUPS:
        return read_groups(switches, experts, (None, None), best=1)
    if method != GREEDY:
        switches.refuse(f"{METHOD} is {shown(method)}; it must be {GREEDY} or {IN_GROUPS}")
    switches.leave("n_group", "topk_group")
    return None


def _write_deepseek_v2(spec: ModelSpec) -> dict[str, Any]:
    moe, shared = routed_blocks(spec)
    return {
        **write_latent(spec),
        **write_routed(spec),
        "mlp_bias": shared is not None and shared.bias,
        METHOD: GREEDY if moe.groups is None else IN_GROUPS,
    }


GROUPED = {METHOD: IN_GROUPS, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 3}
DEEPSEEK_V2 = Family(
    "deepseek_v2",
    "DeepseekV2ForCausalLM",
    _read_deepseek_v2,
    _write_deepseek_v2,
    latent_rules,
    variants=(
        {},
        {"q_lora_rank": None, **GROUPED},
        *VARIANTS[2:5],
        {"n_shared_experts": 2, "routed_scaling_factor": 1.5, "mlp_bias": True},
        *VARIANTS[6:],
        {"num_hidden_layers": 3, "first_k_dense_replace": 2, **GROUPED, "topk_group": 1, CHOSEN: 2},
    ),
)
"""DeepSeek-V2, V2-Lite and their Coder models: latent attention, and experts weighed by a softmax."""
