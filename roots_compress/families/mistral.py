"""Mistral, Ministral, Ministral 3 and Mixtral: a Llama with windows, positions or experts of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import one_window, read_decoder
from roots_compress.families.decoder_config import typed_windows, write_decoder
from roots_compress.families.decoder_tensors import NORM_NAMES, decoder_rules
from roots_compress.families.experts import with_experts, without_experts
from roots_compress.families.rope import DEFAULT_THETA, ORIGINAL, read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.families.values import is_positive, shown
from roots_compress.models.ops.attention import Rope
from roots_compress.models.ops.base import changed
from roots_compress.models.spec import ModelSpec

MISTRAL = Family(
    "mistral",
    "MistralForCausalLM",
    partial(
        read_decoder,
        windows=partial(Switches.windows, by_default=True),
        biases="none",
        kv_heads=8,
        null_head_dim=True,
        context=131072,
    ),
    partial(write_decoder, windows="all"),
    decoder_rules,
    variants=({"sliding_window": None}, {"sliding_window": 5, "num_key_value_heads": 1}),
)
"""Mistral: a Llama whose layers may all have a sliding window."""


WINDOW = 4096
"""transformers wants a window also where no layer slides."""


def _windows(switches: Switches, layers: int) -> list[int | None]:
    return switches.typed_windows(switches.number("sliding_window", WINDOW), layers, [True] * layers)


def _write_ministral(spec: ModelSpec) -> dict[str, Any]:
    return {**write_decoder(spec), **typed_windows(spec, WINDOW)}


MINISTRAL = Family(
    "ministral",
    "MinistralForCausalLM",
    partial(read_decoder, windows=_windows, biases="none", kv_heads=8, stated_head_dim=True, context=131072),
    _write_ministral,
    decoder_rules,
    variants=(
        {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
        {"layer_types": ["full_attention"] * 2, "num_key_value_heads": 1, "head_dim": 16},
        {"sliding_window": 7, "tie_word_embeddings": True},
    ),
)
"""Ministral: a Mistral whose layers' windows are told apart."""


BETA = "llama_4_scaling_beta"
YARN: dict[str, Any] = {
    "type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    ORIGINAL: 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    BETA: 0.1,
}
"""The positions of a configuration that does not say them."""


def _rope(switches: Switches) -> tuple[Rope, float | None]:
    """Take the rotary positions, and the position from which on queries grow; None where they never do."""
    keys = ("rope_scaling", "rope_parameters")
    given = next((found for key in keys if (found := switches.said(key, None))), YARN)
    for key in keys:
        switches.same(key, given)
    if not isinstance(given, dict):
        switches.refuse(f"rope_parameters is {shown(given)}; it must be an object or null")
    parameters = {key: value for key, value in given.items() if key != "max_position_embeddings"}
    beta, length = parameters.pop(BETA, None), parameters.get(ORIGINAL)
    if not isinstance(beta, int | float) or not is_positive(length):
        switches.refuse(f"rope_parameters must hold {BETA} and {ORIGINAL}, by which queries are multiplied")
    if parameters.get("rope_type", parameters.get("type")) != "yarn":
        del parameters[ORIGINAL]
    theta = switches.take("rope_theta", DEFAULT_THETA)
    inner = Switches({"rope_parameters": parameters, "rope_theta": theta}, switches.where)
    return rope_of(switches, read_rope(inner)), length if beta else None


def _read_ministral3(switches: Switches) -> ModelSpec:
    rope, length = _rope(switches)
    spec = read_decoder(
        switches,
        windows=one_window,
        biases="none",
        rope=rope,
        head_dim=128,
        kv_heads=8,
        context=262144,
        eps=1e-5,
    )
    return spec if length is None else changed(spec, max_positions=min(spec.max_positions, int(length)))


def _write_ministral3(spec: ModelSpec) -> dict[str, Any]:
    written = write_decoder(spec, windows="all")
    rope = written["rope_parameters"]
    length = rope.setdefault(ORIGINAL, spec.max_positions)
    # The queries' growth begins where the model ends, or there is none.
    return {**written, "rope_parameters": {**rope, BETA: YARN[BETA] if length >= spec.max_positions else 0.0}}


SHORT = {**YARN, ORIGINAL: 32, "factor": 2.0, "rope_theta": 1000.0}
MINISTRAL3 = Family(
    "ministral3",
    "Ministral3ForCausalLM",
    _read_ministral3,
    _write_ministral3,
    decoder_rules,
    variants=(
        {"rope_parameters": SHORT},
        {"rope_parameters": {**SHORT, BETA: 0.0}, "num_key_value_heads": 1, "sliding_window": 5},
        {"head_dim": 16, "tie_word_embeddings": True},
    ),
)
"""Ministral 3: a Mistral with YaRN, read up to the length from which on queries grow with their position."""


EXPERTS = "num_local_experts"
NAMES = {
    **NORM_NAMES,
    "mlp.router": "block_sparse_moe.gate",
    "mlp.experts.{}.gate_proj": "block_sparse_moe.experts.{}.w1",
    "mlp.experts.{}.up_proj": "block_sparse_moe.experts.{}.w3",
    "mlp.experts.{}.down_proj": "block_sparse_moe.experts.{}.w2",
}


def _read_mixtral(switches: Switches) -> ModelSpec:
    switches.renamed("num_experts", EXPERTS)
    spec = read_decoder(
        switches,
        windows=one_window,
        biases="none",
        theta=1_000_000.0,
        null_head_dim=True,
        kv_heads=8,
        context=131072,
        eps=1e-5,
    )
    return with_experts(switches, spec, key=EXPERTS, experts=8, chosen=2, renormalise=True)


def _write_mixtral(spec: ModelSpec) -> dict[str, Any]:
    plain, _, experts = without_experts(spec, EXPERTS)
    return {**write_decoder(plain, windows="all"), **experts}


MIXTRAL = Family(
    "mixtral",
    "MixtralForCausalLM",
    _read_mixtral,
    _write_mixtral,
    partial(decoder_rules, names=NAMES),
    variants=(
        {},
        {"sliding_window": 5, "num_key_value_heads": 1, "head_dim": 16},
        {"num_experts_per_tok": 1, "tie_word_embeddings": True, "hidden_act": "gelu"},
    ),
)
"""Mixtral: a Mistral with experts in all layers."""
