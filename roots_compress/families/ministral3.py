"""Ministral 3: a Mistral with YaRN, read up to the length from which on queries grow with their position.

From `original_max_position_embeddings` on transformers multiplies queries by a factor above 1. Before it the
factor is 1, so a model with that context is the same.
"""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import one_window, read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.rope import DEFAULT_THETA, ORIGINAL, read_rope, rope_of
from roots_compress.families.switches import Switches
from roots_compress.families.values import is_positive, shown
from roots_compress.models.ops.attention import Rope
from roots_compress.models.ops.base import changed
from roots_compress.models.spec import ModelSpec

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


def _read(switches: Switches) -> ModelSpec:
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


def _write(spec: ModelSpec) -> dict[str, Any]:
    written = write_decoder(spec, windows="all")
    rope = written["rope_parameters"]
    length = rope.setdefault(ORIGINAL, spec.max_positions)
    # The queries' growth begins where the model ends, or there is none.
    return {**written, "rope_parameters": {**rope, BETA: YARN[BETA] if length >= spec.max_positions else 0.0}}


SHORT = {**YARN, ORIGINAL: 32, "factor": 2.0, "rope_theta": 1000.0}
FAMILY = Family(
    "ministral3",
    "Ministral3ForCausalLM",
    _read,
    _write,
    decoder_rules,
    variants=(
        {"rope_parameters": SHORT},
        {"rope_parameters": {**SHORT, BETA: 0.0}, "num_key_value_heads": 1, "sliding_window": 5},
        {"head_dim": 16, "tie_word_embeddings": True},
    ),
)
