"""Llama, and what differs from it in a few switches: Arcee, Helium, SmolLM3."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import (
    decoder_spec,
    pre_norm_layer,
    read_biases,
    read_decoder,
    read_shape,
)
from roots_compress.families.decoder_config import first_blocks, typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.ernie4_5 import paired_rules
from roots_compress.families.rope import read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Rope
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
}


LLAMA = Family(
    "llama",
    "LlamaForCausalLM",
    partial(
        read_decoder, mlp_bias=None, null_head_dim=True, null_kv_heads=True, whole_heads=True, context=2048
    ),
    partial(write_decoder, attention_bias=True, mlp_bias="mlp_bias"),
    decoder_rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
        {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
        {"head_dim": 16, "hidden_act": "gelu"},
        {"rope_parameters": LLAMA3_ROPE},
        {"rope_parameters": YARN},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}},
    ),
)
"""Llama, and what is stored as one: SmolLM2, TinyLlama, distilled R1."""


ARCEE = Family(
    "arcee",
    "ArceeForCausalLM",
    partial(
        read_decoder,
        mlp_bias=None,
        gated=False,
        activation="relu2",
        null_head_dim=True,
        null_kv_heads=True,
        whole_heads=True,
        context=4096,
        eps=1e-5,
    ),
    partial(write_decoder, attention_bias=True, mlp_bias="mlp_bias"),
    decoder_rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {"head_dim": 16, "hidden_act": "gelu"},
    ),
)
"""Arcee (AFM): a Llama whose feed-forward blocks have no gate, and the square of ReLU."""


def _read_helium(switches: Switches) -> ModelSpec:
    return read_decoder(
        switches,
        biases=(switches.flag("attention_bias", False), False),
        mlp_bias=None,
        theta=100_000.0,
        head_dim=128,
        filled=True,
        kv_heads=20,
        context=4096,
        eps=1e-8,
    )


HELIUM = Family(
    "helium",
    "HeliumForCausalLM",
    _read_helium,
    partial(write_decoder, attention_bias=True, mlp_bias="mlp_bias"),
    paired_rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "gelu"},
    ),
)
"""Helium: a Llama whose adjacent channels are turned, with biases on queries, keys and values if any."""


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


def _read_smollm3(switches: Switches) -> ModelSpec:
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


def _write_smollm3(spec: ModelSpec) -> dict[str, Any]:
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
    _read_smollm3,
    _write_smollm3,
    decoder_rules,
    variants=(
        {"no_rope_layer_interval": 2},
        {"no_rope_layers": [0, 1], "num_key_value_heads": 1, "tie_word_embeddings": False},
        {"no_rope_layers": [1, 0], "use_sliding_window": True, "sliding_window": 5, "attention_bias": True},
    ),
)
"""SmolLM3: a Llama whose every fourth layer has no positions."""
