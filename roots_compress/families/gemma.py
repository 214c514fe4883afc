"""Gemma: gains stored as their distance from 1, embeddings scaled by the root of their width."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.switches import ACTIVATIONS
from roots_compress.families.transforms import AddOne
from roots_compress.models.ops.mlp import Activation
from roots_compress.models.spec import ModelSpec

# transformers reads the first Gemma's "gelu" as its tanh form, which the weights were trained with.
GEMMA_ACTIVATIONS: dict[str, Activation] = {**ACTIVATIONS, "gelu": "gelu_tanh"}


def _write(spec: ModelSpec) -> dict[str, Any]:
    return write_decoder(spec, attention_bias=True)


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    return decoder_rules(spec, gain=AddOne())


FAMILY = Family(
    "gemma",
    "GemmaForCausalLM",
    partial(
        read_decoder,
        head_dim=256,
        kv_heads=16,
        context=8192,
        tied=True,
        activations=GEMMA_ACTIVATIONS,
        activation="gelu_pytorch_tanh",
        scaled=True,
    ),
    _write,
    _rules,
    variants=(
        {},
        {"num_key_value_heads": 1, "head_dim": 16, "attention_bias": True, "hidden_act": "gelu"},
    ),
)
