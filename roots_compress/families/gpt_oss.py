"""gpt-oss: experts in all layers, sinks in attention, every other layer with a sliding window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import each_sublayer, read_decoder
from roots_compress.families.decoder_config import typed_windows, write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.experts import with_experts, without_experts
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import Stacked
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.moe import Clamp, Moe
from roots_compress.models.spec import ModelSpec

EXPERTS = "num_local_experts"
GATE_UP = "mlp.experts.gate_up_proj"
NAMES = {
    **NORM_NAMES,
    "mlp.router": "mlp.router",
    "mlp.experts.{}.gate_proj": GATE_UP,
    "mlp.experts.{}.up_proj": GATE_UP,
    "mlp.experts.{}.down_proj": "mlp.experts.down_proj",
}
WINDOW = 128
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
"""Rotary positions where a configuration does not say them."""


def _windows(switches: Switches, layers: int) -> list[int | None]:
    window = switches.optional_number("sliding_window", WINDOW)
    return switches.typed_windows(window, layers, [index % 2 == 0 for index in range(layers)])


def _read(switches: Switches) -> ModelSpec:
    switches.renamed("num_experts", EXPERTS)
    switches.renamed("experts_per_token", "num_experts_per_tok")
    # Of the length before yarn, which the rotary positions say.
    switches.take("initial_context_length")
    switches.stored_in("mxfp4")
    if not switches.said("rope_scaling", None) and switches.said("rope_parameters", None) is None:
        switches.put("rope_parameters", YARN)
    clamp = Clamp(
        alpha=switches.positive("swiglu_alpha", 1.702), limit=switches.positive("swiglu_limit", 7.0)
    )
    bias = switches.flag("attention_bias", True)
    spec = read_decoder(
        switches,
        windows=_windows,
        biases=(bias, bias),
        theta=150000.0,
        head_dim=64,
        kv_heads=8,
        context=131072,
        eps=1e-5,
        activations={"silu": "silu", "swish": "silu"},
        attention={"sinks": True},
    )
    spec = with_experts(switches, spec, key=EXPERTS, experts=128, chosen=4, renormalise=True)
    experts = {"bias": True, "clamp": clamp}
    return each_sublayer(
        spec, lambda each: changed(each, op=changed(each.op, **experts)) if isinstance(each.op, Moe) else each
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    plain, moe, experts = without_experts(spec, EXPERTS)
    clamp = moe.clamp or Clamp()
    return {
        **write_decoder(plain, attention_bias=True),
        **experts,
        **typed_windows(spec, WINDOW),
        "swiglu_alpha": clamp.alpha,
        "swiglu_limit": clamp.limit,
    }


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    for rule in decoder_rules(spec, names=NAMES):
        stem, _, part = rule.source.rpartition(".")
        if not isinstance(rule.transform, Stacked):
            yield rule
        else:
            # Matrices are stored the other way round, and rows of gate and up by turns.
            turned = replace(rule.transform, by_turns=True, transposed=part == "weight")
            yield Rule(stem if part == "weight" else f"{stem}_bias", rule.targets, turned)


GPT_OSS = Family(
    "gpt_oss",
    "GptOssForCausalLM",
    _read,
    _write,
    _rules,
    variants=(
        {"sliding_window": 7},
        {"rope_parameters": {**YARN, "rope_theta": 150000.0, "original_max_position_embeddings": 16}},
        {"num_key_value_heads": 1, "head_dim": 16, "num_experts_per_tok": 1, "sliding_window": 5},
        {"attention_bias": False, "tie_word_embeddings": True},
        {"swiglu_limit": 0.5, "swiglu_alpha": 1.0, "num_experts_per_tok": 3},
        {"layer_types": ["full_attention", "full_attention"], "num_local_experts": 5},
        {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 4},
        {"num_hidden_layers": 3, "sliding_window": 3, "num_key_value_heads": 4},
    ),
)
