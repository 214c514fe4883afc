"""Granite 3: a Llama with factors on embeddings, scores, logits and what each block adds to the stream."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import (
    decoder_spec,
    first_blocks,
    pre_norm_layer,
    read_biases,
    read_shape,
    write_decoder,
)
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.rope import read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec, Norm


def _read(switches: Switches) -> ModelSpec:
    """Read a configuration, with the stream divided by the factor on what blocks add to it.

    Blocks then add what they give. The embeddings' factor makes up for it, and the norms' epsilon: the norm
    of x / m with eps / m² is the norm of x with eps.
    """
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048)
    added = switches.positive("residual_multiplier", 1.0)
    shape = replace(shape, norm=Norm(eps=shape.norm.eps / added**2))
    bias, output_bias = read_biases(switches, None)
    attention = Attention(
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        rope=rope_of(switches, read_rope(switches)),
        scale=switches.positive("attention_multiplier", 1.0),
        bias=bias,
        output_bias=output_bias,
    )
    mlp = Mlp(channels=shape.channels, activation=shape.activation, bias=switches.flag("mlp_bias", False))
    switches.no_windows(shape.layers)
    return decoder_spec(
        shape,
        [pre_norm_layer(attention, mlp, shape.norm)] * shape.layers,
        scale=switches.positive("embedding_multiplier", 1.0) / added,
        head=LmHead(scale=1 / switches.positive("logits_scaling", 1.0)),
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, mlp = first_blocks(spec)
    return {
        **write_decoder(spec, attention_bias=True),
        "mlp_bias": mlp.bias,
        "attention_multiplier": attention.factor,
        "embedding_multiplier": spec.embeddings.scale,
        "residual_multiplier": 1.0,
        # 1 / (1 / 6) is not 6 in floating point.
        "logits_scaling": float(f"{1 / spec.lm_head.scale:.12g}"),
    }


FAMILY = Family(
    "granite",
    "GraniteForCausalLM",
    _read,
    _write,
    decoder_rules,
    variants=(
        {"attention_multiplier": 0.3},
        {
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.0625,
            "logits_scaling": 6.0,
            "tie_word_embeddings": True,
        },
        {"residual_multiplier": 2.0, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    ),
)
