"""Qwen 2 and 3, dense and with experts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import first_blocks, write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.experts import (
    SHARED_NAMES,
    Shared,
    read_moe,
    read_shared,
    with_shared,
    without_experts,
    write_shared,
)
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import QkNorm
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec

QWEN2 = Family(
    "qwen2",
    "Qwen2ForCausalLM",
    partial(
        read_decoder, windows=Switches.windows, biases="qkv", kv_heads=32, null_kv_heads=True, context=32768
    ),
    partial(write_decoder, windows="by_layer"),
    decoder_rules,
    variants=(
        {},
        {"tie_word_embeddings": True, "num_key_value_heads": 4},
        {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
)
"""Qwen 2 and 2.5: biases on queries, keys and values, windows by layer."""


QWEN3 = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    partial(
        read_decoder,
        windows=Switches.windows,
        qk_norm=QkNorm(),
        head_dim=128,
        kv_heads=32,
        null_kv_heads=True,
        context=32768,
    ),
    partial(write_decoder, windows="by_layer", attention_bias=True),
    decoder_rules,
    variants=(
        {"tie_word_embeddings": True},
        {"attention_bias": True, "head_dim": 16, "num_key_value_heads": 1},
    ),
)
"""Qwen 3: norms of each head's queries and keys, windows by layer."""


QWEN2_MOE_CHANNELS = (1408, 5632)
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


def _read_qwen2_moe(switches: Switches) -> ModelSpec:
    spec = read_decoder(switches, windows=_windows, biases="qkv", kv_heads=16, context=32768)
    activation = first_blocks(spec)[1].activation
    shared = read_shared(
        switches, activation, experts=60, chosen=4, channels=QWEN2_MOE_CHANNELS, renormalise=False
    )
    sparse = read_sparse(switches, len(spec.layers))
    return spec.with_layers(with_shared(spec.layers, shared, sparse))


def write_sparse(spec: ModelSpec) -> dict[str, Any]:
    """Return which layers have no experts, and the width of their feed-forward blocks."""
    dense = {index: layer[1].op for index, layer in enumerate(spec.layers) if len(layer) == 2}
    widths = {op.channels for op in dense.values() if isinstance(op, Mlp)}
    return {**({"intermediate_size": min(widths)} if widths else {}), "mlp_only_layers": [*dense]}


def _write_qwen2_moe(spec: ModelSpec) -> dict[str, Any]:
    return {**write_decoder(spec, windows="by_layer"), **write_shared(spec, True), **write_sparse(spec)}


QWEN2_MOE = Family(
    "qwen2_moe",
    "Qwen2MoeForCausalLM",
    _read_qwen2_moe,
    _write_qwen2_moe,
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
"""Qwen2-MoE and Qwen1.5-MoE: Qwen 2 with routed experts and a shared expert."""


QWEN3_MOE_CHANNELS = 6144
"""Of a plain feed-forward block, where a configuration does not say it."""


def read_sparse(switches: Switches, layers: int) -> list[bool]:
    """Take which layers have experts: every so-manieth, but those that are named."""
    given = switches.take("mlp_only_layers")
    given = [] if given is None else given
    if not isinstance(given, list) or any(type(index) is not int for index in given):
        switches.refuse(f"mlp_only_layers is {shown(given)}; it must be a list of layers' numbers")
    step = switches.number("decoder_sparse_step", 1)
    return [index not in given and (index + 1) % step == 0 for index in range(layers)]


def _window(switches: Switches, layers: int) -> list[int | None]:
    window = switches.optional_number("sliding_window", 4096)
    return [window if switches.flag("use_sliding_window", False) else None] * layers


def _read_qwen3_moe(switches: Switches) -> ModelSpec:
    switches.renamed("num_local_experts", "num_experts")
    spec = read_decoder(switches, windows=_window, qk_norm=QkNorm(), kv_heads=4, context=32768)
    sparse = read_sparse(switches, len(spec.layers))
    activation = first_blocks(spec)[1].activation
    moe = read_moe(switches, activation, experts=128, chosen=8, channels=768, renormalise=False)
    return spec.with_layers(with_shared(spec.layers, Shared(moe, None), sparse))


def _write_qwen3_moe(spec: ModelSpec) -> dict[str, Any]:
    plain, moe, experts = without_experts(spec, "num_experts", QWEN3_MOE_CHANNELS)
    written = write_decoder(plain, windows="all", attention_bias=True)
    return {
        **written,
        **experts,
        "use_sliding_window": written["sliding_window"] is not None,
        "mlp_only_layers": [place.layer for place, op in spec.blocks() if isinstance(op, Mlp)],
        "decoder_sparse_step": 1,
        "moe_intermediate_size": moe.channels,
        "norm_topk_prob": moe.renormalise,
    }


QWEN3_MOE = Family(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    _read_qwen3_moe,
    _write_qwen3_moe,
    decoder_rules,
    variants=(
        {},
        {"num_experts_per_tok": 1},
        {"num_experts_per_tok": 4, "norm_topk_prob": True},
        {"norm_topk_prob": True, "num_key_value_heads": 1, "head_dim": 16},
        {"mlp_only_layers": [0], "norm_topk_prob": True},
        {"decoder_sparse_step": 2},
        {"attention_bias": True, "tie_word_embeddings": True},
        {"num_experts": 7, "moe_intermediate_size": 20, "hidden_act": "gelu"},
    ),
)
"""Qwen3-MoE: Qwen 3 whose feed-forward blocks are mixtures of experts, in all layers or in some."""
