"""Qwen3-MoE: Qwen 3 whose feed-forward blocks are mixtures of experts, in all layers or in some."""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import first_blocks, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import read_moe, without_experts
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import QkNorm
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec

CHANNELS = 6144
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


def _read(switches: Switches) -> ModelSpec:
    switches.renamed("num_local_experts", "num_experts")
    spec = read_decoder(switches, windows=_window, qk_norm=QkNorm(), kv_heads=4, context=32768)
    sparse = read_sparse(switches, len(spec.layers))
    activation = first_blocks(spec)[1].activation
    moe = read_moe(switches, activation, experts=128, chosen=8, channels=768, renormalise=False)
    layers = [
        (mixer, changed(mlp, op=moe) if has_experts else mlp)
        for (mixer, mlp), has_experts in zip(spec.layers, sparse, strict=True)
    ]
    return spec.with_layers(tuple(layers))


def _write(spec: ModelSpec) -> dict[str, Any]:
    plain, moe, experts = without_experts(spec, "num_experts", CHANNELS)
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


FAMILY = Family(
    "qwen3_moe",
    "Qwen3MoeForCausalLM",
    _read,
    _write,
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
