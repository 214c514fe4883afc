"""DeepSeek-V2, V2-Lite and their Coder models: latent attention, and experts weighed by a softmax."""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import decoder_spec
from roots_compress.families.deepseek_v3 import UNREAD, VARIANTS
from roots_compress.families.experts import TRAINING, Shared
from roots_compress.families.latent import latent_layers, latent_rules, read_latent, write_latent
from roots_compress.families.routed import (
    CHANNELS,
    CHOSEN,
    EXPERTS,
    SHARED,
    read_groups,
    read_leading,
    routed_blocks,
    shared_mlp,
    write_routed,
)
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.moe import Groups, Moe
from roots_compress.models.spec import ModelSpec

METHOD, GREEDY, IN_GROUPS = "topk_method", "greedy", "group_limited_greedy"
DOES = {"moe_layer_freq": 1, "scoring_func": "softmax", "norm_topk_prob": False}
"""What its models do, by keys that transformers' class does not read."""


def _read(switches: Switches) -> ModelSpec:
    for key in (*UNREAD, *TRAINING):
        switches.take(key)
    for key, does in DOES.items():
        switches.same(key, does)
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
    for key in ("n_group", "topk_group"):
        switches.take(key)
    return None


def _write(spec: ModelSpec) -> dict[str, Any]:
    moe, shared = routed_blocks(spec)
    return {
        **write_latent(spec),
        **write_routed(spec),
        "mlp_bias": shared is not None and shared.bias,
        METHOD: GREEDY if moe.groups is None else IN_GROUPS,
    }


GROUPED = {METHOD: IN_GROUPS, "n_group": 3, "topk_group": 2, "num_experts_per_tok": 3}
FAMILY = Family(
    "deepseek_v2",
    "DeepseekV2ForCausalLM",
    _read,
    _write,
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
