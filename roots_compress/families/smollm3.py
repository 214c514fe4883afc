"""SmolLM3: a Llama whose every fourth layer has no positions."""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import decoder_spec, pre_norm_layer, read_biases, read_shape
from roots_compress.families.decoder_config import first_blocks, typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.rope import read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Rope
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec

THETA = 2_000_000.0


def _turned(switches: Switches, layers: int) -> list[bool]:
    """Take which layers have rotary positions: all but every fourth, unless they are told apart."""
    every, given = switches.number("no_rope_layer_interval", 4), switches.take("no_rope_layers")
    if given is None:
        return [bool((index + 1) % every) for index in range(layers)]
    if not isinstance(given, list) or len(given) < layers or any(each not in (0, 1) for each in given):
        switches.refuse(
            f"no_rope_layers must hold 1 or 0 for each of {layers} layers: 1 for one with positions"
        )
    return [bool(each) for each in given[:layers]]


def _read(switches: Switches) -> ModelSpec:
    shape = read_shape(switches, kv_heads=4, null_kv_heads=True, whole_heads=True, context=32768, tied=True)
    turned = _turned(switches, shape.layers)
    window = switches.optional_number("sliding_window")
    window = window if switches.flag("use_sliding_window", False) else None
    windows = switches.typed_windows(window, shape.layers, [not each for each in turned])
    bias, output_bias = read_biases(switches, None)
    rope = rope_of(switches, read_rope(switches, theta=THETA))
    mlp = Mlp(channels=shape.channels, activation=shape.activation, bias=switches.flag("mlp_bias", False))
    layers = [
        pre_norm_layer(
            shape.attention(rope=rope if has_rope else None, window=each, bias=bias, output_bias=output_bias),
            mlp,
            shape.norm,
        )
        for has_rope, each in zip(turned, windows, strict=True)
    ]
    return decoder_spec(shape, layers)


def _write(spec: ModelSpec) -> dict[str, Any]:
    attentions = spec.attentions()
    _, mlp = first_blocks(spec)
    windows = typed_windows(spec)
    rope = next((each.rope for each in attentions if each.rope is not None), Rope(theta=THETA))
    return {
        **write_decoder(spec, attention_bias=True),
        "rope_parameters": rope.parameters(),
        "mlp_bias": mlp.bias,
        "no_rope_layers": [int(each.rope is not None) for each in attentions],
        "use_sliding_window": windows["sliding_window"] is not None,
        **windows,
    }


SMOLLM3 = Family(
    "smollm3",
    "SmolLM3ForCausalLM",
    _read,
    _write,
    decoder_rules,
    variants=(
        {"no_rope_layer_interval": 2},
        {"no_rope_layers": [0, 1], "num_key_value_heads": 1, "tie_word_embeddings": False},
        {"no_rope_layers": [1, 0], "use_sliding_window": True, "sliding_window": 5, "attention_bias": True},
    ),
)
