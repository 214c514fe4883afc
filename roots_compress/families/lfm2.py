"""LFM2: short convolutions in most layers, attention in others; with experts or without."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import Shape, attending, decoder_spec, pre_norm_layer, read_shape
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import without_experts
from roots_compress.families.rope import FULL, read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import QkNorm
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.ops.conv import READERS, ShortConv
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec

THETA = 1000000.0
CONV = "conv"
KERNEL = 3
MULTIPLE = 256
"""Of feed-forward blocks' widths."""
NAMES = {
    **dict.fromkeys((f"conv.{name}" for name in READERS), "conv.in_proj"),
    "self_attn.o_proj": "self_attn.out_proj",
    "self_attn.q_norm": "self_attn.q_layernorm",
    "self_attn.k_norm": "self_attn.k_layernorm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
    "conv_pre_norm": "operator_norm",
    "self_attn_pre_norm": "operator_norm",
    "mlp_pre_norm": "ffn_norm",
}
OF_TRAINING = (
    "block_mlp_init_scale",
    "block_out_init_scale",
    "block_use_xavier_init",
    "conv_use_xavier_init",
)


def lfm2_shape(switches: Switches) -> Shape:
    """Take the numbers of a configuration of LFM2, with experts or without."""
    switches.renamed("tie_embedding", "tie_word_embeddings")
    switches.null("hidden_act")  # The family's class does not read it.
    return read_shape(
        switches,
        kv_heads=8,
        context=128000,
        tied=True,
        eps=1e-5,
        eps_key="norm_eps",
        activations={"silu": "silu", "swish": "silu"},
    )


def lfm2_mixers(switches: Switches, shape: Shape) -> list[OpSpec]:
    """Take what is said of short convolutions and attention, and return the one that each layer has."""
    rope = rope_of(switches, read_rope(switches, theta=THETA), head_dim=shape.head_dim)
    switches.same("theta", rope.theta)
    attention = shape.attention(rope=rope, qk_norm=QkNorm(eps=shape.norm.eps))
    conv = ShortConv(
        channels=shape.width,
        kernel=switches.number("conv_L_cache", KERNEL),
        bias=switches.flag("conv_bias", False),
    )
    return [attention if each else conv for each in _attending(switches, shape.layers)]


def _read_lfm2(switches: Switches) -> ModelSpec:
    switches.renamed("block_ff_dim", "intermediate_size")
    shape = lfm2_shape(switches)
    for key in ("block_dim", "conv_dim", "conv_dim_out"):
        switches.same(key, shape.width)
    switches.same("num_heads", shape.heads)
    switches.same("block_norm_eps", shape.norm.eps)
    for key in ("block_use_swiglu", "use_pos_enc"):
        switches.same(key, True)
    switches.leave(*OF_TRAINING)
    mlp = Mlp(channels=_channels(switches, shape.channels))
    mixers = lfm2_mixers(switches, shape)
    return decoder_spec(shape, [pre_norm_layer(each, mlp, shape.norm) for each in mixers])


def _channels(switches: Switches, given: int) -> int:
    """Take the switches of the width of feed-forward blocks, and return it."""
    multiple, factor = switches.number("block_multiple_of", MULTIPLE), 1.0
    rounded = not switches.null("block_ffn_dim_multiplier", 1.0)
    if rounded:
        factor = switches.positive("block_ffn_dim_multiplier", 1.0)
    if not switches.flag("block_auto_adjust_ff_dim", True):
        return given
    channels = int(2 * given / 3)
    return -(-int(factor * channels) // multiple) * multiple if rounded else channels


def _attending(switches: Switches, layers: int) -> list[bool]:
    numbers, types = switches.take("full_attn_idxs"), switches.take("layer_types")
    if types is None:
        numbers = [*range(layers)] if numbers is None else numbers
        if not isinstance(numbers, list) or any(type(index) is not int for index in numbers):
            switches.refuse(f"full_attn_idxs is {shown(numbers)}; it must be a list of layers' numbers")
        types = [FULL if index in numbers else CONV for index in range(layers)]
    return attending(switches, types, layers, CONV)


def write_lfm2(spec: ModelSpec) -> dict[str, Any]:
    """Return what the configurations of LFM2 with experts and without have in common."""
    firsts = [layer[0].op for layer in spec.layers]
    conv = next((op for op in firsts if isinstance(op, ShortConv)), None)
    return {
        **write_decoder(spec, eps_key="norm_eps"),
        "conv_L_cache": KERNEL if conv is None else conv.kernel,
        "conv_bias": conv is not None and conv.bias,
        "layer_types": [op.keeps for op in firsts],
    }


def _write_lfm2(spec: ModelSpec) -> dict[str, Any]:
    return {**write_lfm2(spec), "block_auto_adjust_ff_dim": False}


LFM2 = Family(
    "lfm2",
    "Lfm2ForCausalLM",
    _read_lfm2,
    _write_lfm2,
    partial(decoder_rules, names=NAMES, outer={"norm": "embedding_norm"}),
    variants=(
        {"layer_types": ["conv", "full_attention"]},
        {"layer_types": ["full_attention", "conv"], "conv_L_cache": 5, "tie_word_embeddings": False},
        {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 1},
        {"layer_types": ["conv", "full_attention"], "conv_L_cache": 2, "head_dim": 16},
        {"layer_types": ["conv", "full_attention", "conv"], "num_hidden_layers": 3},
        {"block_auto_adjust_ff_dim": True, "block_multiple_of": 10, "layer_types": ["full_attention"] * 2},
        {
            "layer_types": ["conv", "full_attention"],
            "block_auto_adjust_ff_dim": True,
            "block_ffn_dim_multiplier": 1.5,
            "block_multiple_of": 16,
        },
        {
            "layer_types": ["conv", "conv", "conv", "full_attention"],
            "num_hidden_layers": 4,
            "num_key_value_heads": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
        },
    ),
)
"""LFM2: short convolutions in most layers, attention with norms of each head's queries and keys in others."""


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


def _read_lfm2_moe(switches: Switches) -> ModelSpec:
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


def _write_lfm2_moe(spec: ModelSpec) -> dict[str, Any]:
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


LFM2_MOE = Family(
    "lfm2_moe",
    "Lfm2MoeForCausalLM",
    _read_lfm2_moe,
    _write_lfm2_moe,
    partial(decoder_rules, names=EXPERT_NAMES, outer={"norm": "embedding_norm"}),
    variants=(
        {"num_dense_layers": 1},
        {"use_expert_bias": False, "norm_topk_prob": False, "routed_scaling_factor": 2.5},
        {"num_experts_per_tok": 1, "tie_word_embeddings": False},
    ),
)
"""LFM2 with a mixture of experts and a sigmoid router in all layers but the first few."""
