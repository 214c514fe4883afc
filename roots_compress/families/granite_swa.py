"""Granite with windows: sinks in attention, and positions of each layer's own, or none."""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_shape
from roots_compress.families.decoder_config import first_blocks, typed_windows
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.granite import granite_spec, write_granite
from roots_compress.families.rope import FULL, SLIDING
from roots_compress.families.switches import Switches
from roots_compress.families.values import is_positive, shown
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.spec import ModelSpec

WINDOW, PERIOD, BASES = 128, 4, "layer_rope_theta"


def _read(switches: Switches) -> ModelSpec:
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


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {
        **write_granite(spec),
        **typed_windows(spec, WINDOW),
        "mlp_bias": first_blocks(spec)[1].bias,
        BASES: [0 if each.rope is None else each.rope.theta for each in spec.attentions()],
    }


FAMILY = Family(
    "granite_swa",
    "GraniteSWAForCausalLM",
    _read,
    _write,
    decoder_rules,
    variants=(
        {"layer_types": [FULL, SLIDING], "sliding_window": 5},
        {"layer_types": [FULL, SLIDING], "sliding_window": 7, BASES: [0, 300.0]},
        {"layer_types": [SLIDING, FULL], "sliding_window": 4, BASES: [100.0, 5000.0]},
        {
            "embedding_multiplier": 12.0,
            "residual_multiplier": 0.22,
            "attention_multiplier": 0.0625,
            "logits_scaling": 6.0,
            "sliding_window": 9,
        },
        {"layer_types": [FULL, FULL], "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
        {"num_hidden_layers": 5, "sliding_window": 3, "tie_word_embeddings": False},
        {"layer_types": [SLIDING, SLIDING], "sliding_window": 30, "num_key_value_heads": 4},
        {"layer_types": [FULL, SLIDING], "sliding_window": 6, "rms_norm_eps": 1e-3, BASES: [50.0, 0]},
    ),
)
