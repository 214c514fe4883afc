"""Cohere 2 (Command R7B): Cohere with windows by layer, and no positions in layers without one."""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.cohere import cohere_rules, read_cohere, write_cohere
from roots_compress.families.decoder import each_sublayer
from roots_compress.families.decoder_config import typed_windows
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.sublayer import Sublayer
from roots_compress.models.spec import ModelSpec

WINDOW, PATTERN = 4096, "sliding_window_pattern"
SAID = {
    "position_embedding_type": "rope_gptj",
    "rotary_pct": 1.0,
    "use_embedding_sharing": True,
    "use_gated_activation": True,
    "use_parallel_block": True,
    "use_parallel_embedding": True,
}
"""Keys of published configurations that transformers' class does not read, and what its models do."""


def _windows(switches: Switches, layers: int) -> list[int | None]:
    pattern = switches.number(PATTERN, 4)
    switches.same("_sliding_window_pattern", pattern)
    window = switches.optional_number("sliding_window", WINDOW)
    return switches.typed_windows(window, layers, [bool((index + 1) % pattern) for index in range(layers)])


def without_positions(each: Sublayer) -> Sublayer:
    """Return a sublayer without positions, if it has no window."""
    if not isinstance(each.op, Attention) or each.op.window is not None:
        return each
    return changed(each, op=changed(each.op, rope=None))


def _read(switches: Switches) -> ModelSpec:
    for key, does in SAID.items():
        switches.same(key, does)
    for key in ("layer_switch", "order_of_interleaved_layers"):
        switches.take(key)
    return each_sublayer(read_cohere(switches, windows=_windows), without_positions)


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_cohere(spec), **typed_windows(spec, WINDOW)}


FAMILY = Family(
    "cohere2",
    "Cohere2ForCausalLM",
    _read,
    _write,
    cohere_rules,
    variants=(
        {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
        {"num_key_value_heads": 1, "attention_bias": True, "tie_word_embeddings": False, "logit_scale": 0.5},
        {"layer_types": ["full_attention"] * 2, "hidden_act": "gelu"},
    ),
)
