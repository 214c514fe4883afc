"""GLM-4 as first published: fused feed-forward blocks, adjacent channels of half a head turned."""

from __future__ import annotations

from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import Norms, read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import GATE_UP, NORM_NAMES, decoder_rules
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec

NAMES = {**NORM_NAMES, **dict.fromkeys(GATE_UP, "mlp.gate_up_proj")}


def read_glm(switches: Switches, norms: Norms = ("pre_norm",)) -> ModelSpec:
    """Return what a configuration says; `norms` are those of each block."""
    return read_decoder(
        switches,
        biases=(switches.flag("attention_bias", True), False),
        partial=0.5,
        head_dim=128,
        kv_heads=2,
        context=131072,
        eps=1.5625e-07,
        norms=norms,
    )


def write_glm(spec: ModelSpec) -> dict[str, Any]:
    """Return the configuration of a GLM."""
    return write_decoder(spec, attention_bias=True, partial=True)


VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"attention_bias": False, "num_key_value_heads": 1, "tie_word_embeddings": True},
    {
        "head_dim": 16,
        "rope_theta": 100.0,
        "partial_rotary_factor": 1.0,
    },
)
RULES = partial(decoder_rules, names=NAMES, paired=True)
FAMILY = Family("glm", "GlmForCausalLM", read_glm, write_glm, RULES, variants=VARIANTS)
