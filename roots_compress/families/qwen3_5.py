"""Qwen3.5 (text), its form with experts, and Qwen3-Next: Gated DeltaNet in most layers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import Shape, attending, decoder_spec, pre_norm_layer, read_shape
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.experts import (
    SHARED_NAMES,
    STACKED_NAMES,
    read_shared,
    with_shared,
    write_shared,
)
from roots_compress.families.qwen import read_sparse, write_sparse
from roots_compress.families.rope import FULL, read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import ADD_ONE, Stacked
from roots_compress.models.ops.attention import QkNorm
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.ops.linear_attention import GatedDeltaNet
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec

SHARE, INTERVAL = 0.25, 4
"""Of a head that positions turn; of the layers, every which one attends to all tokens."""
LINEAR = "linear_attention"
NAMES = {
    **NORM_NAMES,
    "linear_attn_pre_norm": "input_layernorm",
    "self_attn.gate_proj": "self_attn.q_proj",
    **dict.fromkeys((f"linear_attn.{name}_proj" for name in "qkv"), "linear_attn.in_proj_qkv"),
    **{f"linear_attn.{name}_proj": f"linear_attn.in_proj_{name}" for name in "zba"},
}
UNREAD = ("mamba_ssm_dtype", "mtp_num_hidden_layers", "mtp_use_dedicated_embeddings")
MROPE = ("mrope_section", "mrope_interleaved")
"""How positions of images differ; those of text are one number."""


def read_hybrid(switches: Switches, kv_heads: int = 2) -> tuple[Shape, list[OpSpec]]:
    """Take all but the feed-forward blocks: the numbers, and each layer's block that reads other tokens."""
    shape = read_shape(
        switches,
        head_dim=256,
        kv_heads=kv_heads,
        context=32768,
        activations={"silu": "silu", "swish": "silu"},
    )
    switches.same("attn_output_gate", True)
    switches.same("output_gate_type", "swish", "silu")
    switches.leave(*UNREAD)
    given = switches.take("rope_parameters")
    if isinstance(given, dict):
        given = {key: value for key, value in given.items() if key not in MROPE}
    switches.put("rope_parameters", given)
    bias = switches.flag("attention_bias", False)
    attention = shape.attention(
        rope=rope_of(switches, read_rope(switches, partial=SHARE), head_dim=shape.head_dim),
        qk_norm=QkNorm(eps=shape.norm.eps),
        bias=bias,
        output_bias=bias,
        gated=True,
    )
    linear = GatedDeltaNet(
        key_heads=switches.number("linear_num_key_heads", 16),
        value_heads=switches.number("linear_num_value_heads", 32),
        key_dim=switches.number("linear_key_head_dim", 128),
        value_dim=switches.number("linear_value_head_dim", 128),
        kernel=switches.number("linear_conv_kernel_dim", 4),
        eps=shape.norm.eps,
    )
    return shape, [attention if each else linear for each in _attending(switches, shape.layers)]


def _read_qwen3_5(switches: Switches) -> ModelSpec:
    shape, mixers = read_hybrid(switches, kv_heads=4)
    mlp = Mlp(channels=shape.channels)
    return decoder_spec(shape, [pre_norm_layer(each, mlp, shape.norm) for each in mixers])


def _attending(switches: Switches, layers: int) -> list[bool]:
    interval, types = switches.number("full_attention_interval", INTERVAL), switches.take("layer_types")
    if types is None:
        types = [LINEAR if (index + 1) % interval else FULL for index in range(layers)]
    return attending(switches, types, layers, LINEAR)


def write_hybrid(spec: ModelSpec) -> dict[str, Any]:
    """Return the configuration of a Qwen3.5, as far as it does not depend on experts."""
    firsts = [layer[0].op for layer in spec.layers]
    linear = next((op for op in firsts if isinstance(op, GatedDeltaNet)), None)
    numbers = {}
    if linear is not None:
        numbers = {
            "linear_num_key_heads": linear.key_heads,
            "linear_num_value_heads": linear.value_heads,
            "linear_key_head_dim": linear.key_dim,
            "linear_value_head_dim": linear.value_dim,
            "linear_conv_kernel_dim": linear.kernel,
        }
    return {
        **write_decoder(spec, attention_bias=True, partial=True),
        **numbers,
        "layer_types": [op.keeps for op in firsts],
    }


HALVES = [LINEAR, FULL]
QWEN3_5 = Family(
    "qwen3_5_text",
    "Qwen3_5ForCausalLM",
    _read_qwen3_5,
    write_hybrid,
    partial(decoder_rules, names=NAMES, gain=ADD_ONE, by_head=True),
    variants=(
        {"layer_types": HALVES},
        {"layer_types": [FULL, LINEAR], "linear_num_key_heads": 4, "tie_word_embeddings": True},
        {"layer_types": HALVES, "linear_num_key_heads": 1, "linear_value_head_dim": 4},
        {"layer_types": HALVES, "linear_conv_kernel_dim": 2, "num_key_value_heads": 1, "head_dim": 16},
        {"layer_types": HALVES, "attention_bias": True, "linear_num_value_heads": 6},
        {"layer_types": [FULL, FULL], "num_key_value_heads": 4},
        {
            "layer_types": None,
            "full_attention_interval": 3,
            "num_hidden_layers": 3,
            "linear_key_head_dim": 16,
        },
        {
            "layer_types": HALVES,
            "rms_norm_eps": 1e-3,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 300.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [1, 1, 0],
                "mrope_interleaved": True,
            },
        },
    ),
)
"""Qwen3.5 (text): Gated DeltaNet in most layers, attention whose output is gated in others."""


WIDTH = "intermediate_size"
"""Of feed-forward blocks that no layer has."""


def _read_qwen3_5_moe(switches: Switches) -> ModelSpec:
    switches.put(WIDTH, switches.take(WIDTH) or 1)
    shape, mixers = read_hybrid(switches)
    shared = read_shared(
        switches, shape.activation, experts=256, chosen=8, channels=(512, 512), renormalise=None
    )
    return decoder_spec(shape, [shared.layer(each, shape.norm) for each in mixers])


def _write_qwen3_5_moe(spec: ModelSpec) -> dict[str, Any]:
    written = {**write_hybrid(spec), **write_shared(spec, False)}
    del written[WIDTH]
    return written


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor: published files stack the experts' matrices, transformers does not."""
    names = {**NAMES, **SHARED_NAMES}
    yield from decoder_rules(spec, names=names, gain=ADD_ONE, by_head=True)
    for rule in decoder_rules(spec, names=names | STACKED_NAMES):
        if isinstance(rule.transform, Stacked):
            yield Rule(rule.source.removesuffix(".weight"), rule.targets, rule.transform)


QWEN3_5_MOE = Family(
    "qwen3_5_moe_text",
    "Qwen3_5MoeForCausalLM",
    _read_qwen3_5_moe,
    _write_qwen3_5_moe,
    _rules,
    variants=(
        {"layer_types": HALVES},
        {"layer_types": [FULL, LINEAR], "linear_num_key_heads": 4, "tie_word_embeddings": True},
        {"layer_types": HALVES, "num_experts_per_tok": 1, "linear_value_head_dim": 4},
        {"layer_types": HALVES, "num_experts_per_tok": 4, "num_key_value_heads": 1, "head_dim": 16},
        {"layer_types": HALVES, "attention_bias": True, "linear_num_value_heads": 6},
        {"layer_types": [FULL, FULL], "num_experts": 7, "moe_intermediate_size": 20},
        {"layer_types": HALVES, "shared_expert_intermediate_size": 20, "linear_conv_kernel_dim": 2},
        {"layer_types": [LINEAR, LINEAR, FULL], "num_hidden_layers": 3, "rms_norm_eps": 1e-3},
    ),
)
"""Qwen3.5 with routed experts and a shared expert."""


QKVZ, BA = "linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"
FUSED = {f"linear_attn.{name}_proj": QKVZ for name in "qkvz"}
FUSED |= {f"linear_attn.{name}_proj": BA for name in "ba"}


def _read_qwen3_next(switches: Switches) -> ModelSpec:
    shape, mixers = read_hybrid(switches)
    shared = read_shared(
        switches, shape.activation, experts=512, chosen=10, channels=(512, 512), renormalise=True
    )
    mlp = Mlp(channels=shape.channels, activation=shape.activation)
    plain = decoder_spec(shape, [pre_norm_layer(each, mlp, shape.norm) for each in mixers])
    sparse = read_sparse(switches, shape.layers)
    return plain.with_layers(with_shared(plain.layers, shared, sparse))


def _write_qwen3_next(spec: ModelSpec) -> dict[str, Any]:
    return {**write_hybrid(spec), **write_shared(spec, True), **write_sparse(spec)}


QWEN3_NEXT = Family(
    "qwen3_next",
    "Qwen3NextForCausalLM",
    _read_qwen3_next,
    _write_qwen3_next,
    partial(
        decoder_rules,
        names={**NAMES, **SHARED_NAMES, **FUSED},
        gain=ADD_ONE,
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
"""Qwen3-Next: a Qwen3.5 with experts, most of whose fused projections lie key head by key head."""
