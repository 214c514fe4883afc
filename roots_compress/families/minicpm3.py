"""MiniCPM3: latent attention, and factors on embeddings, on what blocks add to the stream, and on logits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import sqrt
from typing import Any

from roots_compress.families.base import Family
from roots_compress.families.decoder import decoder_spec, pre_norm_layer
from roots_compress.families.latent import latent_rules, read_latent, write_latent
from roots_compress.families.switches import Switches
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ModelSpec, Norm

EMBEDDED, DEPTH, BASE = "scale_emb", "scale_depth", "dim_model_base"


def _read(switches: Switches) -> ModelSpec:
    shape, attention = read_latent(
        switches,
        query_rank=768,
        rank=256,
        plain=64,
        turned=32,
        values=None,
        kv_heads=40,
        null_kv_heads=True,
        whole_heads=True,
        context=32768,
        tied=True,
        eps=1e-5,
    )
    # Blocks add what they give to a stream that is divided by the factor on it, as a Granite's.
    added = 1.0 if switches.null(DEPTH, 1.4) else switches.positive(DEPTH, 1.4) / sqrt(shape.layers)
    shape = replace(shape, norm=Norm(eps=shape.norm.eps / added**2))
    mlp = Mlp(channels=shape.channels, activation=shape.activation, bias=switches.flag("mlp_bias", False))
    base = shape.width if switches.null(BASE, 256) else switches.number(BASE, 256)
    return decoder_spec(
        shape,
        [pre_norm_layer(attention, mlp, shape.norm)] * shape.layers,
        scale=switches.positive(EMBEDDED, 12) / added,
        head=LmHead(scale=base / shape.width),
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    mlp = spec.layers[0][-1].op
    return {
        **write_latent(spec),
        "mlp_bias": isinstance(mlp, Mlp) and mlp.bias,
        EMBEDDED: spec.embeddings.scale,
        DEPTH: None,
        BASE: round(spec.lm_head.scale * spec.width),
    }


MINICPM3 = Family(
    "minicpm3",
    "MiniCPM3ForCausalLM",
    _read,
    _write,
    partial(latent_rules, paired=False),
    variants=(
        {},
        {"scale_emb": 1, "scale_depth": None, "dim_model_base": None, "q_lora_rank": None},
        {"dim_model_base": 8, "tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True},
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 1000.0,
                "short_factor": [1.0, 1.5, 2.0, 3.0],
                "long_factor": [1.0, 2.0, 4.0, 8.0],
                "original_max_position_embeddings": 16,
            }
        },
        {"num_hidden_layers": 3, "v_head_dim": 10, "qk_nope_head_dim": 12, "hidden_act": "gelu"},
    ),
)
