"""OLMo 2, OLMo 3 and OLMoE: norms of all queries and all keys of a token at once."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import typed_windows, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import with_experts, without_experts
from roots_compress.families.rope import FULL, SLIDING, written_ropes
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.attention import QkNorm
from roots_compress.models.spec import ModelSpec

NORM_NAMES = {
    "self_attn_post_norm": "post_attention_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


read_olmo = partial(
    read_decoder,
    qk_norm=QkNorm(over="projection"),
    norms=("post_norm",),
    null_kv_heads=True,
    whole_heads=True,
    context=2048,
    eps=1e-5,
)
olmo_rules = partial(decoder_rules, names=NORM_NAMES)
OLMO2 = Family(
    "olmo2",
    "Olmo2ForCausalLM",
    read_olmo,
    partial(write_decoder, attention_bias=True),
    olmo_rules,
    variants=({}, {"num_key_value_heads": 1, "tie_word_embeddings": True, "attention_bias": True}),
)
"""OLMo 2: norms after each block instead of before it, and of all queries and all keys of a token at once."""


THETA = 500_000.0
WINDOW, PATTERN = 4096, 4
ROPES = {FULL: ("rope_theta", THETA), SLIDING: (None, THETA)}
"""The top-level key for the base of the positions, and its default; `rope_theta` is for full attention."""


def _windows(switches: Switches, layers: int) -> list[int | None]:
    window = switches.optional_number("sliding_window", WINDOW)
    return switches.typed_windows(window, layers, [bool((index + 1) % PATTERN) for index in range(layers)])


def _write_olmo3(spec: ModelSpec) -> dict[str, Any]:
    return {
        **write_decoder(spec, attention_bias=True),
        "rope_parameters": written_ropes(spec.attentions(), ROPES),
        **typed_windows(spec, WINDOW),  # transformers wants one also where no layer slides.
    }


YARN = {
    FULL: {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16},
    SLIDING: {"rope_type": "default", "rope_theta": 1000.0},
}
OLMO3 = Family(
    "olmo3",
    "Olmo3ForCausalLM",
    partial(read_olmo, windows=_windows, ropes=ROPES),
    _write_olmo3,
    olmo_rules,
    variants=(
        {"layer_types": [SLIDING, FULL], "sliding_window": 5},
        {
            "layer_types": [SLIDING, FULL],
            "sliding_window": 6,
            "rope_parameters": YARN,
            "num_key_value_heads": 1,
        },
    ),
)
"""OLMo 3: OLMo 2 with windows in three layers of four, and scaled positions in the others."""


EXPERTS, RENORMALISE = "num_experts", "norm_topk_prob"


def _read(switches: Switches) -> ModelSpec:
    switches.renamed("num_local_experts", EXPERTS)
    if (bound := switches.take("clip_qkv")) is not None:
        switches.refuse(f"clip_qkv is {shown(bound)}: bounds of queries, keys and values are not supported")
    spec = read_decoder(
        switches,
        qk_norm=QkNorm(over="projection"),
        filled=True,
        null_kv_heads=True,
        context=4096,
        eps=1e-5,
    )
    renormalise = switches.flag(RENORMALISE, False)
    return with_experts(switches, spec, key=EXPERTS, experts=64, chosen=8, renormalise=renormalise)


def _write_olmoe(spec: ModelSpec) -> dict[str, Any]:
    plain, moe, experts = without_experts(spec, EXPERTS)
    return {**write_decoder(plain, attention_bias=True), **experts, RENORMALISE: moe.renormalise}


OLMOE = Family(
    "olmoe",
    "OlmoeForCausalLM",
    _read,
    _write_olmoe,
    decoder_rules,
    variants=(
        {},
        {"norm_topk_prob": True, "num_key_value_heads": 1, "attention_bias": True},
        {"num_experts_per_tok": 1, "tie_word_embeddings": True, "hidden_act": "gelu"},
    ),
)
"""OLMoE: experts in all layers; norms of all queries and all keys of a token at once."""
