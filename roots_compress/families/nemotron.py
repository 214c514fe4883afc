"""Nemotron: layer norms whose gains are stored as their distance from 1, no gate, heads turned in part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import first_blocks, write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import AddOne
from roots_compress.models.spec import ModelSpec, Norm

EPS_KEY = "norm_eps"


def _read(switches: Switches) -> ModelSpec:
    return read_decoder(
        switches,
        mlp_bias=None,
        gated=False,
        partial=0.5,
        activation="relu2",
        null_head_dim=True,
        context=4096,
        norm=Norm(kind="layer_norm"),
        eps=1e-5,
        eps_key=EPS_KEY,
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    _, mlp = first_blocks(spec)
    return {**write_decoder(spec, attention_bias=True, partial=True, eps_key=EPS_KEY), "mlp_bias": mlp.bias}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    return decoder_rules(spec, gain=AddOne())


FAMILY = Family(
    "nemotron",
    "NemotronForCausalLM",
    _read,
    _write,
    _rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {
            "head_dim": 16,
            "rope_theta": 100.0,
            "partial_rotary_factor": 1.0,
        },
    ),
)
