"""Qwen2-MoE and Qwen1.5-MoE: Qwen 2 with routed experts and a shared expert."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.experts import SHARED_NAMES, read_shared, with_shared, write_shared
from roots_compress.families.qwen3_moe import read_sparse
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec

CHANNELS = (1408, 5632)
"""Channels of each routed expert, and of the shared expert, where a configuration does not say them."""


def _windows(switches: Switches, layers: int) -> Sequence[int | None]:
    """Take each layer's window: transformers writes 0 where there is none."""
    window, first = switches.take("sliding_window", 4096) or None, switches.said("max_window_layers", 28)
    if not switches.flag("use_sliding_window", False):
        window = None
    if type(first) is not int or not isinstance(window, int | None):
        switches.refuse(f"sliding_window is {shown(window)}, and max_window_layers {shown(first)}")
    slides = [index % 2 == 0 and index < first for index in range(layers)]
    return switches.typed_windows(window, layers, slides)


def _read(switches: Switches) -> ModelSpec:
    spec = read_decoder(switches, windows=_windows, biases="qkv", kv_heads=16, context=32768)
    _, mlp = spec.layers[0]
    assert isinstance(mlp.op, Mlp)
    shared = read_shared(
        switches, mlp.op.activation, experts=60, chosen=4, channels=CHANNELS, renormalise=False
    )
    sparse = read_sparse(switches, len(spec.layers))
    return spec.with_layers(with_shared(spec.layers, shared, sparse))


def write_sparse(spec: ModelSpec) -> dict[str, Any]:
    """Return which layers have no experts, and the width of their feed-forward blocks."""
    dense = {index: layer[1].op for index, layer in enumerate(spec.layers) if len(layer) == 2}
    widths = {op.channels for op in dense.values() if isinstance(op, Mlp)}
    return {**({"intermediate_size": min(widths)} if widths else {}), "mlp_only_layers": [*dense]}


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_decoder(spec, windows="by_layer"), **write_shared(spec, True), **write_sparse(spec)}


FAMILY = Family(
    "qwen2_moe",
    "Qwen2MoeForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names={**NORM_NAMES, **SHARED_NAMES}),
    variants=(
        {},
        {"num_experts_per_tok": 1, "tie_word_embeddings": True},
        {"num_experts_per_tok": 3, "norm_topk_prob": True},
        {"num_key_value_heads": 1, "shared_expert_intermediate_size": 20},
        {"mlp_only_layers": [1]},
        {"decoder_sparse_step": 2, "norm_topk_prob": True},
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
        {"num_experts": 7, "moe_intermediate_size": 20, "hidden_act": "gelu"},
    ),
)
