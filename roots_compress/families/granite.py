"""Granite 3 without experts: factors on embeddings, scores, logits and what blocks add to the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import Shape, decoder_spec, pre_norm_layer, read_biases, read_shape
from roots_compress.families.decoder_config import first_blocks, typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.rope import FULL, SLIDING, read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.families.values import is_positive, shown
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import OpSpec, changed
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


def _read_granite(switches: Switches) -> ModelSpec:
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


def _write_granite(spec: ModelSpec) -> dict[str, Any]:
    _, mlp = first_blocks(spec)
    return {**write_granite(spec), "mlp_bias": mlp.bias}


FACTORS = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.0625,
    "logits_scaling": 6.0,
}
GRANITE = Family(
    "granite",
    "GraniteForCausalLM",
    _read_granite,
    _write_granite,
    decoder_rules,
    variants=(
        {"attention_multiplier": 0.3},
        {**FACTORS, "tie_word_embeddings": True},
        {"residual_multiplier": 2.0, "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
    ),
)
"""Granite 3: a Llama with factors on embeddings, scores, logits and what each block adds to the stream."""


WINDOW, PERIOD, BASES = 128, 4, "layer_rope_theta"


def _read_granite_swa(switches: Switches) -> ModelSpec:
    shape = read_shape(
        switches, kv_heads=4, null_kv_heads=True, whole_heads=True, context=8192, tied=True, eps=1e-5
    )
    window = switches.optional_number("sliding_window", WINDOW)
    slides = [index % PERIOD > 0 for index in range(shape.layers)]
    windows = switches.typed_windows(window, shape.layers, slides)
    bases = switches.take(BASES)
    if bases is not None and (
        not isinstance(bases, list)
        or len(bases) != shape.layers
        or not all(each == 0 or is_positive(each) for each in bases)
    ):
        switches.refuse(
            f"{BASES} is {shown(bases)}; it must hold 0 or more for each of {shape.layers} layers"
        )
    plain = granite_spec(switches, shape, mlp_bias=switches.flag("mlp_bias", False))
    layers = []
    for layer, each, theta in zip(plain.layers, windows, bases or [None] * shape.layers, strict=True):
        mixer, mlp = layer
        assert isinstance(mixer.op, Attention)
        rope = mixer.op.rope
        if theta is not None:
            rope = changed(rope, theta=float(theta)) if rope and theta else None
        layers.append((changed(mixer, op=changed(mixer.op, sinks=True, window=each, rope=rope)), mlp))
    return plain.with_layers(tuple(layers))


def _write_granite_swa(spec: ModelSpec) -> dict[str, Any]:
    return {
        **write_granite(spec),
        **typed_windows(spec, WINDOW),
        "mlp_bias": first_blocks(spec)[1].bias,
        BASES: [0 if each.rope is None else each.rope.theta for each in spec.attentions()],
    }


GRANITE_SWA = Family(
    "granite_swa",
    "GraniteSWAForCausalLM",
    _read_granite_swa,
    _write_granite_swa,
    decoder_rules,
    variants=(
        {"layer_types": [FULL, SLIDING], "sliding_window": 5},
        {"layer_types": [FULL, SLIDING], "sliding_window": 7, BASES: [0, 300.0]},
        {"layer_types": [SLIDING, FULL], "sliding_window": 4, BASES: [100.0, 5000.0]},
        {**FACTORS, "sliding_window": 9},
        {"layer_types": [FULL, FULL], "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
        {"num_hidden_layers": 5, "sliding_window": 3, "tie_word_embeddings": False},
        {"layer_types": [SLIDING, SLIDING], "sliding_window": 30, "num_key_value_heads": 4},
        {"layer_types": [FULL, SLIDING], "sliding_window": 6, "rms_norm_eps": 1e-3, BASES: [50.0, 0]},
    ),
)
"""Granite with windows: sinks in attention, and positions of each layer's own, or none."""
