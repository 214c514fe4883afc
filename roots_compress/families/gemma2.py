"""Gemma 2: four norms a layer, every second layer with a sliding window, softcaps on scores and logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import Shape, decoder_spec, read_shape
from roots_compress.families.decoder_config import first_blocks, typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.gemma import GEMMA_ACTIVATIONS
from roots_compress.families.rope import read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import AddOne
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.sublayer import Sublayer
from roots_compress.models.spec import Layer, ModelSpec, Norm

WINDOW = 4096
"""Where a configuration does not say it."""
NORM_NAMES = {
    "self_attn_pre_norm": "input_layernorm",
    "self_attn_post_norm": "post_attention_layernorm",
    "mlp_pre_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


def gemma_shape(switches: Switches, context: int) -> Shape:
    """Take the numbers of a configuration of Gemma 2 or 3, whose defaults are alike but for the context."""
    shape = read_shape(
        switches,
        head_dim=256,
        kv_heads=4,
        context=context,
        tied=True,
        activations=GEMMA_ACTIVATIONS,
        activation_key="hidden_activation",
        activation="gelu_pytorch_tanh",
    )
    if shape.width % shape.heads:
        switches.refuse(f"hidden_size {shape.width} is not a multiple of num_attention_heads {shape.heads}")
    return shape


def sliding_windows(switches: Switches, layers: int, pattern: int) -> list[int | None]:
    """Return each layer's window: all layers slide but every `pattern`-th, unless they are told apart."""
    window = switches.optional_number("sliding_window", WINDOW)
    switches.same("sliding_window_size", window)
    return switches.typed_windows(window, layers, [bool((index + 1) % pattern) for index in range(layers)])


def score_factor(switches: Switches) -> float:
    """Take what the scores are divided by, squared, and return the factor on them."""
    return float(switches.number("query_pre_attn_scalar", 256) ** -0.5)


def softcap(switches: Switches, key: str, default: float | None) -> float | None:
    """Take a bound of scores or logits; null means none."""
    if switches.null(key, default):
        return None
    return switches.positive(key, default or 1.0)


def four_norm_layer(attention: Attention, mlp: Mlp, norm: Norm) -> Layer:
    """Return a layer with norms before and after each of its blocks."""
    return (
        Sublayer(op=attention, pre_norm=norm, post_norm=norm),
        Sublayer(op=mlp, pre_norm=norm, post_norm=norm),
    )


def write_gemma(spec: ModelSpec) -> dict[str, Any]:
    """Return what the configurations of Gemma 2 and 3 have in common."""
    attention, _ = first_blocks(spec)
    written = write_decoder(spec, attention_bias=True)
    written["hidden_activation"] = written.pop("hidden_act")
    return {
        **written,
        "query_pre_attn_scalar": round(attention.factor**-2),
        **typed_windows(spec, WINDOW),  # transformers wants one also where no layer slides.
        "final_logit_softcapping": spec.lm_head.softcap,
    }


def gemma_rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor of a model of Gemma 2 or 3."""
    return decoder_rules(spec, names=NORM_NAMES, gain=AddOne())


def _read(switches: Switches) -> ModelSpec:
    shape = gemma_shape(switches, 8192)
    windows = sliding_windows(switches, shape.layers, 2)
    scale, bias = score_factor(switches), switches.flag("attention_bias", False)
    cap = softcap(switches, "attn_logit_softcapping", 50.0)
    rope = rope_of(switches, read_rope(switches))
    mlp = Mlp(channels=shape.channels, activation=shape.activation)
    layers = [
        four_norm_layer(
            Attention(
                heads=shape.heads,
                kv_heads=shape.kv_heads,
                head_dim=shape.head_dim,
                rope=rope,
                window=window,
                scale=scale,
                softcap=cap,
                bias=bias,
                output_bias=bias,
            ),
            mlp,
            shape.norm,
        )
        for window in windows
    ]
    head = LmHead(softcap=softcap(switches, "final_logit_softcapping", 30.0))
    return decoder_spec(shape, layers, scale=shape.width**0.5, head=head)


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, _ = first_blocks(spec)
    return {**write_gemma(spec), "attn_logit_softcapping": attention.softcap}


FAMILY = Family(
    "gemma2",
    "Gemma2ForCausalLM",
    _read,
    _write,
    gemma_rules,
    variants=(
        {"sliding_window": 5},
        {"sliding_window": 7, "num_key_value_heads": 1, "head_dim": 16},
        {"sliding_window": 5, "attn_logit_softcapping": None, "final_logit_softcapping": None},
        {"sliding_window": 5, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 6},
        {"layer_types": ["full_attention", "full_attention"], "attention_bias": True},
        {"query_pre_attn_scalar": 11, "hidden_activation": "silu", "sliding_window": 9},
        {"tie_word_embeddings": False, "num_key_value_heads": 4, "sliding_window": 3},
    ),
)
