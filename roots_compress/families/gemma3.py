"""Gemma 3 (text): Gemma 2's layers with norms of queries and keys, and two kinds of rotary positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.gemma2 import gemma_rules, read_gemma, write_gemma
from roots_compress.families.rope import FULL, SLIDING, written_ropes
from roots_compress.families.switches import Switches
from roots_compress.families.text_encoder import as_text_encoder
from roots_compress.models.ops.attention import Attention, QkNorm
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import EmbeddingHead
from roots_compress.models.spec import ModelSpec

BOTH_SIDES = "use_bidirectional_attention"
"""As in EmbeddingGemma, which makes vectors of texts."""
ROPES = {FULL: ("rope_theta", 1_000_000.0), SLIDING: ("rope_local_base_freq", 10_000.0)}
"""Where configurations before transformers 5 have the base of the positions, and what it is without."""


def _read(switches: Switches) -> ModelSpec:
    pattern = switches.number("sliding_window_pattern", 6)
    switches.same("_sliding_window_pattern", pattern)
    switches.take("attn_logit_softcapping")  # Read by no layer of transformers' Gemma 3.
    sees_all = not switches.null(BOTH_SIDES, False) and switches.flag(BOTH_SIDES, False)
    spec = read_gemma(
        switches, pattern=pattern, cap=None, scores=None, context=131_072, qk_norm=QkNorm(), ropes=ROPES
    )
    if not sees_all:
        return spec
    # The key says how many tokens a window has to both sides together, and ours to each.
    seeing = _with_attention(spec, lambda window: window // 2 + 1, causal=False)
    return as_text_encoder(seeing, EmbeddingHead())


def _with_attention(spec: ModelSpec, sized: Callable[[int], int], *, causal: bool) -> ModelSpec:
    """Return the specification with other windows, and with attention to one side or to both."""
    for place, op in spec.blocks():
        if isinstance(op, Attention):
            window = None if op.window is None else sized(op.window)
            spec = spec.with_op(place, changed(op, causal=causal, window=window))
    return spec


def _write(spec: ModelSpec) -> dict[str, Any]:
    sees_all = not all(each.causal for each in spec.attentions())
    if sees_all:
        spec = _with_attention(spec, lambda window: 2 * (window - 1), causal=True)
    written = {**write_gemma(spec), "rope_parameters": written_ropes(spec.attentions(), ROPES)}
    return {**written, BOTH_SIDES: True} if sees_all else written


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
