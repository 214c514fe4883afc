"""Qwen3.5 with routed experts and a shared expert."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import decoder_spec
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import SHARED_NAMES, STACKED_NAMES, read_shared, write_shared
from roots_compress.families.qwen3_5 import LINEAR, NAMES, read_hybrid, write_hybrid
from roots_compress.families.rope import FULL
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import AddOne, Stacked
from roots_compress.models.spec import ModelSpec

WIDTH = "intermediate_size"
"""Of feed-forward blocks that no layer has."""


def _read(switches: Switches) -> ModelSpec:
    switches.put(WIDTH, switches.take(WIDTH) or 1)
    shape, mixers = read_hybrid(switches)
    shared = read_shared(
        switches, shape.activation, experts=256, chosen=8, channels=(512, 512), renormalise=None
    )
    return decoder_spec(shape, [shared.layer(each, shape.norm) for each in mixers])


def _write(spec: ModelSpec) -> dict[str, Any]:
    written = {**write_hybrid(spec), **write_shared(spec, False)}
    del written[WIDTH]
    return written


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor: published files stack the experts' matrices, transformers does not."""
    names = {**NAMES, **SHARED_NAMES}
    yield from decoder_rules(spec, names=names, gain=AddOne(), by_head=True)
    for rule in decoder_rules(spec, names=names | STACKED_NAMES):
        if isinstance(rule.transform, Stacked):
            yield Rule(rule.source.removesuffix(".weight"), rule.targets, rule.transform)


HALVES = [LINEAR, FULL]
FAMILY = Family(
    "qwen3_5_moe_text",
    "Qwen3_5MoeForCausalLM",
    _read,
    _write,
    _rules,
    variants=(
        {"layer_types": HALVES},
        {"layer_types": [FULL, LINEAR], "linear_num_key_heads": 4, "tie_word_embeddings": True},
        {"layer_types": HALVES, "num_experts_per_tok": 1, "linear_value_head_dim": 4},
        {"layer_types": HALVES, "num_experts_per_tok": 4, "num_key_value_heads": 1, "head_dim": 16},
        {"layer_types": HALVES, "attention_bias": True, "linear_num_value_heads": 6},
        {"layer_types": [FULL, FULL], "num_experts": 7, "moe_intermediate_size": 20},
        {"layer_types": HALVES, "shared_expert_intermediate_size": 20, "linear_conv_kernel_dim": 2},
        {"layer_types": [LINEAR, LINEAR, FULL], "num_hidden_layers": 3, "rms_norm_eps": 1e-3},
    ),
)
