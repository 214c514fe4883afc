"""Hunyuan, dense and with experts: norms of queries and keys that their positions have turned."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.experts import TRAINING, Shared
from roots_compress.families.rope import DEFAULT_THETA
from roots_compress.families.routed import routed_blocks
from roots_compress.families.switches import Switches
from roots_compress.families.values import is_positive, shown
from roots_compress.models.ops.attention import QkNorm, Rope
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec

NAMES = {
    **NORM_NAMES,
    "self_attn.q_norm": "self_attn.query_layernorm",
    "self_attn.k_norm": "self_attn.key_layernorm",
}
HUNYUAN_V1_DENSE_UNREAD = """
    add_classification_head attention_head_dim cla_share_factor class_num dense_list eod_token_id
    group_limited_greedy im_end_id im_newline_id im_start_id mask_init_id norm_type num_shared_expert
    org_vocab_size pad_id pool_type routed_scaling_factor text_end_id text_start_id topk_group
    """.split()  # noqa: SIM905
"""Keys of published configurations that transformers' class does not read."""
SAID = {
    "use_rotary_pos_emb": True,
    "position_embedding_xdrope": False,
    "use_cla": False,
    "use_mla": False,
    "num_experts": 1,
}
"""Others, and what its models do."""


def _fixed_rope(switches: Switches) -> Rope | None:
    """Take positions whose base is fixed by `alpha`, which configurations call dynamic; None for others."""
    for key in ("rope_scaling", "rope_parameters"):
        given = switches.said(key, None)
        if not isinstance(given, dict) or given.get("rope_type", given.get("type")) != "dynamic":
            continue
        alpha, width = given.get("alpha"), switches.said("head_dim", None)
        theta = given.get("rope_theta", switches.take("rope_theta", DEFAULT_THETA))
        if is_positive(alpha) and is_positive(theta) and type(width) is int and width > 2:
            switches.take(key)
            return Rope(theta=float(theta) * float(alpha or 1) ** (width / (width - 2)))
    return None


def read_hunyuan(switches: Switches) -> ModelSpec:
    """Return what a configuration says of all but experts."""
    switches.leave(*HUNYUAN_V1_DENSE_UNREAD)
    switches.all_same(SAID)
    return read_decoder(
        switches,
        rope=_fixed_rope(switches),
        qk_norm=QkNorm(after_rope=True),
        stated_head_dim=True,
        null_kv_heads=True,
        context=2048,
        eps=1e-5,
    )


HUNYUAN_V1_DENSE = Family(
    "hunyuan_v1_dense",
    "HunYuanDenseV1ForCausalLM",
    read_hunyuan,
    partial(write_decoder, attention_bias=True),
    partial(decoder_rules, names=NAMES),
    variants=(
        {},
        {
            "rope_parameters": {"rope_type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 100.0},
            "num_key_value_heads": 1,
        },
        {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True},
    ),
)
"""Hunyuan (dense) and HY-MT: norms of queries and keys that their positions have turned."""


EXPERTS, CHOSEN = "num_experts", "moe_topk"
HUNYUAN_V1_MOE_UNREAD = """
    moe_drop_tokens moe_intermediate_size moe_layer_num_skipped moe_random_routing_dropped_token n_group
    norm_topk_prob use_mixed_mlp_moe use_qk_norm
    """.split()  # noqa: SIM905
"""Keys of published configurations that transformers' class does not read."""


def _read(switches: Switches) -> ModelSpec:
    switches.leave(*TRAINING, *HUNYUAN_V1_MOE_UNREAD)
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


HUNYUAN_V1_MOE = Family(
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
"""Hunyuan-A13B: a dense Hunyuan with routed experts and a shared expert in place of its MLPs."""
