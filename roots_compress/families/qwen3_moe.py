"""Qwen3-MoE: Qwen 3 whose feed-forward blocks are mixtures of experts, in all layers or in some."""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import decoder_spec, pre_norm_layer, read_biases, read_shape
from roots_compress.families.decoder_config import activation_name
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.rope import read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import Attention, QkNorm, Rope
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec, Norm

CHANNELS = 6144
"""Of a plain feed-forward block, where a configuration does not say it."""


def read_sparse(switches: Switches, layers: int) -> list[bool]:
    """Take which layers have experts: every so-manieth, but those that are named."""
    given = switches.take("mlp_only_layers")
    given = [] if given is None else given
    if not isinstance(given, list) or any(type(index) is not int for index in given):
        switches.refuse(f"mlp_only_layers is {shown(given)}; it must be a list of layers' numbers")
    step = switches.number("decoder_sparse_step", 1)
    return [index not in given and (index + 1) % step == 0 for index in range(layers)]


def _read(switches: Switches) -> ModelSpec:
    switches.renamed("num_local_experts", "num_experts")
    shape = read_shape(switches, kv_heads=4, context=32768)
    window = switches.optional_number("sliding_window", 4096)
    window = window if switches.flag("use_sliding_window", False) else None
    bias, output_bias = read_biases(switches, None)
    attention = Attention(
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rope=rope_of(switches, read_rope(switches)),
        window=window,
        qk_norm=QkNorm(eps=shape.norm.eps),
        bias=bias,
        output_bias=output_bias,
    )
    sparse = read_sparse(switches, shape.layers)
    for key in ("output_router_logits", "router_aux_loss_coef"):  # Of training.
        switches.take(key)
    mlp = Mlp(channels=shape.channels, activation=shape.activation)
    moe = Moe(
        experts=switches.number("num_experts", 128),
        chosen=switches.number("num_experts_per_tok", 8),
        channels=switches.number("moe_intermediate_size", 768),
        activation=shape.activation,
        renormalise=switches.flag("norm_topk_prob", False),
    )
    layers = [pre_norm_layer(attention, moe if each else mlp, shape.norm) for each in sparse]
    return decoder_spec(shape, layers)


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention = spec.attentions()[0]
    blocks = [layer[-1].op for layer in spec.layers]
    moe = next((op for op in blocks if isinstance(op, Moe)), None)
    if moe is None:
        raise ValueError("it has no experts")
    plain = [index for index, op in enumerate(blocks) if isinstance(op, Mlp)]
    channels = next((op.channels for op in blocks if isinstance(op, Mlp)), CHANNELS)
    return {
        "vocab_size": spec.embeddings.vocabulary,
        "hidden_size": spec.width,
        "max_position_embeddings": spec.max_positions,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "attention_bias": attention.bias,
        "use_sliding_window": attention.window is not None,
        "sliding_window": attention.window,
        "rms_norm_eps": (spec.stack.final_norm or Norm()).eps,
        "rope_parameters": (attention.rope or Rope()).parameters(),
        "hidden_act": activation_name(moe.activation),
        "tie_word_embeddings": spec.tied,
        "intermediate_size": channels,
        "mlp_only_layers": plain,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": moe.channels,
        "num_experts": moe.experts,
        "num_experts_per_tok": moe.chosen,
        "norm_topk_prob": moe.renormalise,
    }


FAMILY = Family(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    _read,
    _write,
    decoder_rules,
    variants=(
        {},
        {"num_experts_per_tok": 1},
        {"num_experts_per_tok": 4, "norm_topk_prob": True},
        {"norm_topk_prob": True, "num_key_value_heads": 1, "head_dim": 16},
        {"mlp_only_layers": [0], "norm_topk_prob": True},
        {"decoder_sparse_step": 2},
        {"attention_bias": True, "tie_word_embeddings": True},
        {"num_experts": 7, "moe_intermediate_size": 20, "hidden_act": "gelu"},
    ),
)
