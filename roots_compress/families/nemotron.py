"""Nemotron: layer norms whose gains are stored as their distance from 1, no gate, heads turned in part."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.families.transforms import ADD_ONE
from roots_compress.models.spec import Norm

EPS_KEY = "norm_eps"


NEMOTRON = Family(
    "nemotron",
    "NemotronForCausalLM",
    partial(
        read_decoder,
        mlp_bias=None,
        gated=False,
        partial=0.5,
        activation="relu2",
        null_head_dim=True,
        context=4096,
        norm=Norm(kind="layer_norm"),
        eps=1e-5,
        eps_key=EPS_KEY,
    ),
    partial(write_decoder, attention_bias=True, partial=True, eps_key=EPS_KEY, mlp_bias="mlp_bias"),
    partial(decoder_rules, gain=ADD_ONE),
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
