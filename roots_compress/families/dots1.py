"""dots.llm1: Qwen 3 with routed experts, a sigmoid router and shared experts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import first_blocks, typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import with_shared
from roots_compress.families.routed import NAMES, read_leading, read_routed, write_routed
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import QkNorm
from roots_compress.models.spec import ModelSpec


def _windows(switches: Switches, layers: int) -> Sequence[int | None]:
    # Not as Qwen's: the class takes null for max_window_layers where no layer asks for it.
    window, first = switches.optional_number("sliding_window", 4096), switches.said("max_window_layers", 62)
    if window is None or switches.said("layer_types", None) is not None:
        first = layers  # Nothing asks for it.
    if type(first) is not int:
        switches.refuse(f"max_window_layers is {shown(first)}; it must be a whole number")
    return switches.typed_windows(window, layers, [index >= first for index in range(layers)])


def _read(switches: Switches) -> ModelSpec:
    spec = read_decoder(
        switches, windows=_windows, qk_norm=QkNorm(), kv_heads=32, null_kv_heads=True, context=2048
    )
    activation = first_blocks(spec)[1].activation
    shared = read_routed(
        switches, activation, experts=None, chosen=None, channels=1408, shared=None, renormalise=False
    )
    sparse = read_leading(switches, len(spec.layers), 0)
    return spec.with_layers(with_shared(spec.layers, shared, sparse))


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_decoder(spec, attention_bias=True), **typed_windows(spec), **write_routed(spec)}


DOTS1 = Family(
    "dots1",
    "Dots1ForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=NAMES),
    variants=(
        {},
        {"norm_topk_prob": True, "first_k_dense_replace": 1, "routed_scaling_factor": 2.5},
        {"sliding_window": 5, "max_window_layers": 1, "num_key_value_heads": 1, "attention_bias": True},
        {"n_group": 3, "topk_group": 1, "num_experts_per_tok": 2, "tie_word_embeddings": True},
    ),
)
