"""Granite 3 with routed experts and a shared expert in every layer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_shape
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.experts import TRAINING
from roots_compress.families.granite import granite_spec, write_granite
from roots_compress.families.granitemoe import BESIDE_NAMES, CHANNELS, VARIANTS, beside_experts, write_beside
from roots_compress.families.switches import Switches
from roots_compress.models.spec import ModelSpec


def _read(switches: Switches) -> ModelSpec:
    for unread in TRAINING:
        switches.take(unread)
    shape = read_shape(switches, null_kv_heads=True, whole_heads=True, context=2048)
    spec = granite_spec(switches, replace(shape, channels=switches.number(CHANNELS)))
    return beside_experts(switches, spec, shape.channels)


def _write(spec: ModelSpec) -> dict[str, Any]:
    return {**write_granite(spec), **write_beside(spec)}


FAMILY = Family(
    "granitemoeshared",
    "GraniteMoeSharedForCausalLM",
    _read,
    _write,
    partial(decoder_rules, names=BESIDE_NAMES),
    variants=VARIANTS,
)
