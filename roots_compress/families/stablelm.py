"""StableLM: layer norms and heads turned in part; in some models both blocks of a layer read one norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import first_blocks, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec, Norm

EPS_KEY, PARALLEL = "layer_norm_eps", "use_parallel_residual"


def _read(switches: Switches) -> ModelSpec:
    if switches.said("qk_layernorm", False):
        switches.refuse("qk_layernorm is true: layer norms of each head's queries and keys are not supported")
    return read_decoder(
        switches,
        biases=(switches.flag("use_qkv_bias", False), False),
        partial=0.25,
        parallel=switches.flag(PARALLEL, False),
        own_heads=False,
        whole_heads=True,
        kv_heads=32,
        context=4096,
        norm=Norm(kind="layer_norm"),
        eps=1e-5,
        eps_key=EPS_KEY,
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, _ = first_blocks(spec)
    return {
        **write_decoder(spec, partial=True, own_heads=False, eps_key=EPS_KEY),
        "use_qkv_bias": attention.bias,
        PARALLEL: spec.layers[0][0].parallel,
    }


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    return decoder_rules(spec)


STABLELM = Family(
    "stablelm",
    "StableLmForCausalLM",
    _read,
    _write,
    _rules,
    variants=(
        {},
        {"use_parallel_residual": True, "use_qkv_bias": True, "num_key_value_heads": 1},
        {
            "tie_word_embeddings": True,
            "num_key_value_heads": 4,
            "rope_theta": 100.0,
            "partial_rotary_factor": 0.5,
        },
    ),
)
