"""Granite 3: a Llama with factors on embeddings, scores, logits and what each block adds to the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import Shape, decoder_spec, pre_norm_layer, read_biases, read_shape
from roots_compress.families.decoder_config import first_blocks, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.rope import read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec, Norm


def granite_spec(
    switches: Switches,
    shape: Shape,
    *,
    positions: bool = True,
    mlp_bias: bool = False,
    instead: Sequence[OpSpec | None] = (),
) -> ModelSpec:
    """Return what a configuration says, with the stream divided by the factor on what blocks add to it.

    Blocks then add what they give. The embeddings' factor makes up for it, and the norms' epsilon: the norm
    of x / m with eps / m² is the norm of x with eps.

    Args:
        switches: the configuration.
        shape: its numbers.
        positions: whether the model has rotary positions.
        mlp_bias: whether feed-forward blocks have biases.
        instead: of each layer the block in place of attention, or None; nothing where all layers attend.
    """
    rope = rope_of(switches, read_rope(switches))
    added = switches.positive("residual_multiplier", 1.0)
    shape = replace(shape, norm=Norm(eps=shape.norm.eps / added**2))
    bias, output_bias = read_biases(switches, None)
    attention = shape.attention(
        rope=rope if positions else None,
        scale=switches.positive("attention_multiplier", 1.0),
        bias=bias,
        output_bias=output_bias,
    )
    mlp = Mlp(channels=shape.channels, activation=shape.activation, bias=mlp_bias)
    switches.no_windows(shape.layers)
    return decoder_spec(
        shape,
        [pre_norm_layer(each or attention, mlp, shape.norm) for each in (instead or [None] * shape.layers)],
        scale=switches.positive("embedding_multiplier", 1.0) / added,
        head=LmHead(scale=1 / switches.positive("logits_scaling", 1.0)),
    )


def _read(switches: Switches) -> ModelSpec:
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048)
    return granite_spec(switches, shape, mlp_bias=switches.flag("mlp_bias", False))


def write_granite(spec: ModelSpec) -> dict[str, Any]:
    """Return what the configurations of Granite 3 and 4 have in common."""
    attention, _ = first_blocks(spec)
    return {
        **write_decoder(spec, attention_bias=True),
        "attention_multiplier": attention.factor,
        "embedding_multiplier": spec.embeddings.scale,
        "residual_multiplier": 1.0,
        # 1 / (1 / 6) is not 6 in floating point.
        "logits_scaling": float(f"{1 / spec.lm_head.scale:.12g}"),
    }


def _write(spec: ModelSpec) -> dict[str, Any]:
    _, mlp = first_blocks(spec)
    return {**write_granite(spec), "mlp_bias": mlp.bias}


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
