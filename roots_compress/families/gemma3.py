"""Gemma 3 (text): Gemma 2's layers with norms of queries and keys, and two kinds of rotary positions."""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import decoder_spec
from roots_compress.families.gemma2 import (
    four_norm_layer,
    gemma_rules,
    gemma_shape,
    score_factor,
    sliding_windows,
    softcap,
    write_gemma,
)
from roots_compress.families.rope import FULL, SLIDING, ropes_by_type, written_ropes
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Attention, QkNorm
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec

ROPES = {FULL: ("rope_theta", 1_000_000.0), SLIDING: ("rope_local_base_freq", 10_000.0)}
"""Where configurations before transformers 5 have the base of the positions, and what it is without."""


def _read(switches: Switches) -> ModelSpec:
    shape = gemma_shape(switches, 131_072)
    pattern = switches.number("sliding_window_pattern", 6)
    switches.same("_sliding_window_pattern", pattern)
    windows = sliding_windows(switches, shape.layers, pattern)
    scale, bias = score_factor(switches), switches.flag("attention_bias", False)
    switches.take("attn_logit_softcapping")  # Read by no layer of transformers' Gemma 3.
    ropes = ropes_by_type(switches, shape.max_positions, ROPES)
    mlp = Mlp(channels=shape.channels, activation=shape.activation)
    layers = [
        four_norm_layer(
            Attention(
                heads=shape.heads,
                kv_heads=shape.kv_heads,
                head_dim=shape.head_dim,
                rope=ropes[FULL if window is None else SLIDING],
                window=window,
                qk_norm=QkNorm(eps=shape.norm.eps),
                scale=scale,
                bias=bias,
                output_bias=bias,
            ),
            mlp,
            shape.norm,
        )
        for window in windows
    ]
    head = LmHead(softcap=softcap(switches, "final_logit_softcapping", None))
    return decoder_spec(shape, layers, scale=shape.width**0.5, head=head)


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_gemma(spec), "rope_parameters": written_ropes(spec.attentions(), ROPES)}


LINEAR = {
    FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
    SLIDING: {"rope_type": "default", "rope_theta": 100.0},
}
FAMILY = Family(
    "gemma3_text",
    "Gemma3ForCausalLM",
    _read,
    _write,
    gemma_rules,
    variants=(
        {"layer_types": [SLIDING, FULL], "sliding_window": 5},
        {"sliding_window": 7, "num_key_value_heads": 1, "head_dim": 16},
        {"layer_types": [FULL, SLIDING], "sliding_window": 6, "rope_parameters": LINEAR},
        {"layer_types": [FULL, FULL], "attention_bias": True},
        {"query_pre_attn_scalar": 11, "sliding_window": 9},
        {"tie_word_embeddings": False, "num_key_value_heads": 4, "sliding_window": 3},
        {"final_logit_softcapping": 3.0, "layer_types": [SLIDING, FULL], "sliding_window": 4},
        {"hidden_activation": "relu", "sliding_window": 30, "layer_types": [SLIDING, FULL]},
    ),
)
