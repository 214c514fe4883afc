"""GLM-4.5, 4.6 and 4.7: a sigmoid router, shared experts, and rotary positions on half of each head."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import with_shared
from roots_compress.families.routed import NAMES, read_leading, read_routed, write_routed
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import QkNorm
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec


def _read(switches: Switches) -> ModelSpec:
    bias = switches.flag("attention_bias", False)
    spec = read_decoder(
        switches,
        biases=(bias, False),
        qk_norm=QkNorm() if switches.flag("use_qk_norm", False) else None,
        partial=0.5,
        kv_heads=8,
        context=131072,
        eps=1e-5,
    )
    _, mlp = spec.layers[0]
    assert isinstance(mlp.op, Mlp)
    shared = read_routed(
        switches, mlp.op.activation, experts=128, chosen=8, channels=1408, shared=1, renormalise=True
    )
    sparse = read_leading(switches, len(spec.layers), 1)
    return spec.with_layers(with_shared(spec.layers, shared, sparse))


def _write(spec: ModelSpec) -> dict[str, Any]:
    written = write_decoder(spec, attention_bias=True, partial=True)
    normed = spec.attentions()[0].qk_norm is not None
    return {**written, **write_routed(spec), "use_qk_norm": normed}


FAMILY = Family(
    "glm4_moe",
    "Glm4MoeForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=NAMES),
    variants=(
        {},
        {"use_qk_norm": True, "attention_bias": True, "first_k_dense_replace": 0},
        {"n_group": 3, "topk_group": 2, "num_experts_per_tok": 4, "routed_scaling_factor": 2.5},
        {"n_group": 2, "topk_group": 1, "num_experts_per_tok": 3, "norm_topk_prob": False},
        {"n_shared_experts": 2, "num_key_value_heads": 1, "tie_word_embeddings": True},
        {"partial_rotary_factor": 1.0, "head_dim": 16, "num_experts_per_tok": 1},
        {"num_hidden_layers": 3, "first_k_dense_replace": 2, "rms_norm_eps": 1e-3},
        {"n_routed_experts": 7, "moe_intermediate_size": 20, "hidden_act": "gelu"},
    ),
)
